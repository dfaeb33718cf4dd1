"""Polars, streaming: the function on each piece of the lazy frame."""

import os

import mapped
import polars as pl


def add(frame):
    return frame.select(
        mapped.KEY,
        pl.Series("prediction", mapped.predictions(frame.select(mapped.COLUMNS).to_pandas())),
    )


if __name__ == "__main__":
    with mapped.job():
        os.mkdir(mapped.OUTPUT)
        rows = pl.scan_parquet(mapped.INPUT).select(mapped.KEY, *mapped.COLUMNS)
        schema = {mapped.KEY: pl.Int64, "prediction": pl.Float64}
        rows = rows.map_batches(add, schema=schema, streamable=True)
        rows.sink_parquet(os.path.join(mapped.OUTPUT, "all.parquet"), compression="zstd", engine="streaming")

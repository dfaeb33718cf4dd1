"""Dask: a process per core, the function on each piece of the frame."""

import dask
import dask.dataframe as dd
import mapped
import pandas as pd


def add(frame):
    return pd.DataFrame({mapped.KEY: frame[mapped.KEY], "prediction": mapped.predictions(frame)})


if __name__ == "__main__":
    dask.config.set(scheduler="processes", num_workers=mapped.CORES)
    with mapped.job():
        rows = dd.read_parquet(mapped.INPUT, columns=[mapped.KEY, *mapped.COLUMNS])
        made = rows.map_partitions(add, meta={mapped.KEY: "int64", "prediction": "float64"})
        made.to_parquet(mapped.OUTPUT, compression="zstd", write_index=False)

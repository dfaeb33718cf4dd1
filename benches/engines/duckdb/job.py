"""DuckDB: its rows as a stream of Arrow batches, the function in the one thread that takes them."""

import os

import duckdb
import mapped
import pyarrow as pa
import pyarrow.parquet as pq

if __name__ == "__main__":
    with mapped.job():
        os.mkdir(mapped.OUTPUT)
        names = ", ".join([mapped.KEY, *mapped.COLUMNS])
        rows = duckdb.sql(f"SELECT {names} FROM read_parquet('{mapped.INPUT}/*.parquet')")
        schema = pa.schema({mapped.KEY: pa.int64(), "prediction": pa.float64()})
        file = os.path.join(mapped.OUTPUT, "all.parquet")
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in rows.to_arrow_reader(mapped.BATCH_ROWS):
                predictions = pa.array(mapped.predictions(batch.to_pandas()))
                writer.write_batch(pa.record_batch([batch[mapped.KEY], predictions], schema=schema))

"""Spark on this machine: `mapInPandas`, Arrow batches of the same size as everywhere."""

import os
import sys

import mapped
import pandas as pd
from pyspark.sql import SparkSession


def add(frames):
    for frame in frames:
        yield pd.DataFrame({mapped.KEY: frame[mapped.KEY], "prediction": mapped.predictions(frame)})


if __name__ == "__main__":
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "3g",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(mapped.BATCH_ROWS),
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.ui.enabled": "false",
    }
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = SparkSession.builder.master(f"local[{mapped.CORES}]").config(map=settings).getOrCreate()
    with mapped.job():
        rows = spark.read.parquet(mapped.INPUT).select(mapped.KEY, *mapped.COLUMNS)
        rows.mapInPandas(add, f"{mapped.KEY} long, prediction double").write.parquet(mapped.OUTPUT)
    spark.stop()

"""DataFusion from Python: the function as a scalar function of its columns."""

import datafusion
import mapped
import pandas as pd
import pyarrow as pa


def predict(*columns):
    named = zip(mapped.COLUMNS, columns, strict=True)
    return pa.array(mapped.predictions(pd.DataFrame({name: column.to_pandas() for name, column in named})))


if __name__ == "__main__":
    settings = {
        "datafusion.execution.batch_size": str(mapped.BATCH_ROWS),
        "datafusion.execution.target_partitions": str(mapped.CORES),
        "datafusion.execution.parquet.schema_force_view_types": "false",
    }
    context = datafusion.SessionContext(datafusion.SessionConfig(settings))
    with mapped.job():
        context.register_parquet("rows", mapped.INPUT)
        rows = context.table("rows")
        types = [rows.schema().field(name).type for name in mapped.COLUMNS]
        predict = datafusion.udf(predict, types, pa.float64(), "immutable", "predict")
        columns = [datafusion.col(name) for name in mapped.COLUMNS]
        rows = rows.select(datafusion.col(mapped.KEY), predict(*columns).alias("prediction"))
        rows.write_parquet(mapped.OUTPUT, compression="zstd")

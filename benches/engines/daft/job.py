"""Daft: the function in a class of its own, as for models."""

import daft
import mapped
import pandas as pd


@daft.cls(max_concurrency=mapped.CORES, use_process=True)
class Predict:
    @daft.method.batch(return_dtype=daft.DataType.float64(), batch_size=mapped.BATCH_ROWS)
    def rows(self, *columns):
        named = zip(mapped.COLUMNS, columns, strict=True)
        frame = pd.DataFrame({name: column.to_arrow().to_pandas() for name, column in named})
        return daft.Series.from_numpy(mapped.predictions(frame))


if __name__ == "__main__":
    with mapped.job():
        rows = daft.read_parquet(mapped.INPUT)
        predicted = Predict().rows(*(rows[name] for name in mapped.COLUMNS)).alias("prediction")
        rows.select(rows[mapped.KEY], predicted).write_parquet(mapped.OUTPUT, compression="zstd")

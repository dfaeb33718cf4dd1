"""Ray Data: an actor per core that holds the function."""

import mapped
import pandas as pd
import ray


class Predict:
    def __call__(self, frame):
        return pd.DataFrame({mapped.KEY: frame[mapped.KEY], "prediction": mapped.predictions(frame)})


if __name__ == "__main__":
    ray.init(
        num_cpus=mapped.CORES, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False
    )
    with mapped.job():
        rows = ray.data.read_parquet(mapped.INPUT, columns=[mapped.KEY, *mapped.COLUMNS])
        actors = ray.data.ActorPoolStrategy(size=mapped.CORES)
        # Half a core each, or nobody is left to read for them.
        settings = {"batch_format": "pandas", "batch_size": mapped.BATCH_ROWS, "compute": actors}
        rows = rows.map_batches(Predict, num_cpus=0.5, **settings)
        rows.write_parquet(mapped.OUTPUT)
    ray.shutdown()

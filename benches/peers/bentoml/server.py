"""BentoML, over lists of dicts: a batchable DataFrame hangs in it."""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
import pandas as pd
import served

BATCHES = {
    "batchable": served.BATCHING,
    "max_batch_size": 1024,
    "max_latency_ms": 10_000,
}
"""The latency is when it gives up; it never waits so long."""


@bentoml.service(workers=served.WORKERS)
class Model:
    def __init__(self):
        self.function = served.function()

    @bentoml.api(**BATCHES)
    def predict(self, data: list[dict]) -> list[float]:
        return np.asarray(self.function(pd.DataFrame(data))).tolist()


if __name__ == "__main__":
    bento = Path(sys.executable).with_name("bentoml")
    os.execv(bento, [bento, "serve", "server:Model", "--host", served.HOST, "--port", str(served.PORT)])

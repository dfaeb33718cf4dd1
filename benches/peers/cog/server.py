"""Cog's HTTP server, without its container."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import served
from cog import BasePredictor, Input


class Predictor(BasePredictor):
    def setup(self):
        self.function = served.function()

    def predict(self, data: str = Input(description="the rows, as JSON")) -> list[float]:
        return np.asarray(self.function(pd.DataFrame(json.loads(data)))).tolist()


if __name__ == "__main__":
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["COG_PREDICT_TYPE_STUB"] = "server.py:Predictor"
    os.execv(sys.executable, [sys.executable, "-m", "cog.server.http", "--host", served.HOST])

"""MLServer with a runtime of one's own; with adaptive batching, after a timer or a full batch."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import served
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, PandasCodec
from mlserver.types import InferenceResponse


class Model(MLModel):
    async def load(self):
        self.function = served.function()
        return True

    async def predict(self, payload):
        answer = np.asarray(self.function(PandasCodec.decode_request(payload)))
        column = NumpyCodec.encode_output("predictions", answer)
        return InferenceResponse(model_name=self.name, outputs=[column])


def settings(folder):
    """The files that it reads."""
    gathered = {"max_batch_size": served.MAX_BATCH, "max_batch_time": served.MAX_WAIT_SECONDS}
    model = {"name": "model", "implementation": "server.Model"} | (gathered if served.BATCHING else {})
    server = {
        "host": served.HOST,
        "http_port": served.PORT,
        "grpc_port": served.PORT + 1,
        "metrics_port": served.PORT + 2,
        "metrics_dir": str(folder / "metrics"),
        "parallel_workers": served.WORKERS,
        "debug": False,
    }
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))


if __name__ == "__main__":
    folder = Path(os.environ["FOLDER"])
    settings(folder)
    os.environ["PYTHONPATH"] += f":{Path(__file__).parent}"
    mlserver = Path(sys.executable).with_name("mlserver")
    os.execv(mlserver, [mlserver, "start", str(folder)])

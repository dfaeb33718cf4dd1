"""FastAPI as most people write it: one call of the function per request, in the thread pool."""

import numpy as np
import pandas as pd
import served
import uvicorn
from fastapi import FastAPI

app = FastAPI()
function = served.function()


@app.post("/predict")
def predict(body: dict):
    return {"predictions": np.asarray(function(pd.DataFrame(body["data"]))).tolist()}


if __name__ == "__main__":
    # A worker that is still importing after five seconds is not dead.
    workers = {"workers": served.WORKERS, "timeout_worker_healthcheck": 60}
    quiet = {"log_level": "warning", "access_log": False}
    uvicorn.run("server:app", host=served.HOST, port=served.PORT, **workers, **quiet)

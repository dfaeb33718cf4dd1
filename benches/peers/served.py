"""What every peer serves, and where: as the bench says in variables."""

import os

import cloudpickle

HOST = "127.0.0.1"
PORT = int(os.environ["PORT"])
WORKERS = int(os.environ["WORKERS"])
BATCHING = os.environ["BATCHING"] == "yes"
MAX_BATCH = 64
"""As many as the bench has callers at most."""
MAX_WAIT_SECONDS = 0.005
"""For products that wait for a batch to fill: about as long as one call of the model takes."""


def function():
    """The function, unpickled: a DataFrame in, one number per row out."""
    with open(os.environ["MODEL"], "rb") as file:
        return cloudpickle.load(file)

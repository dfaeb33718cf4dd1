"""`mlflow models serve`, as its documentation starts it."""

import os
import sys
from pathlib import Path

import served

if __name__ == "__main__":
    tools = Path(sys.executable).parent
    os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    command = [tools / "mlflow", "models", "serve", "--model-uri", Path(os.environ["FOLDER"]) / "model"]
    options = ["--env-manager", "local", "--host", served.HOST, "--port", served.PORT]
    os.execv(command[0], [str(part) for part in [*command, *options, "--workers", served.WORKERS]])

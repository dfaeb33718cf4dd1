"""Saves the function as MLflow does, before its service is started."""

import os
from pathlib import Path

import mlflow
import served


class Model(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.function = served.function()

    def predict(self, context, model_input, params=None):
        return self.function(model_input)


if __name__ == "__main__":
    folder = Path(os.environ["FOLDER"]) / "model"
    mlflow.pyfunc.save_model(str(folder), python_model=Model(), pip_requirements=[])

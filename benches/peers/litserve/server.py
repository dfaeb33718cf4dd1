"""LitServe: the function in a process of its own; with batching, after a timer or a full batch."""

import litserve
import numpy as np
import pandas as pd
import served


class Model(litserve.LitAPI):
    def setup(self, device):
        self.function = served.function()

    def decode_request(self, request):
        return request["data"]

    def batch(self, calls):
        self.lengths = [len(rows) for rows in calls]
        return [row for rows in calls for row in rows]

    def predict(self, rows):
        return np.asarray(self.function(pd.DataFrame(rows)))

    def unbatch(self, answers):
        return np.split(answers, np.cumsum(self.lengths)[:-1])

    def encode_response(self, answer):
        return {"predictions": answer.tolist()}


if __name__ == "__main__":
    gathered = {"max_batch_size": served.MAX_BATCH, "batch_timeout": served.MAX_WAIT_SECONDS}
    model = Model(**(gathered if served.BATCHING else {}))
    server = litserve.LitServer(model, accelerator="cpu", workers_per_device=served.WORKERS)
    server.run(host=served.HOST, port=served.PORT, generate_client_file=False, log_level="warning")

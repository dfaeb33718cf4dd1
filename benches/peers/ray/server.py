"""Ray Serve with `@serve.batch`: after a timer or a full batch."""

import signal

import numpy as np
import pandas as pd
import ray
import served
from ray import serve
from starlette.responses import JSONResponse


@serve.deployment(num_replicas=served.WORKERS, max_ongoing_requests=2 * served.MAX_BATCH)
class Model:
    def __init__(self):
        self.function = served.function()

    @serve.batch(max_batch_size=served.MAX_BATCH, batch_wait_timeout_s=served.MAX_WAIT_SECONDS)
    async def predict(self, calls):
        rows = [row for call in calls for row in call]
        answers = np.asarray(self.function(pd.DataFrame(rows)))
        parts = np.split(answers, np.cumsum([len(call) for call in calls])[:-1])
        return [part.tolist() for part in parts]

    async def __call__(self, request):
        body = await request.json()
        return JSONResponse({"predictions": await self.predict(body["data"])})


if __name__ == "__main__":
    ray.init(include_dashboard=False, _node_ip_address=served.HOST, log_to_driver=False)
    serve.start(http_options={"host": served.HOST, "port": served.PORT})
    serve.run(Model.bind(), route_prefix="/predict")
    signal.pause()

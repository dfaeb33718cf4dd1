"""The best that a good engineer writes in a day: FastAPI with a micro-batcher of its own.

Requests are parsed with orjson on the event loop. While the function is busy they queue; when it is
free, it is called once with all that queued, and nobody waits for a timer.
"""

import asyncio
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import orjson
import pandas as pd
import served
import uvicorn
from fastapi import FastAPI, Request, Response

function = None
WHERE = os.environ.get("WHERE", "thread")


def load():
    global function
    function = served.function()


def call(rows):
    """One frame of all rows; by columns, which is several times quicker than from dicts."""
    frame = pd.DataFrame({name: [row[name] for row in rows] for name in rows[0]})
    return np.asarray(function(frame)).tolist()


class Batcher:
    """Calls the function with everything that came in while it was busy."""

    def __init__(self, pool):
        self.pool = pool
        self.waiting = []
        self.running = None

    async def predict(self, rows):
        answered = asyncio.get_running_loop().create_future()
        self.waiting.append((rows, answered))
        if self.running is None:
            self.running = asyncio.create_task(self.run())
        return await answered

    async def run(self):
        loop = asyncio.get_running_loop()
        while self.waiting:
            calls, self.waiting = self.waiting, []
            rows = [row for call_rows, _ in calls for row in call_rows]
            try:
                if WHERE == "inline":
                    answers = call(rows)
                    await asyncio.sleep(0)
                else:
                    answers = await loop.run_in_executor(self.pool, call, rows)
            except Exception as error:
                for _, answered in calls:
                    if not answered.done():
                        answered.set_exception(error)
                continue
            start = 0
            for call_rows, answered in calls:
                end = start + len(call_rows)
                if not answered.done():
                    answered.set_result(answers[start:end])
                start = end
            if WHERE == "inline":
                await asyncio.sleep(0)
        self.running = None


app = FastAPI()
if WHERE == "process":
    batcher = Batcher(ProcessPoolExecutor(1, initializer=load))
else:
    load()
    batcher = Batcher(ThreadPoolExecutor(1))


@app.post("/predict")
async def predict(request: Request):
    body = orjson.loads(await request.body())
    answer = await batcher.predict(body["data"])
    return Response(orjson.dumps({"predictions": answer}), media_type="application/json")


if __name__ == "__main__":
    # A worker that is still importing after five seconds is not dead.
    workers = {"workers": served.WORKERS, "timeout_worker_healthcheck": 60}
    uvicorn.run("server:app", host=served.HOST, port=served.PORT, log_level="warning", **workers)

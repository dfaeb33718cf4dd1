"""What a deferred task waits for."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import model_envelope as me
from airflow.triggers.base import BaseTrigger, TriggerEvent

from .outcome import outcome


class EnvelopeBatchTrigger(BaseTrigger):
    """Runs a job of `envelope batch` as a child process of the triggerer.

    The process has to be somewhere: whoever starts a job also commits its results, at its end. It is here,
    and was not left behind on the worker, because Airflow knows where its triggers run and starts them
    anew elsewhere when a triggerer dies. Nobody would do that for a process that outlives its task.

    A job that is started anew is the same job, by its name, date and envelope: it waits for one that
    still runs, uses what a dead one had finished, and writes nothing when all was written. So it does no
    harm either that Airflow may run one trigger twice at once.

    With a cluster the process only waits and commits. Without one the work is done on the machine of the
    triggerer, of which `local` is the share.
    """

    def __init__(self, ref: str | list[str] | dict[str, str], options: dict[str, Any]) -> None:
        super().__init__()
        self.ref = ref
        self.options = options
        self._starting: asyncio.Future[me.BatchJob] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How another triggerer makes the same one."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return name, {"ref": self.ref, "options": self.options}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fires once, when the job is over."""
        start = functools.partial(me.batch, self.ref, **self.options, wait=False)
        # Looks into the store, which the others need not wait for.
        self._starting = asyncio.get_running_loop().run_in_executor(None, start)
        try:
            result: me.BatchResult | me.EnvelopeError = await (await asyncio.shield(self._starting))
        except me.EnvelopeError as error:
            result = error
        yield TriggerEvent(outcome(result))

    async def cleanup(self) -> None:
        """Ends the process, whatever the trigger ends for.

        When a user fails or clears the task, that is what was asked for. When a triggerer is shut down, the
        process cannot go on without it; the next triggerer goes on from what was finished.
        """
        if self._starting is not None:
            await asyncio.wait([self._starting])
            if not self._starting.exception():
                await asyncio.to_thread(self._starting.result().cancel)

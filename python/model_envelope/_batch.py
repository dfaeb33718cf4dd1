"""`batch`: a function over a table, as a job of the program `envelope`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ._envelope import Envelope, found
from ._errors import EnvelopeError, InvalidInput, JobCancelled, NotFound, from_program
from ._settings import Settings, settings

if TYPE_CHECKING:
    from ._child import Ended


@dataclass(frozen=True)
class BatchProgress:
    """How far a job is. Before there are rows, `step` says what is being done."""

    step: str | None = None
    rows: int = 0
    total: int | None = None
    rows_per_second: float | None = None
    seconds_left: float | None = None

    def __str__(self) -> str:
        if not self.rows:
            return self.step or "starting"
        total = "" if self.total is None else f" of {self.total:,}"
        rate = "" if self.rows_per_second is None else f", {self.rows_per_second:,.0f}/s"
        left = "" if self.seconds_left is None else f", {self.seconds_left:,.0f} s left"
        return f"{self.rows:,}{total} rows{rate}{left}"


@dataclass(frozen=True)
class BatchResult:
    """What a job has written."""

    output: str
    """The table, as it was given."""
    rows: int
    files: int
    version: int | None
    """The version of a Delta table that has the results."""
    digest: str
    """That of the envelope; of the first one, where there are several."""
    seconds: float
    already_done: bool = False
    """Whether an earlier run of the same job had written them, and this one has changed nothing."""
    files_reused: int = 0
    """Files that an earlier run of the same job had finished before it died."""
    digests: tuple[str, ...] = ()
    """Those of all envelopes."""


class BatchJob:
    """A job that was started. It never outlives this process, however that ends.

    As a context it is ended when the block is left; `await job` gives the result without holding a thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        digests: tuple[str, ...],
        tell: Callable[[BatchProgress], None],
    ) -> None:
        self.digests = digests
        """Those of the envelopes that run."""
        self._tell = tell
        self._progress: BatchProgress | None = None
        self._cancelled = False
        from ._child import Child  # slow to import

        self._child = Child(command, variables, self._heard)

    @property
    def digest(self) -> str:
        """That of the envelope that runs; of the first one, where there are several."""
        return self.digests[0]

    @property
    def pid(self) -> int:
        """The number of the job's process."""
        return self._child.pid

    @property
    def done(self) -> bool:
        """Whether it is over, well or not."""
        return self._child.ended.done()

    @property
    def status(self) -> Literal["running", "succeeded", "failed", "cancelled"]:
        """How it stands."""
        if not self.done:
            return "running"
        if isinstance(self._outcome, JobCancelled):
            return "cancelled"
        return "succeeded" if isinstance(self._outcome, BatchResult) else "failed"

    def progress(self) -> BatchProgress | None:
        """The latest that is known, or nothing yet."""
        return self._progress

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is over, but no longer than `timeout` seconds. Says if it is over."""
        return self._child.wait(timeout)

    def result(self, timeout: float | None = None) -> BatchResult:
        """Waits for what it has written.

        Raises:
            TimeoutError: It was not over after `timeout` seconds. It goes on.
            JobCancelled: It was ended before.
            PredictionFailed: The function raised, crashed, or took too long; the message names the row.
            EnvelopeError: What else went wrong, as one of its subclasses where there is one.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"the job was not done after {timeout} s; it goes on")
        if isinstance(self._outcome, BatchResult):
            return self._outcome
        raise self._outcome

    def cancel(self, grace: float = 10.0) -> None:
        """Ends it, if it still runs, and waits for that; the output stays as it was.

        After `grace` seconds it is killed.
        """
        if not self.done:
            self._cancelled = True
            self._child.end(grace)

    def __enter__(self) -> BatchJob:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __await__(self) -> Generator[Any, None, BatchResult]:
        import asyncio  # slow to import

        yield from asyncio.wrap_future(self._child.ended).__await__()
        return self.result()

    def __repr__(self) -> str:
        return f"<BatchJob {self.status}: {self._progress or BatchProgress()}>"

    def _heard(self, line: str) -> None:
        progress = _progress(line)
        if progress is not None:
            self._progress = progress
            self._tell(progress)

    @cached_property
    def _outcome(self) -> BatchResult | BaseException:
        problem = self._child.ended.exception()
        if problem is not None:
            return problem
        ended = self._child.ended.result()
        if ended.status == 0:
            return _result(ended, self.digests)
        return _failure(ended, self._cancelled)


_Ref = str | os.PathLike[str] | Envelope
_Columns = str | Sequence[str] | None


def batch(
    ref: _Ref | Sequence[_Ref] | Mapping[str, _Ref],
    /,
    *,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    function: str | None = None,
    columns: _Columns = None,
    group_by: _Columns = None,
    mode: str | None = None,
    merge_on: _Columns = None,
    partition_by: _Columns = None,
    format: Literal["delta", "parquet"] = "delta",
    where: str | None = None,
    as_of: int | str | datetime | None = None,
    job: str | None = None,
    logical_date: str | date | datetime | None = None,
    cluster: str | None = None,
    local: int | None = None,
    warehouse: str | os.PathLike[str] | None = None,
    timeout: int | None = None,
    max_group_bytes: int | None = None,
    env: Mapping[str, str] | None = None,
    wait: bool = True,
    progress: bool | Callable[[BatchProgress], None] | None = None,
) -> BatchJob:
    """Maps a function over a table, in processes of its own; what it gives is committed all at once.

    Args:
        ref: The envelope, or what `get` takes. A tag query is resolved once, before the job starts. Of
            several envelopes, in a list, the results stand side by side, called after the envelopes; in
            a dict, after its keys: `NAME_prediction`.
        input: The table to read, as a path or, with a `warehouse`, as `database.table`.
        output: The table to write.
        function: The first one by default.
        columns: Columns of the input that the output has too.
        group_by: Columns of the input. The function is called once for all rows that have the same
            values in these, and the output has them, too.
        mode: What to do when the output exists: `"error"`, the default, `"append"`, `"overwrite"`, or
            what else `envelope batch --help` lists.
        merge_on: Columns. Each row takes the place of the one that has the same values in these, or is
            added. In place of a `mode`.
        partition_by: Columns that are in the names of the output's folders.
        format: How the output is kept.
        where: An SQL condition; only rows for which it is true are read.
        as_of: The version or the time at which a Delta table is read. A time has a zone.
        job: A name. With the same name, logical date and envelope, a job is done once however often it
            is run.
        logical_date: What the named job is for: a date, or a time with a zone.
        cluster: The scheduler of a cluster that does the work.
        local: So many worker processes on this machine, by default one for each core.
        warehouse: The folder of the tables that are named `database.table`.
        timeout: So many seconds one call of the function may take.
        max_group_bytes: The largest group of `group_by`.
        env: Variables that the job has besides those of this process, such as `ENVELOPE_URL`.
        wait: Whether to wait for the end. Ctrl-C then ends the job.
        progress: Whether to show how far it is on standard error, which is usual on terminals; or what
            is called with each `BatchProgress`, in a thread.

    Raises:
        InvalidInput: An argument is not what is needed.
        NotFound: There is no such envelope, table or function, or the program `envelope` is not here.
        EnvelopeError: With `wait`, whatever `BatchJob.result` raises.
    """
    variables = {**os.environ, **(env or {})}
    chosen = settings(variables)
    models, names = _models(ref)
    envelopes = [model if isinstance(model, Envelope) else found(model, chosen) for model in models]
    if cluster is not None and local is not None:
        raise InvalidInput("a job runs on a cluster or here", hint="leave out `cluster` or `local`")
    if mode is not None and merge_on is not None:
        raise InvalidInput("`merge_on` is a mode of its own", hint="leave out `mode` or `merge_on`")
    options = {
        "--input": os.fspath(input),
        "--output": os.fspath(output),
        "--function": function,
        "--keep": _listed(columns),
        "--group-by": _listed(group_by),
        "--max-group-bytes": max_group_bytes,
        "--mode": mode,
        "--merge-on": _listed(merge_on),
        "--partition-by": _listed(partition_by),
        "--format": format,
        "--where": where,
        "--as-of": None if as_of is None else _moment("as_of", as_of),
        "--job": job,
        "--logical-date": None if logical_date is None else _moment("logical_date", logical_date),
        "--cluster": cluster,
        "--workers": local,
        "--timeout": timeout,
        "--warehouse": None if warehouse is None else os.fspath(warehouse),
    }
    given = [f"{option}={value}" for option, value in options.items() if value is not None]
    # `--verbose` makes the program tell how far it is where standard error is no terminal.
    command = [_program(chosen), "batch", "--json", "--verbose", *given, *_references(envelopes, names)]
    digests = tuple(envelope.digest for envelope in envelopes)
    started = BatchJob(command, variables, digests, _teller(progress, wait, chosen))
    if wait:
        _wait(started)
    return started


def _wait(job: BatchJob) -> None:
    try:
        job.result()
    except BaseException:
        job.cancel()
        raise


def _program(chosen: Settings) -> str:
    if chosen.program is None:
        raise NotFound(
            "the program `envelope`, which runs jobs, is not here",
            hint="`make build` makes it; put it on the PATH, or let ENVELOPE_PROGRAM name it",
        )
    return str(chosen.program)


def _models(ref: _Ref | Sequence[_Ref] | Mapping[str, _Ref]) -> tuple[list[_Ref], list[str] | None]:
    """The envelopes that are meant, and the names that their results are to have, if they are named."""
    if isinstance(ref, Mapping):
        models, names = [*ref.values()], [*ref]
    elif isinstance(ref, Sequence) and not isinstance(ref, str):
        models, names = [*ref], []
    else:
        return [ref], None
    if not models:
        raise InvalidInput("there is no envelope in the list", hint="name one, or several")
    return models, names


def _references(envelopes: Sequence[Envelope], names: Sequence[str] | None) -> list[str]:
    """How the program is told which envelopes are meant: one, or several with names or without."""
    references = [_reference(envelope) for envelope in envelopes]
    if names is None:
        return ["--", *references]
    models = [f"--model={reference}" for reference in references]
    return [*models, *(f"--as={name}" for name in names)]


def _listed(columns: _Columns) -> str | None:
    return columns if columns is None or isinstance(columns, str) else ",".join(columns) or None


def _reference(envelope: Envelope) -> str:
    """A digest where a store has it, so that it is that one whatever is saved meanwhile."""
    return envelope.digest if envelope.version else str(envelope.path.resolve())


def _moment(what: str, value: int | str | date) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidInput(
                f"`{what}` is {value}, a time without a zone",
                hint="give it one: `datetime(…, tzinfo=timezone.utc)`",
            )
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else str(value)


# === what the program says


def _progress(line: str) -> BatchProgress | None:
    """What a line says about how far the job is; nothing if it says something else."""
    if not line.startswith('{"'):
        return None
    try:
        told = json.loads(line)
    except ValueError:
        return None
    known = {field.name for field in fields(BatchProgress)}
    return BatchProgress(**told) if told.keys() <= known else None


def _result(ended: Ended, digests: tuple[str, ...]) -> BatchResult:
    told = json.loads(ended.output)
    known = {field.name for field in fields(BatchResult)}
    envelopes = {"digest": digests[0], "digests": digests}
    return BatchResult(**{name: told[name] for name in told.keys() & known} | envelopes)


def _failure(ended: Ended, cancelled: bool) -> EnvelopeError:
    if cancelled:
        return JobCancelled("the job was cancelled; the output is as it was")
    if ended.status < 0:
        return EnvelopeError(
            f"the job was killed by signal {-ended.status}",
            hint="signal 9 often means that memory was short: try a smaller `local`",
            details=ended.errors,
        )
    return from_program(ended.status, _error(ended.errors), ended.errors)


def _error(errors: str) -> dict[str, Any]:
    """The document about the error, which comes last."""
    start = f"\n{errors}".rfind("\n{\n")
    try:
        return dict(json.loads(errors[start:])["error"]) if start >= 0 else {}
    except (ValueError, KeyError):
        return {}


# === people who wait


def _teller(
    progress: bool | Callable[[BatchProgress], None] | None, wait: bool, chosen: Settings
) -> Callable[[BatchProgress], None]:
    if callable(progress):
        return progress
    shown = (chosen.progress and wait) if progress is None else progress
    return _show if shown else lambda _: None


def _show(progress: BatchProgress) -> None:
    """On one line, which a terminal and a notebook write over."""
    end = "\n" if progress.rows and progress.rows == progress.total else ""
    sys.stderr.write(f"\r{progress!s:<72}{end}")
    sys.stderr.flush()

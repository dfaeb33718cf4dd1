"""`EnvelopeBatchOperator`: a function over a table, once for each run of a DAG."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import model_envelope as me
from airflow.sdk import NEVER_EXPIRE, BaseOperator, conf  # type: ignore[attr-defined]
from airflow.sdk.exceptions import AirflowFailException

from .outcome import failure, outcome, unwrap
from .triggers import EnvelopeBatchTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

RESOLVED = "model_envelope.digest"
"""Under this name a task remembers which envelope its query meant; of several, with spaces between them."""

Ref = str | list[str] | dict[str, str]
"""Digests: of one envelope, of several, or of several with names."""

LONGEST_JOB = 200
"""Bytes of the longest name that a job may have."""


class EnvelopeBatchOperator(BaseOperator):
    """Maps a function of the envelope that a query selects over a table, and commits the results all at once.

    However often a task is tried, retried or cleared in one run of its DAG, its results are in the table
    once, and all tries use one envelope: the query is resolved by the first try, which notes the digest in
    the task's state. A try goes on from what a dead one had finished.

    Gives, as XCom, what `model_envelope.BatchResult` has: `rows`, `files`, `version` of the table,
    `digest` of the envelope, `seconds`, `already_done` and others.

    Args:
        query: A tag query, a name, `name:version` or a digest, in the store that `ENVELOPE_URL` names. For
            several envelopes in one pass over the table: a list of them, or a dict whose keys their
            results are called after.
        input_table: The table to read, as a path or, with a `warehouse`, as `database.table`.
        output_table: The table to write. (`output` is what Airflow calls the XCom of a task.)
        function: The first one of the envelope by default.
        columns: Columns of the input that the output has too.
        group_by: Columns; the function is called once for all rows with the same values in these.
        mode: What to do when the output exists: `error`, `append`, `overwrite`, …
        merge_on: Columns; each row takes the place of the one with the same values in these. In place
            of a mode.
        partition_by: Columns that are in the names of the output's folders.
        format: How the output is kept: `delta` or `parquet`.
        where: An SQL condition on the rows that are read.
        as_of: The version or the time at which a Delta table is read.
        cluster: The scheduler of a cluster that does the work.
        local: So many worker processes, where there is no cluster.
        warehouse: The folder of the tables that are named `database.table`.
        timeout: So many seconds one call of the function may take.
        max_group_bytes: The largest group of `group_by`.
        env: Variables of the job, such as `ENVELOPE_URL`, besides those of Airflow's process.
        job: The name that makes tries the same job; by default the DAG's, the task's and its map index.
        logical_date: What the job is for: a date or a time (RFC 3339); by default the run's logical
            date. A run that has none has its id in the job's name instead.
        deferrable: Whether the job runs in the triggerer and holds no worker slot.
    """

    template_fields: Sequence[str] = (
        "query",
        "input_table",
        "output_table",
        "function",
        "columns",
        "group_by",
        "mode",
        "merge_on",
        "partition_by",
        "where",
        "as_of",
        "cluster",
        "warehouse",
        "env",
        "job",
        "logical_date",
    )
    template_fields_renderers = {"where": "sql", "env": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        query: str | Sequence[str] | Mapping[str, str],
        input_table: str,
        output_table: str,
        function: str | None = None,
        columns: str | Sequence[str] | None = None,
        group_by: str | Sequence[str] | None = None,
        mode: str | None = None,
        merge_on: str | Sequence[str] | None = None,
        partition_by: str | Sequence[str] | None = None,
        format: Literal["delta", "parquet"] = "delta",
        where: str | None = None,
        as_of: str | int | None = None,
        cluster: str | None = None,
        local: int | None = None,
        warehouse: str | None = None,
        timeout: int | None = None,
        max_group_bytes: int | None = None,
        env: Mapping[str, str] | None = None,
        job: str | None = None,
        logical_date: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.query = query
        self.input_table = input_table
        self.output_table = output_table
        self.function = function
        self.columns = columns
        self.group_by = group_by
        self.mode = mode
        self.merge_on = merge_on
        self.partition_by = partition_by
        self.format = format
        self.where = where
        self.as_of = as_of
        self.cluster = cluster
        self.local = local
        self.warehouse = warehouse
        self.timeout = timeout
        self.max_group_bytes = max_group_bytes
        self.env = env
        self.job = job
        self.logical_date = logical_date
        self.deferrable = deferrable
        self._running: me.BatchJob | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Runs the job, or leaves that to the triggerer."""
        ref, options = self.resolved(context), self.options(context)
        self.log.info("%s, %s: job %s", self.query, ref, options["job"])
        if self.deferrable:
            self.defer(
                trigger=EnvelopeBatchTrigger(ref, options),
                method_name="execute_complete",
                timeout=self.execution_timeout,
            )
        return self._finished(outcome(self._run(ref, options)))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Goes on when the triggerer says that the job is over."""
        return self._finished(event)

    def on_kill(self) -> None:
        """Ends the job when somebody ends the task."""
        if self._running is not None:
            self._running.cancel()

    def resolved(self, context: Context) -> Ref:
        """The digest of the envelope, or of each: that of the first try in this run of the DAG."""
        queries = [self.query] if isinstance(self.query, str) else [*_values(self.query)]
        remembered = context["task_state_store"]
        known = remembered.get(RESOLVED)
        digests = known.split() if isinstance(known, str) else []
        if len(digests) != len(queries):
            digests = [self._digest(query) for query in queries]
            remembered.set(RESOLVED, " ".join(digests), retention=NEVER_EXPIRE)
        if isinstance(self.query, str):
            return digests[0]
        return dict(zip(self.query, digests, strict=True)) if isinstance(self.query, Mapping) else digests

    def _digest(self, query: str) -> str:
        """That of the envelope which a query means now."""
        try:
            with _variables(self.env):
                envelope = me.get(query)
        except me.EnvelopeError as error:
            raise failure(outcome(error)) from None
        if envelope.version is None:
            raise AirflowFailException(
                f"`{query}` is a file, which may change between two tries\n"
                "  hint: `envelope import FILE` puts it into a store; name it as it is called there"
            )
        return envelope.digest

    def options(self, context: Context) -> dict[str, Any]:
        """The arguments of `model_envelope.batch`."""
        job, logical_date = self._identity(context)
        return {
            "input": self.input_table,
            "output": self.output_table,
            "function": self.function,
            "columns": self.columns,
            "group_by": self.group_by,
            "mode": self.mode,
            "merge_on": self.merge_on,
            "partition_by": self.partition_by,
            "format": self.format,
            "where": self.where,
            "as_of": self.as_of,
            "cluster": self.cluster,
            "local": self.local,
            "warehouse": self.warehouse,
            "timeout": self.timeout,
            "max_group_bytes": self.max_group_bytes,
            "env": self.env,
            "job": job,
            "logical_date": logical_date,
        }

    def _identity(self, context: Context) -> tuple[str, str | None]:
        """Name and date of the job."""
        run, task = context["dag_run"], context["ti"]
        date = self.logical_date or (run.logical_date.isoformat() if run.logical_date else None)
        mapped = "" if task.map_index is None or task.map_index < 0 else f"[{task.map_index}]"
        name = self.job or f"{task.dag_id}.{task.task_id}{mapped}"
        return _shortened(name if date else f"{name}@{run.run_id}"), date

    def _run(self, ref: Ref, options: dict[str, Any]) -> me.BatchResult | me.EnvelopeError:
        try:
            with me.batch(ref, **options, wait=False, progress=self._tell) as self._running:
                return self._running.result()
        except me.EnvelopeError as error:
            return error

    def _tell(self, progress: me.BatchProgress) -> None:
        self.log.info("%s", progress)

    def _finished(self, told: dict[str, Any]) -> dict[str, Any]:
        result = unwrap(told)
        already = "already done: " if result["already_done"] else ""
        self.log.info(
            "%s%s rows in %s, version %s", already, result["rows"], self.output_table, result["version"]
        )
        return result


def _values(queries: Sequence[str] | Mapping[str, str]) -> Iterable[str]:
    return queries.values() if isinstance(queries, Mapping) else queries


def _shortened(name: str) -> str:
    """A name that is not too long, and another one for another name."""
    if len(name.encode()) <= LONGEST_JOB:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{name.encode()[: LONGEST_JOB - 33].decode(errors='ignore')}-{digest}"


@contextlib.contextmanager
def _variables(more: Mapping[str, str] | None) -> Iterator[None]:
    """Variables of this process, for a while. A task has its process to itself."""
    before = dict(os.environ)
    os.environ.update(more or {})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

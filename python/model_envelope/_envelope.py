"""Envelopes that are kept: finding, showing, calling them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from . import _loading, _native, _pictures, _workers
from ._errors import InvalidInput, NotFound
from ._settings import Settings, settings
from ._statistics import Statistics
from ._tags import check_changes
from ._trust import check_trust


@dataclass(frozen=True, eq=False)
class Envelope:
    """A version of a model. It never changes; its tags may."""

    name: str
    version: int | None
    digest: str
    description: str
    tags: dict[str, str]
    created_at: str | None
    path: Path
    saved: dict[str, Callable[..., Any]] | None = field(default=None, repr=False)
    """The functions themselves, where this process has saved them."""

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The description inside of the envelope."""
        return dict(json.loads(_native.open_envelope(self.path)[0]))

    @property
    def id(self) -> str:
        """`name:version`, or the digest when it is not in a store."""
        return f"{self.name}:{self.version}" if self.version else self.digest

    @property
    def functions(self) -> list[str]:
        """Names of the query functions; the first is the default one."""
        return [function["name"] for function in self.manifest["functions"]]

    @property
    def signature(self) -> dict[str, Any]:
        """Input and output of each function."""
        return {function["name"]: function["signature"] for function in self.manifest["functions"]}

    @property
    def certificate(self) -> dict[str, Any]:
        """What was tested about each function."""
        return {function["name"]: function["certificate"] for function in self.manifest["functions"]}

    @property
    def stats(self) -> Statistics:
        """Statistics of input and output of the default function, by column."""
        return self._statistics(None)

    @property
    def transcript(self) -> dict[str, Any]:
        """What was seen while each function was proved: durations, versions, files, warnings."""
        members = {one["name"]: one.get("transcript") for one in self.manifest["functions"]}
        return {
            name: json.loads(_native.read_member(self.path, member))
            for name, member in members.items()
            if member
        }

    @property
    def environment(self) -> dict[str, Any]:
        """Interpreter, platform, and the text of the lock."""
        described = dict(self.manifest["environment"])
        described["lock"] = _native.read_member(self.path, described["lock"]).decode()
        return described

    def predict(self, data: Any, *, function: str | None = None, timeout: float = 600.0) -> Any:
        """Runs a function on `data`, isolated: in a worker process with the envelope's own packages.

        `data` is what the function takes, or the same columns in another kind of table. Columns that
        the function does not take are left out. `timeout` is in seconds. The first call starts the
        worker; later ones use it again. A function tested row-wise gives a pandas object the index of
        `data`.

        Raises:
            InvalidInput: `data` is not what the function takes.
            PredictionFailed: The function raised, crashed, or took too long.
        """
        described = self._function(function)
        conversions = _native.conversions()
        takes, gives = described["signature"]["input"], described["signature"]["output"]
        try:
            rows = conversions.encode_input(data, takes)
        except conversions.Unsupported as error:
            raise InvalidInput(f"`{described['name']}` cannot take this: {error}") from None
        check_trust(self.path)
        runner = _workers.runner(self.path, self.digest)
        predicted = conversions.decode(runner.call(described["name"], rows, timeout), gives)
        if described["certificate"]["row_wise"]:
            _keep_index(data, predicted)
        return predicted

    def load(self, function: str | None = None) -> Callable[..., Any]:
        """The callable, in this process. Runs the author's code here.

        Raises:
            EnvironmentMismatch: This process has another interpreter or other packages than the
                envelope was proved with.
        """
        return self._unpickled()[self._function(function)["name"]]

    def add_query_function(
        self,
        query_function: Callable[..., Any],
        *,
        name: str | None = None,
        api_input: Any = None,
        api_output: Any = None,
        modules: Sequence[str | Path | ModuleType] = (),
        requirements: Sequence[str] | Path | None = None,
        prove: Literal["full", "quick"] = "full",
    ) -> Envelope:
        """A new version that has one query function more, proved as `save_model` proves.

        Functions of one envelope share what they all reach: a model that two of them use is carried and
        loaded once. This envelope stays as it is. `name` is the function's own by default; the other
        arguments are those of `save_model`. In another process than the one that saved the envelope,
        its functions are loaded here first, as by `load`.
        """
        from ._save import add_query_function

        return add_query_function(
            self,
            query_function,
            name=name,
            api_input=api_input,
            api_output=api_output,
            modules=modules,
            requirements=requirements,
            prove=prove,
        )

    def callables(self) -> dict[str, Callable[..., Any]]:
        """All functions by name, sharing their state: those that were saved here, or loaded now."""
        return self._unpickled() if self.saved is None else self.saved

    def _unpickled(self) -> dict[str, Callable[..., Any]]:
        check_trust(self.path)
        manifest, cache = self.manifest, settings().cache
        _loading.check_environment(self.id, manifest["environment"]["python"], self.environment["lock"])
        if manifest["source"]["modules"]:
            root = cache / "modules" / self.digest.removeprefix("sha256:")
            _loading.add_modules(self.path, manifest["source"]["modules"], root)
        return _loading.unpickle(self.path, manifest["state"], cache)

    def tag(self, **tags: str | None) -> Envelope:
        """Sets tags; `None` removes one. Gives the envelope as it is then."""
        check_changes(tags)
        store = _native.Store(settings().store)
        return open_stored(json.loads(store.set_tags(self.digest, dict(tags))), settings())

    def _statistics(self, name: str | None) -> Statistics:
        function = self._function(name)
        stored = _native.read_statistics(self.path, function["name"])
        if stored is None:
            raise NotFound(f"`{self.id}` has no statistics of `{function['name']}`")
        return Statistics(json.loads(stored))

    def _function(self, name: str | None) -> dict[str, Any]:
        functions: list[dict[str, Any]] = self.manifest["functions"]
        for described in functions:
            if name is None or described["name"] == name:
                return described
        raise NotFound(f"`{self.id}` has no function `{name}`", hint=f"it has {', '.join(self.functions)}")

    def __repr__(self) -> str:
        return _pictures.text(self)

    def _repr_html_(self) -> str:
        return _pictures.card(self)


def _keep_index(data: Any, predicted: Any) -> None:
    """Row for row, a prediction belongs to a row of the input."""
    if hasattr(data, "iloc") and hasattr(predicted, "iloc") and len(data) == len(predicted):
        predicted.index = data.index


class EnvelopeList(list[Envelope]):
    """Envelopes, newest first."""

    def to_pandas(self) -> Any:
        """One row for each envelope; tags as columns."""
        import pandas as pd

        facts = ("name", "version", "created_at", "digest")
        return pd.DataFrame([{fact: getattr(one, fact) for fact in facts} | one.tags for one in self])

    def _repr_html_(self) -> str:
        return _pictures.table(self)


def get(ref: str | os.PathLike[str], /) -> Envelope:
    """The newest envelope that `ref` means: a name, `name:version`, a digest, a tag query, or the
    path of an `.envelope` file. Raises `NotFound` with near misses."""
    return found(ref, settings())


def found(ref: str | os.PathLike[str], chosen: Settings) -> Envelope:
    """`get`, where other settings than those of this process may hold."""
    if isinstance(ref, os.PathLike) or (isinstance(ref, str) and ref.endswith(".envelope")):
        return open_file(Path(ref))
    if not isinstance(ref, str) or not ref:
        raise InvalidInput(
            f"{ref!r} refers to nothing", hint="use a name, `name:version`, a digest, a tag query or a path"
        )
    return open_stored(json.loads(_native.Store(chosen.store).resolve(ref)), chosen)


def find(query: str = "", /, *, limit: int = 100) -> EnvelopeList:
    """Envelopes whose tags match, newest first.

    `query` is a label selector: `business_line=womens,region in (US,UK),!deprecated,name=ltv`.
    """
    chosen = settings()
    store = _native.Store(chosen.store)
    return EnvelopeList(open_stored(json.loads(version), chosen) for version in store.find(query, limit))


def open_file(path: Path) -> Envelope:
    """An envelope in a file, wherever it is."""
    if not path.exists():
        raise NotFound(f"there is no file `{path}`")
    manifest, digest = _native.open_envelope(path)
    described = json.loads(manifest)
    return Envelope(described["name"], None, digest, described["description"], described["tags"], None, path)


def open_stored(version: dict[str, Any], chosen: Settings) -> Envelope:
    """An envelope of the store."""
    path = _native.Store(chosen.store).path(version["digest"])
    return Envelope(
        version["name"],
        version["version"],
        version["digest"],
        version["description"],
        version["tags"],
        version["created_at"],
        path,
    )

"""Envelopes that are kept: finding, showing, calling them."""

from __future__ import annotations

import atexit
import html
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from . import _native
from ._errors import EnvironmentMismatch, InvalidInput, NotFound
from ._settings import Settings, settings


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
    def stats(self) -> dict[str, Any]:
        """Statistics of input and output of the default function, by column."""
        return dict(json.loads(_native.read_member(self.path, self._function(None)["statistics"])))

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
        worker; later ones use it again.

        Raises:
            InvalidInput: `data` is not what the function takes.
            PredictionFailed: The function raised, crashed, or took too long.
        """
        described = self._function(function)
        conversions = _native.conversions()
        takes = described["signature"]["input"]
        try:
            rows = conversions.encode_input(_reset(data), takes, takes["fields"][0]["name"] if takes["fields"] else "")
        except conversions.Unsupported as error:
            raise InvalidInput(f"`{described['name']}` cannot take this: {error}") from None
        output = _runner(self).call(described["name"], rows, timeout)
        return conversions.decode(output, described["signature"]["output"])

    def load(self, function: str | None = None) -> Callable[..., Any]:
        """The callable, in this process. Runs the author's code here.

        Raises:
            EnvironmentMismatch: This process has another interpreter or other packages than the
                envelope was proved with.
        """
        import pickle

        described = self._function(function)
        self._check_environment()
        self._import_modules()
        buffers = [_native.read_member(self.path, name) for name in described["buffers"]]
        loaded = pickle.loads(
            _native.read_member(self.path, described["pickle"]), buffers=[bytearray(b) for b in buffers]
        )
        if not callable(loaded):
            raise InvalidInput(f"`{described['name']}` is not callable")
        return loaded  # type: ignore[no-any-return]

    def tag(self, **tags: str | None) -> Envelope:
        """Sets tags; `None` removes one. Gives the envelope as it is then."""
        store = _native.Store(settings().store)
        return open_stored(json.loads(store.set_tags(self.digest, dict(tags))), settings())

    def _function(self, name: str | None) -> dict[str, Any]:
        functions: list[dict[str, Any]] = self.manifest["functions"]
        for described in functions:
            if name is None or described["name"] == name:
                return described
        raise NotFound(f"`{self.id}` has no function `{name}`", hint=f"it has {', '.join(self.functions)}")

    def _check_environment(self) -> None:
        wanted = self.manifest["environment"]["python"]
        # Code of one minor crashes another: refuse before a byte is unpickled.
        if wanted["cache_tag"] != sys.implementation.cache_tag:
            raise EnvironmentMismatch(
                f"`{self.id}` was saved with {wanted['cache_tag']}, this is {sys.implementation.cache_tag}",
                hint="use `.predict(...)`, which runs in the envelope's own interpreter",
            )
        different = list(_differences(self.environment["lock"]))
        if different:
            raise EnvironmentMismatch(
                f"`{self.id}` was proved with other packages than this process has: {', '.join(different[:5])}",
                hint="use `.predict(...)`, which has its own packages, or install these versions",
            )

    def _import_modules(self) -> None:
        """Makes the custom modules importable, as long as they are not others of the same name."""
        files = self.manifest["source"]["modules"]
        if not files:
            return
        root = settings().cache / "modules" / self.digest.removeprefix("sha256:")
        for name in files:
            target = root / name.removeprefix("modules/")
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f"{target.name}.{os.getpid()}")
            temporary.write_bytes(_native.read_member(self.path, name))
            temporary.replace(target)
        for name in sorted({Path(file).parts[1].removesuffix(".py") for file in files}):
            _check_not_shadowed(name, root)
        if str(root) not in sys.path:
            sys.path.append(str(root))

    def __repr__(self) -> str:
        functions = ", ".join(_line(function) for function in self.manifest["functions"])
        tags = ",".join(f"{key}={value}" for key, value in self.tags.items())
        return f"<Envelope {self.id} {self.digest[:19]}… {functions}{f' [{tags}]' if tags else ''}>"

    def _repr_html_(self) -> str:
        return _card(self)


class EnvelopeList(list[Envelope]):
    """Envelopes, newest first."""

    def to_pandas(self) -> Any:
        """One row for each envelope; tags as columns."""
        import pandas as pd

        return pd.DataFrame([{**_summary(envelope), **envelope.tags} for envelope in self])

    def _repr_html_(self) -> str:
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("envelope", "tags", "created", "digest"))
        body = "".join(
            f"<tr><td>{html.escape(e.id)}</td><td>{html.escape(', '.join(f'{k}={v}' for k, v in e.tags.items()))}</td>"
            f"<td>{html.escape(e.created_at or '')}</td><td><code>{e.digest[7:19]}</code></td></tr>"
            for e in self
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def get(ref: str, /) -> Envelope:
    """The newest envelope that `ref` means: a name, `name:version`, a digest, a tag query, or the
    path of an `.envelope` file. Raises `NotFound` with near misses."""
    if not isinstance(ref, str) or not ref:
        raise InvalidInput(f"{ref!r} refers to nothing", hint="use a name, `name:version`, a digest, a tag query or a path")
    if ref.endswith(".envelope"):
        return open_file(Path(ref))
    chosen = settings()
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


# === workers of this process

_RUNNERS: dict[str, _native.Runner] = {}


def _runner(envelope: Envelope) -> _native.Runner:
    """One worker for each envelope that this process predicts with; ended when it exits."""
    if envelope.digest not in _RUNNERS:
        if not _RUNNERS:
            atexit.register(_close_runners)
        _RUNNERS[envelope.digest] = _native.Runner.start(envelope.path, settings().places, 1, None)
    return _RUNNERS[envelope.digest]


def _close_runners() -> None:
    while _RUNNERS:
        _RUNNERS.popitem()[1].close()


def _reset(data: Any) -> Any:
    return data.reset_index(drop=True) if hasattr(data, "reset_index") and hasattr(data, "iloc") else data


# === the environment of this process


def _differences(lock: str) -> Iterable[str]:
    for name, version in _pins(lock):
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield f"{name} {version} is not installed"
            continue
        if here != version:
            yield f"{name} {version}, here {here}"


def _pins(lock: str) -> Iterable[tuple[str, str]]:
    """Names and versions of the packages of a lock. (`tomllib` is not in Python 3.10.)"""
    name = ""
    for line in lock.splitlines():
        key, _, value = line.partition(" = ")
        if line.startswith("[[packages]]"):
            name = ""
        elif key == "name":
            name = value.strip('"')
        elif key == "version" and name:
            yield name, value.strip('"')


def _check_not_shadowed(name: str, root: Path) -> None:
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if origin is None or Path(origin).is_relative_to(root):
        return
    carried = root / Path(origin).name if Path(origin).stem != "__init__" else root / name / "__init__.py"
    if not carried.exists() or carried.read_bytes() != Path(origin).read_bytes():
        raise EnvironmentMismatch(
            f"the envelope carries a module `{name}` that is not the one imported here (`{origin}`)",
            hint="use `.predict(...)`, which runs in a process of its own",
        )


# === pictures


def _line(function: dict[str, Any]) -> str:
    takes, gives = function["signature"]["input"], function["signature"]["output"]
    columns = ", ".join(field["name"] for field in takes["fields"][:4])
    more = ", …" if len(takes["fields"]) > 4 else ""
    return f"{function['name']}({takes['shape']}: {columns}{more}) → {gives['shape']}"


def _summary(envelope: Envelope) -> dict[str, Any]:
    return {"name": envelope.name, "version": envelope.version, "created_at": envelope.created_at, "digest": envelope.digest}


def _card(envelope: Envelope) -> str:
    """A card that works on light and dark pages, without scripts or outside files."""
    chip = "display:inline-block;border:1px solid currentColor;border-radius:1em;padding:0 .6em;margin:0 .3em .3em 0;opacity:.75"
    tags = "".join(f"<span style='{chip}'>{html.escape(f'{k}={v}')}</span>" for k, v in envelope.tags.items())
    functions = "".join(_function_rows(function) for function in envelope.manifest["functions"])
    return (
        "<div style='border:1px solid currentColor;border-radius:.5em;padding:.8em 1em;max-width:46em'>"
        f"<b>{html.escape(envelope.id)}</b> <code style='opacity:.6'>{html.escape(envelope.digest[:19])}…</code>"
        f"<div>{html.escape(envelope.description)}</div><div style='margin:.4em 0'>{tags}</div>{functions}</div>"
    )


def _function_rows(function: dict[str, Any]) -> str:
    certificate = function["certificate"]
    tested = f"tested row-wise, {certificate['trials']} trials" if certificate["row_wise"] else "not row-wise"
    rows = "".join(
        f"<tr><td>{way}</td><td><code>{html.escape(field['name'])}</code></td><td>{html.escape(field['type'])}"
        f"{'?' if field['nullable'] else ''}</td></tr>"
        for way, side in (("in", "input"), ("out", "output"))
        for field in function["signature"][side]["fields"][:20]
    )
    return f"<details><summary><code>{html.escape(_line(function))}</code> · {tested}</summary><table>{rows}</table></details>"

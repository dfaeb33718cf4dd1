"""What is installed here, and where each package came from."""

from __future__ import annotations

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from ._settings import Settings
from ._wheels import Wheel, built, packed

if TYPE_CHECKING:
    from importlib import metadata

OURSELVES = "model-envelope"
"""Functions that use this package itself are refused, wherever it came from."""


class Installed:
    """The distributions that are installed here."""

    def __init__(self, settings: Settings) -> None:
        from importlib import metadata  # slow to import

        self._settings = settings
        self.versions: dict[str, str] = {}
        """Versions of those that a package index has."""
        self._direct: dict[str, tuple[metadata.Distribution, dict[str, Any]]] = {}
        self._requires: dict[str, list[str]] = {}
        self._by_module: dict[str, set[str]] = defaultdict(set)
        for distribution in metadata.distributions():
            name = distribution.metadata["Name"]
            # One that is further down the path is not the one that is imported.
            if name and name not in self._requires:
                self._add(name, distribution)

    def _add(self, name: str, distribution: metadata.Distribution) -> None:
        self._requires[name] = distribution.requires or []
        source = _direct_url(distribution)
        if source is None:
            self.versions[name] = distribution.version
        elif name != OURSELVES:
            self._direct[name] = distribution, source
        if source is None or not _is_editable(source):
            for module in _top_levels(distribution):
                self._by_module[module].add(name)

    def distributions(self, modules: Iterable[str]) -> set[str]:
        """Names of the distributions that have any of these top-level modules."""
        return set().union(*(self._by_module.get(module, ()) for module in modules))

    def pins(self, names: Iterable[str]) -> list[str]:
        """Requirements of exactly the installed versions."""
        return sorted(f"{name}=={self.versions[name]}" for name in names)

    def with_dependencies(self, names: set[str]) -> set[str]:
        """These distributions, and those that are installed and that they may need."""
        by_normal_name = {_normal(name): name for name in self._requires}
        found: set[str] = set()
        pending = set(names)
        while pending:
            name = pending.pop()
            found.add(name)
            lines = (line for line in self._requires.get(name, ()) if "extra ==" not in line)
            words = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines)
            required = {by_normal_name.get(_normal(word[0])) for word in words if word}
            pending |= {needed for needed in required if needed and needed not in found}
        return found & (self.versions.keys() | self._direct.keys())

    # === from elsewhere than an index

    def direct(self, name: str) -> str | Wheel:
        """What gives a distribution again that was installed from elsewhere than an index."""
        distribution, source = self._direct[name]
        if _is_editable(source):
            return built(name, _path(source), distribution.version, self._settings)
        if urlparse(source["url"]).scheme == "file":
            return packed(distribution)
        return f"{name} @ {_portable_url(source)}"

    def editable(self, module: str, origin: Path) -> bool:
        """Whether `module`, at `origin`, is of a distribution that is installed as editable."""
        for name, (distribution, source) in self._direct.items():
            if not _is_editable(source) or not origin.resolve().is_relative_to(_path(source)):
                continue
            for found in built(name, _path(source), distribution.version, self._settings).modules():
                self._by_module[found].add(name)
            if name in self._by_module.get(module, ()):
                return True
        return False

    def editable_folders(self) -> list[Path]:
        """Where the modules of the editable distributions are."""
        return [_path(source) for _, source in self._direct.values() if _is_editable(source)]


def _direct_url(distribution: metadata.Distribution) -> dict[str, Any] | None:
    """Where it was installed from, if that was not an index."""
    text = distribution.read_text("direct_url.json")
    # conda writes where its own machines built the package.
    if text is None or (distribution.read_text("INSTALLER") or "").strip() == "conda":
        return None
    found: dict[str, Any] = json.loads(text)
    return found


def _is_editable(source: dict[str, Any]) -> bool:
    return bool(source.get("dir_info", {}).get("editable"))


def _path(source: dict[str, Any]) -> Path:
    folder = Path(unquote(urlparse(source["url"]).path))
    return Path(folder, source.get("subdirectory", "")).resolve()


def _portable_url(source: dict[str, Any]) -> str:
    """As a requirement names it: a repository by its commit, an archive by its digest."""
    url, fragment = without_credentials(source["url"]), []
    if "vcs_info" in source:
        url = f"{source['vcs_info']['vcs']}+{url}@{source['vcs_info']['commit_id']}"
    if source.get("subdirectory"):
        fragment.append(f"subdirectory={source['subdirectory']}")
    digest = source.get("archive_info", {}).get("hashes", {}).get("sha256")
    if digest:
        fragment.append(f"sha256={digest}")
    return f"{url}#{'&'.join(fragment)}" if fragment else url


def without_credentials(text: str) -> str:
    """Names and passwords are not part of where a package is."""
    return re.sub(r"(https?://)[^/\s\"'@]+@", r"\1", text)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _top_levels(distribution: metadata.Distribution) -> Iterator[str]:
    """The modules that a distribution installs beside those of others."""
    record = distribution.read_text("RECORD")
    if record is None:
        yield from (distribution.read_text("top_level.txt") or "").split()
        return
    paths = {line.rpartition(",")[0].rpartition(",")[0].strip('"') for line in record.splitlines()}
    tops = {path.partition("/")[0] if "/" in path else inspect.getmodulename(path) for path in paths}
    yield from (top for top in tops if top and top.isidentifier() and top != "__pycache__")

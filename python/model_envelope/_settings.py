"""What the user's environment variables say: the only reader of them in this package."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ._errors import InvalidInput


@dataclass(frozen=True)
class Settings:
    """Where things are."""

    store: Path
    cache: Path
    uv: Path | None
    program: Path | None
    """The program `envelope`, which maps functions over tables."""
    offline: bool
    progress: bool
    log: bool
    trust: Path | None
    """File of the keys of those whose envelopes are run; all are, without it."""
    sandbox: tuple[str, list[str]]
    """How much workers are confined, an empty name for the default; and what they may do besides."""

    @property
    def places(self) -> tuple[Path, Path | None, list[Path], bool]:
        """What the native module needs to realise an environment."""
        return self.cache, self.uv, [_base_interpreter()], self.offline


def settings(variables: Mapping[str, str] = os.environ) -> Settings:
    """Read anew each time: a notebook may set a variable between two cells."""
    store = variables.get("ENVELOPE_URL")
    if store and "://" in store and not store.startswith("file://"):
        raise InvalidInput(
            f"ENVELOPE_URL is {store!r}; this version keeps envelopes in a folder",
            hint="set ENVELOPE_URL to a folder, or unset it",
        )
    return Settings(
        store=Path(store.removeprefix("file://"))
        if store
        else _folder(variables, "XDG_DATA_HOME", ".local/share"),
        cache=Path(variables.get("ENVELOPE_CACHE_DIR") or _folder(variables, "XDG_CACHE_HOME", ".cache")),
        uv=_find_uv(variables),
        program=_find_program(variables),
        offline=variables.get("ENVELOPE_OFFLINE") == "1",
        progress=variables.get("ENVELOPE_PROGRESS") != "0" and "CI" not in variables and sys.stderr.isatty(),
        log=variables.get("ENVELOPE_LOG", "").lower() not in ("", "0", "off", "error", "warn"),
        trust=Path(variables["ENVELOPE_TRUST"]) if variables.get("ENVELOPE_TRUST") else None,
        sandbox=(
            variables.get("ENVELOPE_SANDBOX", ""),
            [grant for grant in variables.get("ENVELOPE_GRANT", "").split(",") if grant],
        ),
    )


def _folder(variables: Mapping[str, str], variable: str, default: str) -> Path:
    base = variables.get(variable)
    return (Path(base) if base else Path.home() / default) / "model-envelope"


def _find_uv(variables: Mapping[str, str]) -> Path | None:
    """The program that the user names; else that of the `uv` package; else the one on the path."""
    named = variables.get("ENVELOPE_UV")
    return _first_program(
        [named] if named else [_packaged_uv(), _beside_interpreter("uv"), _on_path("uv", variables)]
    )


def _find_program(variables: Mapping[str, str]) -> Path | None:
    """The program that the user names; else the one beside this interpreter, of the checkout that this
    package is in, or on the path."""
    named = variables.get("ENVELOPE_PROGRAM")
    checkout = Path(__file__).resolve().parents[2] / "target" / "release" / "envelope"
    return _first_program(
        [named]
        if named
        else [_beside_interpreter("envelope"), str(checkout), _on_path("envelope", variables)]
    )


def _beside_interpreter(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _on_path(name: str, variables: Mapping[str, str]) -> str | None:
    return shutil.which(name, path=variables.get("PATH"))


def _first_program(candidates: list[str | None]) -> Path | None:
    return next((Path(found) for found in candidates if found and _is_program(found)), None)


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _packaged_uv() -> str | None:
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        return None


def _base_interpreter() -> Path:
    """The interpreter below the virtual environment, if this is one."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable)

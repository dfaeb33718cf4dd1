"""What the user's environment variables say: the only reader of them in this package."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ._errors import InvalidInput


@dataclass(frozen=True)
class Settings:
    """Where things are."""

    store: Path
    cache: Path
    uv: Path | None
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


def settings() -> Settings:
    """Read anew each time: a notebook may set a variable between two cells."""
    store = os.environ.get("ENVELOPE_URL")
    if store and "://" in store and not store.startswith("file://"):
        raise InvalidInput(
            f"ENVELOPE_URL is {store!r}; this version keeps envelopes in a folder",
            hint="set ENVELOPE_URL to a folder, or unset it",
        )
    return Settings(
        store=Path(store.removeprefix("file://")) if store else _folder("XDG_DATA_HOME", ".local/share"),
        cache=Path(os.environ.get("ENVELOPE_CACHE_DIR") or _folder("XDG_CACHE_HOME", ".cache")),
        uv=_find_uv(),
        offline=os.environ.get("ENVELOPE_OFFLINE") == "1",
        progress=os.environ.get("ENVELOPE_PROGRESS") != "0"
        and "CI" not in os.environ
        and sys.stderr.isatty(),
        log=os.environ.get("ENVELOPE_LOG", "").lower() not in ("", "0", "off", "error", "warn"),
        trust=Path(os.environ["ENVELOPE_TRUST"]) if os.environ.get("ENVELOPE_TRUST") else None,
        sandbox=(
            os.environ.get("ENVELOPE_SANDBOX", ""),
            [grant for grant in os.environ.get("ENVELOPE_GRANT", "").split(",") if grant],
        ),
    )


def _folder(variable: str, default: str) -> Path:
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / default) / "model-envelope"


def _find_uv() -> Path | None:
    """The program that the user names; else that of the `uv` package; else the one on the path."""
    named = os.environ.get("ENVELOPE_UV")
    candidates = (
        [named] if named else [_packaged_uv(), str(Path(sys.executable).parent / "uv"), shutil.which("uv")]
    )
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

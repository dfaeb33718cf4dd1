"""Which modules run when a function is called: what reading its code cannot tell."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


def modules_run(call: Callable[[], Any]) -> set[str]:
    """Names of the modules whose Python code runs during `call`, in its threads too; it may fail."""
    found: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            found.add(frame.f_globals.get("__name__") or "")

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    except Exception:
        pass  # it has run before: what matters here is what it reached
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    return found - {"", __name__}

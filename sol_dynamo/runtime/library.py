"""This package's own C, in one library: it is compiled without a header of Python or torch, so that
a machine with PyPI's `ziglang` alone can do it."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import toolchain


@lru_cache(maxsize=1)
def _library() -> ctypes.PyDLL:
    folder = Path(__file__).with_name("csrc")
    sources = {f.name: f.read_text() for f in sorted(folder.glob("*.c"))}
    # calls keep the GIL, as objects of Python demand
    return ctypes.PyDLL(str(toolchain.compile_shared(sources)))


def function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the library, for these ctypes.

    Errors: `toolchain`'s, where nothing compiles C.
    """
    f = getattr(_library(), name)
    f.restype, f.argtypes = result, arguments
    return f


def pointer(name: str) -> int:
    """Where a function of Python's own is."""
    found = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
    assert found is not None
    return found


def locked() -> bool:
    """Whether objects stay as they are while C looks at them: by CPython's global lock."""
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and has_lock()

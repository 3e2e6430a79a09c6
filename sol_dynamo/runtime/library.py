"""This package's own C, in one library: it is compiled without a header of Python or torch, so that
a machine with PyPI's `ziglang` alone can do it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import toolchain

OWN = Path(__file__).with_name("csrc")


@lru_cache
def _library(folder: Path) -> ctypes.PyDLL:
    sources = {f.name: f.read_text() for f in sorted(folder.glob("*.c"))}
    # calls keep the GIL, as objects of Python demand
    return ctypes.PyDLL(str(toolchain.compile_shared(sources)))


def function(name: str, result: Any, *arguments: Any, folder: Path = OWN) -> Any:
    """A function of the library that is made of a folder's C, for these ctypes.

    Errors: `toolchain`'s, where nothing compiles C.
    """
    f = getattr(_library(folder), name)
    f.restype, f.argtypes = result, arguments
    return f


def pointer(name: str) -> int:
    """Where a function of Python's own is."""
    return address(getattr(ctypes.pythonapi, name))


def address(function: Any) -> int:
    """Where a function is that ctypes can call."""
    found = ctypes.cast(function, ctypes.c_void_p).value
    assert found is not None
    return found


def tell(
    name: str,
    functions: Sequence[str],
    *objects: Any,
    first: Sequence[int] = (),
    folder: Path = OWN,
) -> None:
    """Have a function of the library take a table: numbers, where Python's own functions are, and
    where objects are that stay."""
    words = [*first, *map(pointer, functions), *map(id, objects)]
    function(name, None, ctypes.c_void_p, folder=folder)((ctypes.c_void_p * len(words))(*words))


class _Method(ctypes.Structure):
    """PyMethodDef"""

    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )  # fmt: skip


ONE, MANY = 8, 0x80  # METH_O, METH_FASTCALL


class Builtins:
    """A C function as functions of Python's own kind, which cost a ninth of a call by ctypes."""

    def __init__(self, name: str, kind: int, folder: Path = OWN):
        """`kind`: the function takes its state's address as an int, then `ONE` argument, or `MANY`:
        an array of them, and how many."""
        f = function(name, None, folder=folder)
        self._method = _Method(name.encode(), address(f), kind, None)
        ctypes.pythonapi["Py_IncRef"](ctypes.py_object(self._method))  # functions may outlive this
        self._new = ctypes.pythonapi["PyCFunction_NewEx"]  # which nobody else has
        self._new.restype = ctypes.py_object
        self._new.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.py_object)

    def __call__(self, state: ctypes.Structure, *held: Any) -> Callable[..., Any]:
        """The function for a state; it holds that, and whatever else C only borrows."""
        return self._new(
            ctypes.addressof(self._method), ctypes.addressof(state), (self, state, *held)
        )


def locked() -> bool:
    """Whether objects stay as they are while C looks at them: by CPython's global lock."""
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and has_lock()

"""Calls of a graph that are like the one before, in one native call: steady.c."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from weakref import ref

import torch

from . import library
from .modules import Guard
from .weights import Entry, WeightSets

FUNCTIONS = (
    "PyObject_Vectorcall", "PyObject_GetAttr", "PyTuple_GetItem", "PyList_New", "PyList_SetItem",
    "PySet_Size", "PyLong_AsVoidPtr", "PyErr_Occurred", "Py_IncRef", "Py_DecRef",
)  # fmt: skip
NAMES = ("_last", "stale", "prepared", "again")

_O, _N = ctypes.py_object, ctypes.c_int64


class _Steady(ctypes.Structure):
    _fields_ = (
        ("plan", ctypes.c_void_p), ("walk", _N), ("snapshot", ctypes.c_void_p), ("gradients", _O),
        ("sets", _O), ("entry", _O), ("executable", _O), *((name, _O) for name in NAMES),
        ("inputs", _N), ("input", ctypes.c_void_p),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _builtins() -> library.Builtins:
    """Errors: `toolchain`'s. Who has a `Guard` has the library that this is a part of."""
    library.tell("sol_steady_python", FUNCTIONS, None, False)
    return library.Builtins("sol_steady", library.ONE)


def call(
    guard: Guard, sets: WeightSets, entry: Entry, executable: Any, inputs: Sequence[int]
) -> Callable[[tuple[Any, ...]], list[Any] | None]:
    """What a tuple of arguments gives: what `executable.again` does of those at `inputs`, and the
    prepared weights of an entry. None, and nothing is done, where a guard fails, with gradients, or
    where the entry, which is not held, is not the one of the last call any more, or is stale."""
    table = (_N * max(len(inputs), 1))(*inputs)
    state = _Steady(
        guard.plan.address, guard.walk, guard.snapshot, torch.is_grad_enabled, sets, ref(entry),
        executable, *NAMES, len(inputs), ctypes.addressof(table),
    )  # fmt: skip
    return _builtins()(state, table, guard)

"""Tensors of modules, fetched by where they stand in them, all in one native call (modules.c).

Dynamo's own code for that takes 55 ns a tensor. Here the versions of the dictionaries on the way
are compared, where Python has such and counts every change (to 3.12): 14 ns a tensor. Else each is
looked up natively, 31 ns.
"""

from __future__ import annotations

import ctypes
import logging
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from operator import is_
from types import FunctionType
from typing import Any, NamedTuple

from ..compat import Member, member
from . import library
from .tensors import Snapshot

log = logging.getLogger("sol_dynamo")


class Fetch:
    """The members of a call's arguments, as a list."""

    def __init__(self, members: Sequence[Member]):
        self._members = list(members)
        self._empty: list[Any] = [None] * len(self._members)
        self._given = [(i, m.argument) for i, m in enumerate(self._members) if not m.way]
        self._plan: _Plan | None = None
        self._tried = False

    @property
    def native(self) -> bool:
        return self._plan is not None

    def __call__(self, arguments: Sequence[Any]) -> list[Any]:
        """Errors: as `compat.member`."""
        if self._plan is not None:
            out = self._empty.copy()
            for i, k in self._given:
                out[i] = arguments[k]
            if self._plan.fetch(arguments, out):
                return out
        out = [member(arguments[m.argument], m.way) for m in self._members]
        if not self._tried:
            self._tried, self._plan = True, self._fitting(arguments, out)
        return out

    def guard(self, arguments: tuple[Any, ...], snapshot: Snapshot) -> Guard | None:
        """What tells whether a call's arguments lead to what these do, and the tensors of a
        snapshot, which are among it, are as they were. `snapshot.positions` are of the members.

        None where it takes more, or where what was found last is something else.
        """
        plan, handle = self._plan, snapshot.handle
        if plan is None or handle is None:
            return None
        wanted = dict(zip(snapshot.positions, (r() for r in snapshot.refs), strict=True))
        if not all(self._members[i].way for i in wanted):
            return None
        return plan.guard(arguments, wanted, handle)

    def _fitting(self, arguments: Sequence[Any], wanted: list[Any]) -> _Plan | None:
        """A plan, if it finds what Python finds: a class that has an attribute of a store's name
        hides what its instances hold."""
        native = _native()
        if native is None:
            return None
        plan = _Plan(native, self._members)
        out = [None if m.way else w for m, w in zip(self._members, wanted, strict=True)]
        return plan if plan.fetch(arguments, out) and all(map(is_, out, wanted)) else None


# -- native ----------------------------------------------------------------------------------------


class _Look(ctypes.Structure):
    _fields_ = (
        ("dict", ctypes.c_int64), ("to", ctypes.c_int64), ("out", ctypes.c_int64),
        ("key", ctypes.c_void_p),
    )  # fmt: skip


class _Dictionary(ctypes.Structure):
    _fields_ = (
        ("of", ctypes.c_int64), ("attribute", ctypes.c_int64), ("at", ctypes.c_void_p),
        ("version", ctypes.c_uint64),
    )  # fmt: skip


class _Head(ctypes.Structure):
    _fields_ = (
        ("arguments", ctypes.c_int64), ("looks", ctypes.c_int64), ("dictionaries", ctypes.c_int64),
        ("known", ctypes.c_int64), ("walks", ctypes.c_int64), ("look", ctypes.c_void_p),
        ("dict", ctypes.c_void_p), ("found", ctypes.c_void_p),
    )  # fmt: skip


class _Plan:
    """What is looked up for members, what several of them share once: modules.c's `plan`."""

    def __init__(self, native: _Native, members: Sequence[Member]):
        self._native = native
        arguments = 1 + max((m.argument for m in members if m.way), default=-1)
        places: dict[tuple[Any, ...], int] = {(k,): k for k in range(arguments)}
        index: dict[tuple[Any, ...], int] = {}
        dictionaries: list[_Dictionary] = []
        looks: list[_Look] = []
        for i, m in enumerate(members):
            way = (m.argument, *chain(*m.way))
            for n in range(1, len(way)):
                before, at, last = way[:n], way[: n + 1], n == len(way) - 1
                if at in places and not last:
                    continue
                if before not in index:
                    index[before] = len(dictionaries)
                    dictionaries.append(_Dictionary(places[before], n % 2))  # of an object, if odd
                place = places.setdefault(at, len(places))
                looks.append(_Look(index[before], place, i if last else -1, id(at[-1])))
        self._keys = [m.way for m in members]  # whose addresses C has
        self._look = (_Look * len(looks))(*looks)
        self._dict = (_Dictionary * len(dictionaries))(*dictionaries)
        self._found = (ctypes.c_void_p * len(places))()
        tables = [ctypes.addressof(t) for t in (self._look, self._dict, self._found)]
        self._head = _Head(arguments, len(looks), len(dictionaries), 0, 0, *tables)
        self._reference = ctypes.byref(self._head)

    def fetch(self, arguments: Sequence[Any], out: list[Any]) -> bool:
        """Fill `out`, where members are not the arguments themselves; whether all were found."""
        return self._native.fetch(self._reference, tuple(arguments), out) == 0

    def guard(
        self, arguments: tuple[Any, ...], wanted: Mapping[int, Any], handle: int
    ) -> Guard | None:
        """As `Fetch.guard`; `wanted` are the tensors by member."""
        walk = self._head.known
        found = {look.out: self._found[look.to] for look in self._look if look.out >= 0}
        if not walk or any(found[i] != id(t) for i, t in wanted.items()):
            return None
        # by the walk's number: another thread's may have come between
        if not self._native.guard(self._reference, arguments, walk, handle):
            return None
        return Guard(self, walk, handle)

    @property
    def address(self) -> int:
        """Where C finds it."""
        return ctypes.addressof(self._head)


class Guard(NamedTuple):
    """What modules.c's `sol_guard` compares a call with. It may be asked as long as the snapshot
    lives, which is not held."""

    plan: _Plan
    walk: int
    snapshot: int  # tensors.c's


FUNCTIONS = (
    "PyObject_GenericGetDict", "PyDict_GetItemWithError", "PyTuple_GetItem", "PyList_SetItem",
    "Py_IncRef", "Py_DecRef", "PyErr_Clear",
)  # fmt: skip


class _Native:
    """modules.c, compiled and told what Python has."""

    def __init__(self) -> None:
        library.tell("sol_python", FUNCTIONS, first=[_version_in_dictionary()])
        address, object_, number = ctypes.c_void_p, ctypes.py_object, ctypes.c_int64
        self.fetch = library.function("sol_fetch", number, address, object_, object_)
        self.guard = library.function("sol_guard", number, address, object_, number, address)


@lru_cache(maxsize=1)
def _native() -> _Native | None:
    """None where nothing compiles C, or where objects may change while C looks at them."""
    try:
        return _Native() if library.locked() else None
    except Exception as e:  # whatever it is, Python can do the same
        log.info("weights are fetched in Python, which is slower: %s: %s", type(e).__name__, e)
        return None


class _Probe:
    """Its instances' dictionaries share their keys."""

    def __init__(self) -> None:
        self.x: Any = None
        self.y: Any = None


def _words(d: dict) -> tuple[int, ...]:
    size = dict.__basicsize__ // 8 * 8
    return struct.unpack(f"{size // 8}Q", ctypes.string_at(id(d), size))


def _version_in_dictionary() -> int:
    """Where a dictionary's version is, as bytes from its start; 0 if some change does not show."""
    d: dict[str, Any] = {"a": 1}
    before = _words(d)
    d["a"] = object()
    after = _words(d)
    places = [i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    if len(places) != 1:
        return 0
    seen: set[int] = set()

    def new(d: dict) -> bool:
        version = _words(d)[places[0]]
        fresh = version not in seen
        seen.add(version)
        return fresh

    return 8 * places[0] if all(map(new, _changes())) else 0


def _changes() -> Iterator[dict]:
    """Dictionaries of objects, each again behind each of the ways in which such change."""

    def store(p: _Probe, value: Any) -> None:
        p.x = value

    def put(d: dict, value: Any) -> None:
        d["x"] = value

    for kind in range(3):
        # code of its own for each, which the interpreter comes to know how to do quickly
        stores = FunctionType(store.__code__.replace(), {})
        puts = FunctionType(put.__code__.replace(), {})
        for n in range(64):
            p = _Probe()
            if kind == 1:
                p.__dict__ = {"x": 0, "y": 0}
            for k in range(4):
                stores(p, (n, k))
                if kind != 2 or k > 1:  # else nobody has asked for the dictionary before
                    yield vars(p)
            puts(vars(p), n)
            yield vars(p)
    d = vars(p)
    p.y = 1
    yield d
    setattr(p, "z", 2)  # noqa: B010
    yield d
    object.__setattr__(p, "y", 3)
    yield d
    del p.x
    yield d
    writes: tuple[Callable[[], Any], ...] = (
        lambda: d.update(y=4), lambda: d.__setitem__("v", 5), lambda: d.pop("v"),
        lambda: d.setdefault("w", 6), lambda: d.__delitem__("w"), lambda: d.__ior__({"y": 7}),
        lambda: d.popitem(), lambda: d.clear(), lambda: d.update({"y": 8}),
    )  # fmt: skip
    for write in writes:
        write()
        yield d

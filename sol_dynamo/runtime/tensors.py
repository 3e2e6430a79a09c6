"""Reads many torch tensors in one native call: their data pointers, and whether they have changed.

csrc/tensors.c reads the objects in place, compiled without a header of Python or torch, so that a
machine with PyPI's `ziglang` alone can do it. Where things lie in them is found by experiment:
tensors with known, distinctive values are made and looked for in memory (`_calibrate`), then others
are read natively and compared with what Python says (`_verify`). Where either fails, Python does
the same more slowly. Nothing here knows what the tensors are for.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, Protocol
from weakref import ref

import numpy as np
import torch

from . import library

log = logging.getLogger("sol_dynamo")

SMALL, SMALL_BYTES, SAMPLES = 64, 1024, 16  # as in tensors.c
_WORD = (1 << 64) - 1


def pointers(tensors: list[torch.Tensor], out: ctypes.Array[ctypes.c_void_p]) -> None:
    """out[i] = tensors[i].data_ptr(), natively for plain tensors and parameters.

    The memory is for reading: a copy-on-write tensor is not made a copy of, as data_ptr() would.
    """
    native = _native()
    i = 0 if native is None else native.pointers(tensors, 0, out)
    while 0 <= i < len(tensors):
        out[i] = tensors[i].data_ptr()
        i = i + 1 if native is None else native.pointers(tensors, i + 1, out)


class Snapshot:
    """What was seen of some tensors, to tell later, cheaply, whether they are as they were.

    Compared at each call, for every tensor: the object, TensorImpl and storage, data pointer and
    size of the storage, version counter, shape, strides, offset, dtype. An object that died counts
    as changed for good, and a detached alias of each tensor is kept: no address that is compared
    can come to belong to something else. Elements are compared of tensors in CPU memory:

      up to 64 elements, or without a version counter   all of them, at every call
      larger   one word (8 bytes) at every call, 15 more in turn: all of them within 15 calls; with
               up to 68 larger tensors all 16 at every call. They are evenly spread and chosen to be
               non-zero where possible, the first and the last word among them.

    So a write that changes every element that is not zero (`p.data.mul_(2)`, an optimizer's step)
    shows at the next call even where it leaves the version alone; a write to a few elements of a
    large tensor, which torch does not count (`.data`, numpy, another process), may not show at all.
    """

    def __init__(
        self,
        tensors: Sequence[torch.Tensor],
        positions: Sequence[int] | None = None,
        on_death: Callable[[], None] | None = None,
    ):
        """`positions`: where the tensors will stand in the lists to compare (None: 0, 1, ...).
        `on_death` is called, from wherever that happens, when one of the objects dies."""
        weak = ref(self)

        def died(_: ref[torch.Tensor]) -> None:
            me = weak()
            if me is not None:
                me._evidence.kill()
                if on_death is not None:
                    on_death()

        self.kept = [t.detach() for t in tensors]
        self.positions = range(len(tensors)) if positions is None else list(positions)
        native = _native()
        evidence = None if native is None else _NativeEvidence.take(native, tensors, positions)
        self._evidence: _Evidence = evidence or _PlainEvidence(tensors, self.positions, self.kept)
        self.refs = [ref(t, died) for t in tensors]
        # a list -> -1 if nothing has changed, so far as one call looks, else a tensor that has
        self.changed: Callable[[list[Any]], int] = self._evidence.changed

    def changes(self, tensors: list[Any]) -> list[int]:
        """All tensors that have changed, by all samples."""
        if len(tensors) <= max(self.positions, default=-1):
            return list(range(len(self.refs)))
        found = self._evidence.changes(tensors)
        found += [i for i, r in enumerate(self.refs) if r() is not tensors[self.positions[i]]]
        return sorted(set(found))

    @property
    def native(self) -> bool:
        return isinstance(self._evidence, _NativeEvidence)

    @property
    def handle(self) -> int | None:
        """What tensors.c knows it by; None where it does not."""
        return self._evidence.handle if isinstance(self._evidence, _NativeEvidence) else None

    @property
    def calls(self) -> int:
        """How many times `changed` came to compare elements."""
        return self._evidence.calls


class Counts:
    """How often some tensors and their memory are held, to tell later whether that is still so, and
    whether the tensors are still what they were: where they lie, what autograd knows of them."""

    def __init__(self, native: _Native, handle: int, *held: Any):
        self._native, self.handle, self._held = native, handle, held
        self.take()

    @classmethod
    def of(cls, tensors: list[torch.Tensor], storages: list[torch.UntypedStorage]) -> Counts | None:
        """Both lists stay as they are. None where tensors.c does not read one of them."""
        native = _native()
        handle = native.counts(tensors, storages) if native and native.counts_uses else None
        return Counts(native, handle, tensors, storages) if native and handle else None

    @property
    def function(self) -> int:
        """Where C finds the function of `handle` that is `same`."""
        return library.address(self._native.counted)

    def take(self) -> None:
        """Things are as they should be."""
        self._native.count(self.handle)

    def same(self) -> bool:
        """Whether they are as they were at `take`. False where that is not certain."""
        return bool(self._native.counted(self.handle))

    def __del__(self) -> None:
        self._native.uncount(self.handle)


class _Evidence(Protocol):
    @property
    def calls(self) -> int: ...
    @property
    def changed(self) -> Callable[[list[Any]], int]: ...
    def changes(self, tensors: list[Any]) -> list[int]: ...
    def kill(self) -> None: ...


class _NativeEvidence:
    """A snapshot in tensors.c's memory."""

    def __init__(self, native: _Native, handle: int, count: int, positions: Any):
        self._native, self.handle, self._count = native, handle, count
        self._positions = positions  # read by C
        self._head = (ctypes.c_int64 * 2).from_address(handle)  # calls, dead
        self.changed = partial(native.changed, handle)

    @classmethod
    def take(
        cls, native: _Native, tensors: Sequence[torch.Tensor], positions: Sequence[int] | None
    ) -> _NativeEvidence | None:
        """None if one of the tensors is of a kind that tensors.c does not read."""
        readable = bytes(type(t) in native.types and t.device.type == "cpu" for t in tensors)
        where = None if positions is None else (ctypes.c_int64 * len(positions))(*positions)
        handle = native.take(list(tensors), readable, where)
        return None if not handle else cls(native, handle, len(tensors), where)

    @property
    def calls(self) -> int:
        return self._head[0]

    def changes(self, tensors: list[Any]) -> list[int]:
        flags = ctypes.create_string_buffer(max(self._count, 1))
        self._native.changes(self.handle, tensors, flags)
        return [i for i in range(self._count) if flags.raw[i]]

    def kill(self) -> None:
        self._head[1] = 1

    def __del__(self) -> None:
        self._native.forget(self.handle)


class _PlainEvidence:
    """The same in Python, for tensors that tensors.c does not read; all samples at every call."""

    def __init__(
        self, tensors: Sequence[torch.Tensor], positions: Sequence[int], kept: list[torch.Tensor]
    ):
        self.calls, self._dead = 0, False
        self._positions = positions
        self._length = len(tensors) if isinstance(positions, range) else -1
        self._storages = [_storage(t) for t in kept]
        self._seen = [(id(t), _facts(t, s)) for t, s in zip(tensors, self._storages, strict=True)]
        self._elements = [_elements(t, s) for t, s in zip(kept, self._storages, strict=True)]
        self._prints = [None if read is None else read() for read in self._elements]

    def changed(self, tensors: list[Any]) -> int:
        if self._dead or self._length not in (-1, len(tensors)):
            return 0
        if len(tensors) <= max(self._positions, default=-1):
            return 0
        moved = next(self._moved(tensors), None)
        if moved is not None:
            return moved
        self.calls += 1
        return next(self._rewritten(range(len(self._seen))), -1)

    def changes(self, tensors: list[Any]) -> list[int]:
        moved = list(self._moved(tensors))
        rest = sorted(set(range(len(self._seen))).difference(moved))
        return sorted([*moved, *self._rewritten(rest)])

    def _moved(self, tensors: list[Any]) -> Iterator[int]:
        for i, p in enumerate(self._positions):
            t, (object_id, facts) = tensors[p], self._seen[i]
            if id(t) != object_id or _facts(t, self._storages[i]) != facts:
                yield i

    def _rewritten(self, among: Iterable[int]) -> Iterator[int]:
        """Among those that have not moved: so their memory is still there."""
        for i in among:
            read = self._elements[i]
            if read is not None and read() != self._prints[i]:
                yield i

    def kill(self) -> None:
        self._dead = True


def _storage(t: torch.Tensor) -> torch.UntypedStorage | None:
    """The memory of a tensor; None for sparse tensors and for fake ones, which have no real one."""
    try:
        storage = t.untyped_storage()
    except (RuntimeError, NotImplementedError):
        return None
    return storage if storage.device.type == t.device.type else None


def _facts(t: torch.Tensor, storage: torch.UntypedStorage | None) -> tuple[Any, ...]:
    """What torch knows of a tensor apart from its elements, as far as it has memory."""
    version = None if t.is_inference() else t._version
    if storage is None:
        return t.shape, t.dtype, version, t._cdata
    return t.shape, t.dtype, version, t.stride(), t.data_ptr(), storage.nbytes()


def _elements(t: torch.Tensor, storage: torch.UntypedStorage | None) -> Callable[[], bytes] | None:
    """Reads a sample of a tensor's elements, or a digest of all; None: not in CPU memory."""
    if t.device.type != "cpu" or storage is None or not t.data_ptr():
        return None
    start = t.data_ptr()
    item = t.element_size()
    reach = 1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    memory = (ctypes.c_char * (reach * item)).from_address(start)
    if t.numel() <= SMALL and reach * item <= SMALL_BYTES:
        return lambda: memory.raw
    if t.is_inference():
        return lambda: hashlib.blake2b(memory, digest_size=16).digest()
    word = min(item, 8)  # of a complex128 the real part
    steps = tuple(s * item for s in t.stride())
    values: np.ndarray = np.ndarray(tuple(t.shape), f"u{word}", memoryview(memory), 0, steps)
    where = range(t.numel())
    if t.numel() > SMALL:
        where = [_telling(values, k) for k in range(SAMPLES)]  # type: ignore[assignment]
    index = np.unravel_index(np.array(where), values.shape)
    return lambda: values[index].tobytes()


def _telling(values: np.ndarray, k: int) -> int:
    """The k-th sample: the first element of its share that is not a zero of either sign."""
    first, end = ((values.size - 1) * j // (SAMPLES - 1) for j in (k, k + 1))
    share = values.flat[first : max(min(end, values.size), first + 1)]
    found = np.flatnonzero(share << share.dtype.type(1))  # without the sign
    return int(first + (found[0] if found.size else 0))


# ---- Where things lie in memory ------------------------------------------------------------------

_OFFSETS = (
    *("type", "impl", "storage", "counter", "ndim", "sizes", "strides", "inline_dims"),
    *("offset", "numel", "dtype", "data", "bytes", "version"),
)
_POINTERS = ("tensor", "parameter", "list_size", "list_item")
# c10::ScalarType's numbers, by which the field is recognized
_CODES = {
    torch.uint8: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.int64: 4, torch.float16: 5,
    torch.float32: 6, torch.float64: 7, torch.complex64: 9, torch.complex128: 10, torch.bool: 11,
    torch.bfloat16: 15,
}  # fmt: skip
_RARE = [f"float8_{kind}" for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")]
_RARE += ["uint16", "uint32", "uint64"]
_WINDOW = 256  # bytes of a C++ object that are searched


class LayoutError(RuntimeError):
    """This torch or this Python lays its objects out in a way that was not recognized."""


class Layout(ctypes.Structure):
    """`at` in tensors.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _OFFSETS),
        *((name, ctypes.c_void_p) for name in _POINTERS),
        ("item", ctypes.c_ubyte * 256),
    ]


class _Native:
    """tensors.c, compiled and told where things lie."""

    def __init__(self) -> None:
        address, list_, function = ctypes.c_void_p, ctypes.py_object, library.function
        self.pointers = function("sol_pointers", ctypes.c_int64, list_, ctypes.c_int64, address)
        self.describe = function("sol_describe", None, ctypes.py_object, address)
        self.take = function("sol_take", address, list_, ctypes.c_char_p, address)
        self.changed = function("sol_changed", ctypes.c_int64, address, list_)
        self.changes = function("sol_changes", None, address, list_, address)
        self.forget = function("sol_forget", None, address)
        self.counts = function("sol_counts", address, list_, list_)
        self.count = function("sol_count", None, address)
        self.counted = function("sol_counted", ctypes.c_int64, address)
        self.uncount = function("sol_uncount", None, address)
        self.types = (torch.Tensor, torch.nn.Parameter)
        self.layout = _calibrate()
        function("sol_layout", None, address)(ctypes.byref(self.layout))
        _verify(self)
        try:
            self.counts_uses = _counts_uses(self)
        except RuntimeError as e:
            log.info("who holds tensors is counted in Python, which is slower: %s", e)
            self.counts_uses = False


@lru_cache(maxsize=1)
def _native() -> _Native | None:
    """The native reader; None where this Python, torch or machine has no place for it."""
    try:
        # in a thread of its own, where none of the caller's modes (inference, dispatch, default
        # device) changes what the probes are
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(_Native).result()
    except Exception as e:  # whatever it is, Python can do the same
        log.info("tensors are read in Python, which is slower: %s: %s", type(e).__name__, e)
        return None


class _Memory:
    """Reads this process's memory at any address without a fault: write() checks it."""

    def __init__(self) -> None:
        try:
            self._write = ctypes.CDLL(None).write
        except (AttributeError, TypeError) as e:
            raise LayoutError(f"no write() in this process: {e}") from e
        self._write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
        self._write.restype = ctypes.c_ssize_t
        self._out, self._in = os.pipe()

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)

    def read(self, address: int, size: int) -> bytes:
        """As many of the bytes there as can be read."""
        data, address = b"", address & _WORD
        while len(data) < size:
            # page by page: a write that meets an unreadable one takes nothing at all
            part = min(size - len(data), 4096 - address % 4096)
            n = self._write(self._in, address, part)
            data += os.read(self._out, n) if n > 0 else b""
            address += part
            if n < part:
                break
        return data

    def words(self, address: int, size: int) -> list[int]:
        data = self.read(address, size)
        return list(struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8]))


@contextmanager
def _memory() -> Iterator[_Memory]:
    memory = _Memory()
    try:
        yield memory
    finally:
        memory.close()


def _probes(k: int) -> list[torch.Tensor]:
    """Tensors whose every property is distinctive; another k, another set."""
    made = []
    for i, dtype in enumerate(_CODES):
        # numpy's memory: torch's own data pointer and its owner would be the same word
        base = torch.from_numpy(np.zeros(4096 + 64 * i + 1024 * k, np.uint8)).view(dtype)
        for _ in range(3 + 5 * ((i + k) % 12) + k):
            base.zero_()  # one version more
        sizes = [2 + (i * i + 2 * d + k) % 3 for d in range((i + k) % 8)]
        strides = [1 + (7 * i + 3 * d + k) % 11 for d in range(len(sizes))]
        made.append(base.as_strided(sizes, strides, 2 + 3 * i + k))
    made[6 + k % 2] = torch.nn.Parameter(made[6 + k % 2])  # floating either way
    return made


def _only(found: Iterator[int], what: str) -> int:
    places = list(found)
    if len(places) != 1:
        raise LayoutError(f"{len(places)} places look like {what} (torch {torch.__version__})")
    return places[0]


def _calibrate() -> Layout:
    """Find every field: the one place that holds the right value in all probes.

    Errors: `LayoutError` where there is no such place, or more than one.
    """
    if sys.byteorder != "little" or struct.calcsize("P") != 8:
        raise LayoutError("not a little-endian machine of 64 bits")
    if not library.locked():
        raise LayoutError("not CPython with its global lock")
    probes = _probes(0)
    with _memory() as memory:

        def where(bases: list[int], values: list[list[int]], what: str, size: int = _WINDOW) -> int:
            """The offset at which each base is followed by its words."""
            read = [memory.words(b, size) for b in bases]
            spots = range(min(map(len, read)))
            hits = (
                8 * s
                for s in spots
                if all(r[s : s + len(v)] == v for r, v in zip(read, values, strict=True))
            )
            return _only(hits, what)

        def each(f: Callable[[torch.Tensor], int]) -> list[list[int]]:
            return [[f(t)] for t in probes]

        found = Layout()
        objects, impls = [id(t) for t in probes], [t._cdata for t in probes]
        storages = [t.untyped_storage()._cdata for t in probes]
        basic = torch.Tensor.__basicsize__
        found.type = where(objects, each(lambda t: id(type(t))), "an object's type", basic)
        found.impl = where(objects, [[i] for i in impls], "the TensorImpl", basic)
        found.storage = where(impls, [[s] for s in storages], "the storage")
        found.ndim = where(impls, each(lambda t: t.dim()), "the number of dimensions")
        found.offset = where(impls, each(lambda t: int(t.storage_offset())), "the storage offset")
        found.numel = where(impls, each(lambda t: t.numel()), "the number of elements")
        inline = [t for t in probes if 1 <= t.dim() <= 5]
        bases = [t._cdata for t in inline]
        found.sizes = where(bases, [list(t.shape) for t in inline], "the sizes")
        found.strides = where(bases, [list(t.stride()) for t in inline], "the strides")
        found.inline_dims = (found.strides - found.sizes) // 8
        found.data = where(storages, each(lambda t: t.untyped_storage().data_ptr()), "the memory")
        found.bytes = where(storages, each(lambda t: t.untyped_storage().nbytes()), "its size")
        read = [memory.read(i, _WINDOW) for i in impls]
        codes = [_CODES[t.dtype].to_bytes(2, "little") for t in probes]
        found.dtype = _only(
            (
                s
                for s in range(0, min(map(len, read)) - 1, 2)
                if all(r[s : s + 2] == c for r, c in zip(read, codes, strict=True))
            ),
            "the dtype",
        )
        counters = [
            (p, v)
            for p in range(0, min(map(len, read)) - 7, 8)
            for v in range(0, 64, 4)
            if all(
                memory.read(int.from_bytes(r[p : p + 8], "little") + v, 4)
                == t._version.to_bytes(4, "little")
                for r, t in zip(read, probes, strict=True)
            )
        ]
        found.counter = _only((p for p, _ in counters), "the version counter")
        found.version = counters[0][1]
        for dtype in (*_CODES, *(getattr(torch, d) for d in _RARE if hasattr(torch, d))):
            t = torch.empty(0, dtype=dtype)
            code = int.from_bytes(memory.read(t._cdata + found.dtype, 2), "little")
            found.item[code] = dtype.itemsize
    words = (found.dtype + 2 - found.ndim + 7) // 8  # compared in one go, see `same` in tensors.c
    between = (found.sizes, found.strides, found.offset, found.numel)
    if not 9 <= words <= 16 or not all(found.ndim < x < found.dtype for x in between):
        raise LayoutError("sizes, strides and dtype do not lie together")
    found.tensor, found.parameter = id(torch.Tensor), id(torch.nn.Parameter)
    found.list_size, found.list_item = map(library.pointer, ("PyList_Size", "PyList_GetItem"))
    return found


class _Subclass(torch.Tensor):
    pass


def _verify(native: _Native) -> None:
    """Read other tensors natively and compare with what Python says.

    Before that, the same is read without a chance of faulting: a wrong layout must not crash.
    Errors: `LayoutError` at the first difference.
    """
    weight = torch.nn.Parameter(torch.ones(6, 5))
    with torch.inference_mode():
        uncounted = torch.ones(3, 4)
    plain = [
        *_probes(1), *_probes(4), weight, weight.detach(), weight * 2, weight.data[2:, 1:],
        uncounted, torch.empty(0), torch.ones(4, 0, 2), torch.tensor(3), torch.ones(2, 3)[1:].t(),
        torch.ones([1] * 9), torch.empty(3, device="meta"),
    ]  # fmt: skip
    unusual = (_Subclass(torch.ones(2)), torch.ones(2).to_sparse())
    out = (ctypes.c_int64 * 64)()

    def natively(t: torch.Tensor) -> list[int]:
        native.describe(t, out)
        return [*out[: 8 + 2 * out[7]]] if out[0] else [0]

    with _memory() as memory:
        for read in (partial(_describe, memory, native.layout), natively):
            for t in (*plain, *unusual):
                wanted = [0]
                if not any(t is u for u in unusual):
                    version = -1 if t.is_inference() else t._version
                    counts = (t.numel(), int(t.storage_offset()), t.untyped_storage().nbytes())
                    wanted = [1, t.data_ptr(), version, *counts, _CODES[t.dtype], t.dim()]
                    wanted += [*t.shape, *t.stride()]
                if read(t) != wanted:
                    raise LayoutError(
                        f"{read(t)} was read, not {wanted} (torch {torch.__version__})"
                    )


def _describe(memory: _Memory, at: Layout, t: torch.Tensor) -> list[int]:
    """`sol_describe` of tensors.c, with reads that cannot fault."""

    def word(address: int, size: int = 8) -> int:
        return int.from_bytes(memory.read(address, size), "little")

    impl = word(id(t) + at.impl)
    storage, counter = word(impl + at.storage), word(impl + at.counter)
    code, n = word(impl + at.dtype, 2), word(impl + at.ndim)
    item = at.item[code] if code < 256 else 0
    if (
        word(id(t) + at.type) not in (at.tensor, at.parameter)
        or not impl
        or not storage
        or not item
    ):
        return [0]
    version = word(counter + at.version, 4) if counter else -1
    count, offset = word(impl + at.numel), word(impl + at.offset)
    pointer = word(storage + at.data) + offset * item if count else 0
    inline = n <= at.inline_dims
    sizes = impl + at.sizes if inline else word(impl + at.sizes)
    strides = impl + at.strides if inline else sizes + 8 * n
    counts = [pointer, version, count, offset, word(storage + at.bytes), code, n]
    dims = range(min(n, 16))
    return [
        1,
        *counts,
        *(word(sizes + 8 * d) for d in dims),
        *(word(strides + 8 * d) for d in dims),
    ]


def _counts_uses(native: _Native) -> bool:
    """Whether `Counts` sees whoever holds a tensor or its memory, and what becomes of a tensor."""
    tensors = [torch.ones(3, 4), torch.ones(2, 4)]
    storages = [t.untyped_storage() for t in tensors]
    tensors.append(torch.empty(0).set_(storages[0], 0, (3, 4), (4, 1)))
    counts = Counts(native, native.counts(tensors, storages), tensors, storages)
    weight = torch.ones(4, requires_grad=True)
    holders: list[Callable[[torch.Tensor], Any]] = [
        lambda t: t, lambda t: t.detach(), lambda t: t[1:], lambda t: t.untyped_storage(),
        lambda t: weight * t, lambda t: t.numpy(),
    ]  # fmt: skip
    changes: list[Callable[[torch.Tensor], Any]] = [
        lambda t: t.requires_grad_(), lambda t: t.detach_().set_(torch.ones(2).untyped_storage()),
    ]  # fmt: skip

    def seen(act: Callable[[torch.Tensor], Any], i: int) -> bool:
        held = act(tensors[i])
        return held is not None and not counts.same()

    with torch.inference_mode(False), torch.enable_grad():
        for i in range(len(tensors)):
            if not all(counts.same() and seen(hold, i) and counts.same() for hold in holders):
                return False
        for change in changes:
            change(tensors[2])
            if counts.same():
                return False
            counts.take()
    return True

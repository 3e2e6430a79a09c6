"""Runs a built program: fills the pointer table, makes one native call, returns the outputs.

Where ATen calls stand in the program, it is cut there: native runs and calls alternate. Memory of a
call (arena, per-thread memory, counters) is kept and reused, one set for each call in flight.
"""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet, ref

import torch

from ...compat import storage_users, with_memory
from ...ir import DTYPES, Buffer, Extern, Kernel, Load, Loops, Program, Ref, read, walk, written
from ...lowering.graph import TORCH_DTYPE
from ...schedule.memory import nbytes
from .program import addresses, indirect_sites

_forked = False
_all: WeakSet[NativeExecutable] = WeakSet()


def _in_child() -> None:
    global _forked
    _forked = True  # the OpenMP pool did not survive the fork
    for executable in _all:
        executable.forget_frames()  # nor did the threads that may hold a lock or a frame


os.register_at_fork(after_in_child=_in_child)


def gomp_parallel() -> ctypes.c_void_p | None:
    """GOMP_parallel of the OpenMP runtime that torch has loaded; None where there is none."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    paths = dict.fromkeys(line.split(maxsplit=5)[-1] for line in maps.splitlines())
    # another package may have brought one of its own: torch's is asked for its number of threads
    for path in sorted(paths, key=lambda p: "torch" not in "".join(Path(p).parts[-3:-1])):
        name = os.path.basename(path)
        if path.startswith("/") and ("libgomp" in name or "libomp" in name or "libiomp" in name):
            function = getattr(ctypes.CDLL(path), "GOMP_parallel", None)
            if function is not None:
                return ctypes.cast(function, ctypes.c_void_p)
    return None


class IndirectIndexError(IndexError, RuntimeError):
    """Eager raises the one or the other for an index out of range, depending on the op."""


class Blocks:
    """Memory for what a call returns as saved, used again as soon as nobody holds any of it.

    Fresh memory costs a page fault for every 4 KiB, which is more than writing it.
    """

    def __init__(self, buffers: list[Buffer]):
        self._places: list[tuple[str, int, Buffer, torch.dtype]] = []
        self._size = 0
        for b in buffers:
            dtype = TORCH_DTYPE[b.dtype]
            self._places.append((b.name, self._size // dtype.itemsize, b, dtype))
            self._size += -(-nbytes(b) // 64) * 64
        self._known: list[tuple[torch.UntypedStorage, int]] = []  # with the users that it has free

    def take(self) -> list[tuple[str, torch.Tensor]]:
        """A tensor for each buffer; no two calls may run this at once."""
        if not self._places:
            return []
        free = [s for s, users in self._known if storage_users(s) == users]
        if free:
            storage = free[0]
            gone = {id(s) for s in free[1:]}
            self._known = [k for k in self._known if id(k[0]) not in gone]
        else:
            storage = torch.empty(self._size, dtype=torch.uint8, device="cpu").untyped_storage()
            self._known.append((storage, storage_users(storage)))
        return [
            (name, torch.empty(0, dtype=d, device="cpu").set_(storage, at, b.shape, b.strides))
            for name, at, b, d in self._places
        ]


class Prepared(list[torch.Tensor]):
    """A list that can be referred to weakly."""


@dataclass
class Frame:
    """The memory of one call in flight."""

    pointers: Any
    threads: int
    arena: torch.Tensor
    scratch: torch.Tensor
    state: torch.Tensor
    weights: Any = lambda: None  # weakly, the prepared weights whose addresses are in `pointers`


class NativeExecutable:
    """See `target.Executable`."""

    def __init__(self, program: Program, library: Path):
        self.program, self.library = program, library
        lib = ctypes.CDLL(str(library))
        self._run = lib.sol_program
        self._run.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int] * 3 + [ctypes.c_void_p]
        self._state_size, lib.sol_state_size.restype = lib.sol_state_size, ctypes.c_long
        lib.sol_scratch_size.restype = ctypes.c_long
        self._scratch_size = lib.sol_scratch_size()
        self._parallel = gomp_parallel()
        self._slots = addresses(program)[1]
        buffers = program.buffers
        self._inputs = [n for n in program.inputs if buffers[n].scope == "input"]
        self._raw = [n for n in program.inputs if buffers[n].scope == "weight"]
        self._packed = [p.stores[0].buffers[0] for p in program.packs]
        touched = {
            program.base(b).name
            for k in program.kernels
            if isinstance(k, Kernel)
            for b in (*read(k), *written(k))
        }
        # an input that only ATen reads may be anything: an effect's token is None
        self._input_slots = [
            (self._slots[n], i) for i, n in enumerate(self._inputs) if n in touched
        ]
        self._weight_slots = [self._slots[n] for n in (*self._raw, *self._packed)]
        own = {n: b for n, b in buffers.items() if b.scope == "output" and b.base is None}
        self._made = [
            (n, self._slots[n], b.shape, b.strides, TORCH_DTYPE[b.dtype]) for n, b in own.items()
        ]
        saved = [b for b in buffers.values() if b.scope == "saved" and b.base is None]
        self._blocks = Blocks(saved)
        made = [n for n, *_ in self._made] + [b.name for b in saved]
        self._written = made
        self._results = [
            None if o is None else (made.index(o) if o in made else o) for o in program.outputs
        ]
        self._named = any(isinstance(r, str) for r in self._results)
        self._plan = _runs(program)
        self.forget_frames()
        _all.add(self)
        self.times: ctypes.Array | None = None  # set it to have the steps timed

    def prepare(self, weights: list[torch.Tensor]) -> list[torch.Tensor]:
        """The weights as they are, then the packed ones."""
        values = dict(zip(self._raw, weights, strict=True))
        packs = [_packed(self.program, p, values) for p in self.program.packs]
        return Prepared((*weights, *packs))

    def forget_frames(self) -> None:
        """Start without the memory of calls before."""
        self._frames: list[Frame] = []
        self._lock = threading.Lock()

    def _frame(self, threads: int) -> Frame:
        with self._lock:
            for i, f in enumerate(self._frames):
                if f.threads == threads:
                    return self._frames.pop(i)
        pointers = (ctypes.c_void_p * max(len(self._slots), 1))()
        arena, scratch, state = (
            torch.empty(n + 64, dtype=torch.uint8, device="cpu")
            for n in (
                self.program.arena_bytes,
                threads * self._scratch_size,
                self._state_size(threads),
            )
        )
        return Frame(pointers, threads, arena, scratch, state)

    def __call__(self, inputs: list[torch.Tensor], weights: list[torch.Tensor]) -> list[Any]:
        threads = 1 if _forked or self._parallel is None else torch.get_num_threads()
        frame = self._frame(threads)
        pointers = frame.pointers
        if frame.weights() is not weights:
            for slot, w in zip(self._weight_slots, weights, strict=True):
                pointers[slot] = w.data_ptr()
            frame.weights = ref(weights)
        for slot, i in self._input_slots:
            pointers[slot] = inputs[i].data_ptr()
        outputs = []
        for _, slot, shape, strides, dtype in self._made:
            y = torch.empty_strided(shape, strides, dtype=dtype, device="cpu")
            pointers[slot] = y.data_ptr()
            outputs.append(y)
        with self._lock:
            saved = self._blocks.take()
        for name, y in saved:
            pointers[self._slots[name]] = y.data_ptr()
            outputs.append(y)
        values: dict[str, torch.Tensor] = {}
        if self._named or len(self._plan) > 1 or isinstance(self._plan[0], Extern):
            values = dict(zip(self._inputs, inputs, strict=True))
            values |= zip((*self._raw, *self._packed), weights, strict=True)
            values |= zip(self._written, outputs, strict=True)
        try:
            for step in self._plan:
                if isinstance(step, Extern):
                    self._call(step, frame, values)
                    continue
                site = self._run(
                    pointers, aligned(frame.arena), aligned(frame.scratch), aligned(frame.state),
                    self.times, threads, *step, self._parallel,
                )  # fmt: skip
                if site:
                    raise self._out_of_range(site, aligned(frame.state))
        finally:
            with self._lock:
                self._frames.append(frame)
        return [
            None
            if r is None
            else outputs[r]
            if isinstance(r, int)
            else self._tensor(r, frame, values)
            for r in self._results
        ]

    def _out_of_range(self, site: int, state: int) -> IndirectIndexError:
        """Eager's error for an index, and what it came from."""
        kernel, bind = indirect_sites(self.program)[site - 1]
        value = ctypes.c_long.from_address(state).value
        text = f"index {value} is out of bounds for dimension with size {bind.bound}"
        sources = [e.buffer for e in walk(bind.value) if isinstance(e, Load)]
        place = f"{', '.join(kernel.origin.ops) or kernel.name}, index {value} from "
        return IndirectIndexError(f"{bind.error or text} ({place}{', '.join(sources)})")

    # -- ATen calls in the middle ----------------------------------------------------------------

    def _call(self, step: Extern, frame: Frame, values: dict[str, torch.Tensor]) -> None:
        given = {b: self._tensor(b, frame, values) for b in read(step)}
        args = [_filled(a, given) for a in step.args]
        kwargs = {k: _filled(v, given) for k, v in step.kwargs}
        result = step.op(*args, **kwargs)
        results = result if isinstance(result, (tuple, list)) else (result,)
        shared = {a.untyped_storage().data_ptr() for a in given.values() if a is not None}
        for name, t in zip(step.outs, results, strict=False):
            if not name:
                continue
            b, t = self.program.buffers[name], with_memory(t)
            if t.untyped_storage().data_ptr() in shared or _lies_otherwise(t, b):
                t = t.new_empty_strided(b.shape, b.strides).copy_(t)
            elif tuple(t.stride()) != tuple(b.strides):  # in dimensions of size 1
                place = t.untyped_storage(), t.storage_offset()
                t = t.new_empty(0).set_(*place, b.shape, b.strides)
            values[name] = t
            if name in self._slots:
                frame.pointers[self._slots[name]] = t.data_ptr()

    def _tensor(self, name: str, frame: Frame, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """A buffer as a tensor over its memory."""
        b = self.program.buffers[name]
        base = self.program.base(name)
        dtype = TORCH_DTYPE[b.dtype]
        if base.name in values:
            t = values[base.name]
            if b.base is None:
                return t
            return t.as_strided(b.shape, b.strides, t.storage_offset() + b.offset)
        start = self.program.arena[base.name] + (aligned(frame.arena) - frame.arena.data_ptr())
        size = DTYPES[b.dtype][0]
        memory = frame.arena[start : start + (len(frame.arena) - start) // size * size].view(dtype)
        return memory.as_strided(b.shape, b.strides, memory.storage_offset() + b.offset)


def _lies_otherwise(t: torch.Tensor, b: Buffer) -> bool:
    """Whether a tensor's elements are not where a buffer's would be."""
    strides = zip(t.shape, t.stride(), b.strides, strict=True)
    return t.numel() > 0 and any(n != 1 and s != u for n, s, u in strides)


def _filled(a: Any, given: dict[str, torch.Tensor]) -> Any:
    """An argument with tensors in place of buffers. (A function in `_call` that calls itself would
    be a cycle, and keep all tensors of a call until the next garbage collection.)"""
    if isinstance(a, Ref):
        return given[a.buffer]
    return type(a)(_filled(x, given) for x in a) if isinstance(a, (tuple, list)) else a


def aligned(t: torch.Tensor) -> int:
    """The first address of a byte tensor on a cache line."""
    return (t.data_ptr() + 63) & ~63


def _runs(program: Program) -> list:
    """(first step, last step) of each native run, and the externs between them."""
    bands = {d.first: d for d in program.depth_first}
    plan: list = []
    native = kernel = 0
    start = 0
    while kernel < len(program.kernels):
        k = program.kernels[kernel]
        if isinstance(k, Extern):
            if native > start:
                plan.append((start, native))
            plan.append(k)
            start = native
            kernel += 1
            continue
        band = bands.get(kernel)
        kernel = band.last if band else kernel + 1
        native += 1
    if native > start or not plan:
        plan.append((start, native))
    return plan


def _packed(program: Program, pack: Loops, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """Evaluate a weight-only copy: an affine load is a strided view of the weight's memory."""
    store = pack.stores[0]
    load = store.values[0]
    assert isinstance(load, Load), store
    source: Buffer = program.buffers[load.buffer]
    base = program.base(load.buffer)
    address = source.address(load.index)
    sizes = [a.extent for a in pack.axes]
    steps = [address.coefficient(a.symbol) for a in pack.axes]
    w = values[base.name].detach()
    have = 1 + sum((n - 1) * s for n, s in zip(base.shape, base.strides, strict=True))
    need = address.const + 1 + sum((n - 1) * s for n, s in zip(sizes, steps, strict=True))
    flat = w.as_strided((have,), (1,), w.storage_offset())
    if need > have:  # the padded end of the last block: any value, no lane of it is stored
        flat = torch.cat([flat, flat.new_zeros(need - have)])
    return flat.as_strided(sizes, steps, flat.storage_offset() + address.const).contiguous()

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

from ...ir import DTYPES, Extern, Kernel, Load, Program, read, walk, written
from ...lowering.graph import TORCH_DTYPE
from ..host import Blocks, call, packed, runs
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


class Prepared(list[Any]):
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
        self._weight_slots = [
            (self._slots[n], i)
            for i, n in enumerate((*self._raw, *self._packed))
            if n in self._slots
        ]
        own = {n: b for n, b in buffers.items() if b.scope == "output" and b.base is None}
        self._made = [
            (n, self._slots[n], b.shape, b.strides, TORCH_DTYPE[b.dtype]) for n, b in own.items()
        ]
        saved = [b for b in buffers.values() if b.scope == "saved" and b.base is None]
        self._blocks = Blocks(saved, "cpu")
        made = [n for n, *_ in self._made] + [b.name for b in saved]
        self._written = made
        self._results = [
            None if o is None else (made.index(o) if o in made else o) for o in program.outputs
        ]
        self._named = any(isinstance(r, str) for r in self._results)
        self._plan = runs(program)
        self.forget_frames()
        _all.add(self)
        self.times: ctypes.Array | None = None  # set it to have the steps timed

    def prepare(self, weights: list[Any]) -> list[Any]:
        """The weights as they are, then the packed ones."""
        values = dict(zip(self._raw, weights, strict=True))
        packs = [packed(self.program, p, values) for p in self.program.packs]
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

    def __call__(self, inputs: list[Any], weights: list[Any]) -> list[Any]:
        threads = 1 if _forked or self._parallel is None else torch.get_num_threads()
        frame = self._frame(threads)
        pointers = frame.pointers
        if frame.weights() is not weights:
            for slot, i in self._weight_slots:
                pointers[slot] = weights[i].data_ptr()
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
        values: dict[str, Any] = {}
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

    def _call(self, step: Extern, frame: Frame, values: dict[str, Any]) -> None:
        given = {b: self._tensor(b, frame, values) for b in read(step)}
        for name, t in call(self.program, step, given, frame.arena).items():
            values[name] = t
            if name in self._slots:
                frame.pointers[self._slots[name]] = t.data_ptr()

    def _tensor(self, name: str, frame: Frame, values: dict[str, Any]) -> Any:
        """A buffer as a tensor over its memory, or the foreign value that it stands for."""
        b = self.program.buffers[name]
        base = self.program.base(name)
        if base.name in values:
            t = values[base.name]
            if b.base is None:
                return t
            return t.as_strided(b.shape, b.strides, t.storage_offset() + b.offset)
        start = self.program.arena[base.name] + (aligned(frame.arena) - frame.arena.data_ptr())
        size = DTYPES[b.dtype][0]
        memory = frame.arena[start : start + (len(frame.arena) - start) // size * size]
        memory = memory.view(TORCH_DTYPE[b.dtype])
        return memory.as_strided(b.shape, b.strides, memory.storage_offset() + b.offset)


def aligned(t: torch.Tensor) -> int:
    """The first address of a byte tensor on a cache line."""
    return (t.data_ptr() + 63) & ~63

"""Runs a built program: fills the pointer table, makes one native call, returns the outputs.

Where ATen calls stand in the program, it is cut there: native runs and calls alternate. Memory of a
call (arena, per-thread memory, counters) is kept and reused, one set for each call in flight.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet, ref

import torch

from ...ir import Extern, Load, Program, read, walk
from ...lowering.graph import TORCH_DTYPE
from ..host import Blocks, Operands, call, in_turn, runs, tensor
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


@dataclass
class Frame:
    """The memory of one call in flight."""

    pointers: Any
    threads: int
    arena: torch.Tensor
    scratch: torch.Tensor
    state: torch.Tensor
    addresses: tuple[int, int, int]  # of the three
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
        self._operands = Operands(program)
        touched = self._operands.touched
        self._input_slots = [
            (self._slots[n], i) for i, n in enumerate(self._operands.inputs) if n in touched
        ]
        self._weight_slots = [
            (self._slots[n], i) for i, n in enumerate(self._operands.weights) if n in self._slots
        ]
        outputs, saved = self._operands.outputs, self._operands.saved
        self._made = [
            (self._slots[b.name], b.shape, b.strides, TORCH_DTYPE[b.dtype]) for b in outputs
        ]
        self._blocks = Blocks(saved, "cpu")
        made = [b.name for b in (*outputs, *saved)]
        self._written = made
        self._results = [
            None if o is None else (made.index(o) if o in made else o) for o in program.outputs
        ]
        self._named = any(isinstance(r, str) for r in self._results)
        self._plan = runs(program)
        self._calls = any(isinstance(step, Extern) for step in self._plan)
        self.forget_frames()
        _all.add(self)
        self.times: ctypes.Array | None = None  # set it to have the steps timed

    def again(self, inputs: list[Any], weights: list[Any]) -> list[Any] | None:
        return None if self._calls else self(inputs, weights)

    def beside(self, others: Sequence[Any]) -> Callable[[list[tuple]], list[Any]]:
        return in_turn([self, *others])

    def notes(self) -> list[str]:
        return []

    def prepare(self, weights: list[Any]) -> list[Any]:
        return self._operands.prepare(weights)

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
            aligned(n)
            for n in (
                self.program.arena_bytes,
                threads * self._scratch_size,
                self._state_size(threads),
            )
        )
        places = arena.data_ptr(), scratch.data_ptr(), state.data_ptr()
        return Frame(pointers, threads, arena, scratch, state, places)

    def __call__(
        self, inputs: list[Any], weights: list[Any], into: Mapping[int, Any] | None = None
    ) -> list[Any]:
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
        for slot, shape, strides, dtype in self._made:
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
            values = self._operands.given(inputs, weights)
            values |= zip(self._written, outputs, strict=True)
        try:
            for step in self._plan:
                if isinstance(step, Extern):
                    self._call(step, frame, values)
                    continue
                site = self._run(
                    pointers, *frame.addresses, self.times, threads, *step, self._parallel
                )
                if site:
                    raise self._out_of_range(site, frame.addresses[2])
        finally:
            with self._lock:
                self._frames.append(frame)
        return [
            None
            if r is None
            else outputs[r]
            if isinstance(r, int)
            else tensor(self.program, r, frame.arena, values)
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
        p, arena = self.program, frame.arena
        given = {b: tensor(p, b, arena, values) for b in read(step)}
        for name, t in call(self._operands, step, given, arena).items():
            values[name] = t
            if name in self._slots:
                frame.pointers[self._slots[name]] = t.data_ptr()


def aligned(size: int) -> torch.Tensor:
    """Uninitialized bytes that begin on a cache line."""
    t = torch.empty(size + 64, dtype=torch.uint8, device="cpu")
    start = -t.data_ptr() % 64
    return t[start : start + size]

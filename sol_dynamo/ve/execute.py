"""Runs a built program on the card: one call for each core, on the device's current stream.

Programs are cut at ATen calls, as on a CPU; arena and scratch are memory of the device's allocator,
which hands it on in the order of the stream, so that nothing waits for a call to end. A fault of
the card is the RuntimeError of the next call that waits. An index out of range is reported in
memory of the card: programs with such indices read it when their call is done.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..ir import Extern, Load, Program, read, walk
from ..kernels.c.execute import IndirectIndexError
from ..kernels.c.program import addresses, indirect_sites
from ..kernels.host import Blocks, Operands, call, in_turn, runs, tensor
from ..lowering.graph import TORCH_DTYPE
from ..runtime.toolchain import cores
from . import cards, module
from .compiler import code_bytes
from .objects import Held
from .program import Step

ALIGN = 256
ARGUMENTS = 248  # of a call, behind those in registers: AVEO takes 256


@dataclass(frozen=True)
class Built:
    """A program's kernels as objects, and the object that runs them."""

    steps: tuple[Step, ...]
    objects: tuple[Path, ...]  # by step
    runtime: Path


@dataclass
class Loaded:
    """A program on one card."""

    run: int  # the addresses of sol_run, and of sol_run_all
    run_all: int
    held: Held
    table: torch.Tensor  # sol_program, then its steps
    scratch_bytes: int  # of a core
    units: list[int]  # by step
    name: str


@cache
def cores_used() -> int:
    """How many cores work on a program: SOL_VE_CORES, else all of a card's; of simulated ones as
    many as the host has, since more take turns."""
    wanted = os.environ.get("SOL_VE_CORES", "")
    if wanted:
        if not wanted.isdigit() or int(wanted) < 1:
            raise ValueError(f"SOL_VE_CORES={wanted!r}: a number of cores, 1 or more, is due")
        return int(wanted)
    card = module.get_device_properties(0).multi_processor_count
    return min(card, cores()) if cards.find().simulated else card


class VeExecutable:
    """See `target.Executable`."""

    def __init__(self, program: Program, built: Built):
        self.program, self.built = program, built
        self._operands = Operands(program)
        self._slots = addresses(program)[1]
        touched = self._operands.touched
        self._input_slots = [
            (self._slots[n], i) for i, n in enumerate(self._operands.inputs) if n in touched
        ]
        self._weight_slots = [
            (self._slots[n], i) for i, n in enumerate(self._operands.weights) if n in touched
        ]
        outputs, saved = self._operands.outputs, self._operands.saved
        self._made = [
            (self._slots[b.name], b.shape, b.strides, TORCH_DTYPE[b.dtype]) for b in outputs
        ]
        self._saved: dict[int, Blocks] = {}  # by device
        self._names = [b.name for b in (*outputs, *saved)]
        self._results = [
            None if o is None else (self._names.index(o) if o in self._names else o)
            for o in program.outputs
        ]
        self._named = any(isinstance(r, str) for r in self._results)
        self._plan = runs(program)
        self._sites = indirect_sites(program)
        self._lock = threading.Lock()
        self._loaded: dict[int, Loaded] = {}
        self._tables: dict[tuple[int, int], tuple[list[int], torch.Tensor]] = {}

    def again(self, inputs: list[Any], weights: list[Any]) -> list[Any] | None:
        return self(inputs, weights) if self.simple else None

    def beside(self, others: Sequence[Any]) -> Callable[[list[tuple]], list[Any]]:
        programs = [self, *others]
        if all(p.simple for p in programs):
            return Together(programs)
        return in_turn(programs)

    @property
    def simple(self) -> bool:
        """Whether a call is kernels and nothing else."""
        calls_none = len(self._plan) == 1 and not isinstance(self._plan[0], Extern)
        return calls_none and not (self._named or self._sites or self._operands.saved)

    def notes(self) -> list[str]:
        plain = [s.name for s in self.built.steps if not s.vectors]
        if not plain:
            return []
        return [f"{len(plain)} of {len(self.built.steps)} kernels have no vectors: {plain}"]

    def prepare(self, weights: list[Any]) -> list[Any]:
        return self._operands.prepare(weights)

    # -- on a card -----------------------------------------------------------------------------

    def _on(self, device: int) -> Loaded:
        with self._lock:
            found = self._loaded.get(device)
            if found is None:
                found = self._loaded[device] = self._load(device)
            return found

    def _load(self, device: int) -> Loaded:
        """Load all kernels, and write the table of steps: {function, units, first, last} each."""
        steps, bands = self.built.steps, {d.first: d for d in self.program.depth_first}
        functions = [(path, s.name) for s, path in zip(steps, self.built.objects, strict=True)]
        runtime = [(self.built.runtime, name) for name in ("sol_run", "sol_run_all")]
        held = Held(device, [*functions, *runtime])
        *starts, run, run_all = held.addresses
        rows = [
            [start, s.units, code_bytes(path, s.name), 0]
            for start, s, path in zip(starts, steps, self.built.objects, strict=True)
        ]
        place, n = {}, 0  # position in the program -> in the table of kernels
        for position, step in enumerate((*self.program.kernels, None)):
            place[position] = n
            n += step is not None and not isinstance(step, Extern)
        inner = {
            place[d.first]: [0, d.trips, place[d.first], place[d.last]] for d in bands.values()
        }
        outer, k = [], 0
        while k < len(rows):
            outer.append(inner.get(k, rows[k]))
            k = inner[k][3] if k in inner else k + 1
        band = -(-max([0, *(s.scratch for s in steps)]) // ALIGN) * ALIGN
        size = -(-max(band + self.program.band_bytes, 1) // ALIGN) * ALIGN + ALIGN
        table = torch.empty(
            32 * (1 + len(outer) + len(rows)), dtype=torch.uint8, device=f"ve:{device}"
        )
        start = table.data_ptr() + 32
        head = [start, start + 32 * len(outer), size, band]
        words = torch.tensor([head, *outer, *rows], dtype=torch.int64).flatten()
        table.copy_(words.view(torch.uint8))
        name = steps[0].name if len(steps) == 1 else f"a program of {len(steps)} kernels"
        units = [row[1] for row in outer]
        return Loaded(run, run_all, held, table, size, units, name)

    # -- calls ---------------------------------------------------------------------------------

    def __call__(
        self, inputs: list[Any], weights: list[Any], into: Mapping[int, Any] | None = None
    ) -> list[Any]:
        given = (*inputs, *weights)
        device = next(
            (t.device for t in given if isinstance(t, torch.Tensor) and t.device.type == "ve"), None
        ) or torch.device("ve", module.current_device())
        with module.device(device):
            return self._run(device, inputs, weights, into or {})

    def _run(
        self,
        device: torch.device,
        inputs: list[Any],
        weights: list[Any],
        into: Mapping[int, torch.Tensor],
    ) -> list[Any]:
        pointers, outputs = self._pointers(device, inputs, weights, into)
        with self._lock:
            blocks = self._saved.get(device.index)
            if blocks is None:
                blocks = Blocks(self._operands.saved, str(device))
                self._saved[device.index] = blocks
            saved = blocks.take()
        for name, y in saved:
            pointers[self._slots[name]] = y.data_ptr()
            outputs.append(y)
        arena = torch.empty(max(self.program.arena_bytes, 64), dtype=torch.uint8, device=device)
        values: dict[str, Any] = {}
        if self._named or len(self._plan) > 1 or isinstance(self._plan[0], Extern):
            values = self._operands.given(inputs, weights)
            values |= zip(self._names, outputs, strict=True)
        for step in self._plan:
            if isinstance(step, Extern):
                self._call(step, arena, pointers, values)
            elif step[0] < step[1]:
                self._launch(device, step, arena, pointers)
        return [
            None
            if r is None
            else outputs[r]
            if isinstance(r, int)
            else tensor(self.program, r, arena, values)
            for r in self._results
        ]

    def _pointers(
        self,
        device: torch.device,
        inputs: list[Any],
        weights: list[Any],
        into: Mapping[int, torch.Tensor],
    ) -> tuple[list[int], list[torch.Tensor]]:
        """The pointer table of a call, and its results, new ones where they are not given."""
        places = {self._results[k]: t for k, t in into.items()}
        pointers = [0] * len(self._slots)
        for slot, i in self._weight_slots:
            pointers[slot] = weights[i].data_ptr()
        for slot, i in self._input_slots:
            pointers[slot] = inputs[i].data_ptr()
        outputs = []
        for k, (slot, shape, strides, dtype) in enumerate(self._made):
            y = places.get(k)
            if y is None:
                y = torch.empty_strided(shape, strides, dtype=dtype, device=device)
            pointers[slot] = y.data_ptr()
            outputs.append(y)
        return pointers, outputs

    def _launch(
        self, device: torch.device, steps: tuple[int, int], arena: torch.Tensor, pointers: list[int]
    ) -> None:
        loaded = self._on(device.index)
        cores = min(cores_used(), max(loaded.units[steps[0] : steps[1]]))
        scratch = torch.empty(cores * loaded.scratch_bytes, dtype=torch.uint8, device=device)
        error = torch.zeros(2, dtype=torch.int64, device=device) if self._sites else None
        table = self._in_memory(device, pointers) if len(pointers) > ARGUMENTS else None
        arguments = pointers if table is None else [table.data_ptr()]
        who = 0 if table is None else 1 << 16
        words = [
            loaded.table.data_ptr(), steps[0] | steps[1] << 32, arena.data_ptr(),
            scratch.data_ptr(), 0 if error is None else error.data_ptr(), who, 0, 0, *arguments,
        ]  # fmt: skip
        meetings = 1 + steps[1] - steps[0]
        module.native().launch_on_cores(
            device.index, loaded.run, words, loaded.name, max(cores, 1), meetings
        )
        if error is not None:
            site, value = error.tolist()
            if site:
                raise self._out_of_range(site, value)

    def _in_memory(self, device: torch.device, pointers: list[int]) -> torch.Tensor:
        """A pointer table in memory of the card: mostly that of the last call of this stream, since
        its allocator gives the same memory again."""
        stream = module.current_stream(device).stream_id
        known = self._tables.get((device.index, stream))
        if known is not None and known[0] == pointers:
            return known[1]
        host = torch.tensor(pointers, dtype=torch.int64, pin_memory=True)
        table = host.to(device, non_blocking=True)
        self._tables[device.index, stream] = list(pointers), table
        return table

    def _out_of_range(self, site: int, value: int) -> IndirectIndexError:
        """Eager's error for an index, and what it came from."""
        kernel, bind = self._sites[site - 1]
        text = f"index {value} is out of bounds for dimension with size {bind.bound}"
        sources = [e.buffer for e in walk(bind.value) if isinstance(e, Load)]
        place = f"{', '.join(kernel.origin.ops) or kernel.name}, index {value} from "
        return IndirectIndexError(f"{bind.error or text} ({place}{', '.join(sources)})")

    def _call(
        self, step: Extern, arena: torch.Tensor, pointers: list[int], values: dict[str, Any]
    ) -> None:
        p = self.program
        given = {b: tensor(p, b, arena, values) for b in read(step)}
        for name, t in call(self._operands, step, given, arena).items():
            values[name] = t
            if name in self._slots:
                pointers[self._slots[name]] = t.data_ptr()


class Together:
    """Simple programs that know nothing of each other, as one call for each core."""

    def __init__(self, programs: Sequence[VeExecutable]):
        self._programs = programs
        self._steps = [p._plan[0][1] for p in programs]
        self._longest = max(self._steps)
        self._tables: dict[tuple[int, int], tuple[list[int], torch.Tensor]] = {}

    def __call__(self, calls: list[tuple[list[Any], list[Any], Mapping[int, Any]]]) -> list[Any]:
        device = next(
            (t.device for inputs, weights, _ in calls for t in (*inputs, *weights)), None
        ) or torch.device("ve", module.current_device())
        with module.device(device):
            return self._run(device, calls)

    def _run(self, device: torch.device, calls: list[tuple]) -> list[Any]:
        """The table that the card reads: {program, steps, pointers, arena} each, then all pointers;
        addresses within the table are relative until it has a place."""
        loaded = [p._on(device.index) for p in self._programs]
        needs = [-(-p.program.arena_bytes // ALIGN) * ALIGN for p in self._programs]
        arena = torch.empty(sum(needs), dtype=torch.uint8, device=device) if any(needs) else None
        at = arena.data_ptr() if arena is not None else 0
        entries: list[int] = []
        pointers: list[int] = []
        results = []
        for p, x, steps, need, given in zip(
            self._programs, loaded, self._steps, needs, calls, strict=True
        ):
            own, outputs = p._pointers(device, *given)
            entries += (x.table.data_ptr(), steps, 8 * len(pointers), at)
            pointers += own
            at += need
            results.append([outputs[r] if isinstance(r, int) else None for r in p._results])
        table = self._table(device, entries, pointers)
        units = sum(sum(x.units[:steps]) for x, steps in zip(loaded, self._steps, strict=True))
        cores = max(1, min(cores_used(), units))
        size = max(x.scratch_bytes for x in loaded)
        scratch = torch.empty(cores * size, dtype=torch.uint8, device=device)
        words = [
            table.data_ptr(), len(loaded) | self._longest << 32, 0, scratch.data_ptr(), size,
            0, 0, 0,
        ]  # fmt: skip
        name = f"{len(loaded)} programs, the first of them {loaded[0].name}"
        module.native().launch_on_cores(
            device.index, loaded[0].run_all, words, name, cores, 1 + self._longest
        )
        return results

    def _table(self, device: torch.device, entries: list[int], pointers: list[int]) -> torch.Tensor:
        """As `VeExecutable._in_memory`."""
        stream = module.current_stream(device).stream_id
        words = entries + pointers
        known = self._tables.get((device.index, stream))
        if known is not None and known[0] == words:
            return known[1]
        table = torch.empty(8 * len(words), dtype=torch.uint8, device=device)
        start = table.data_ptr() + 8 * len(entries)
        host = torch.tensor(words, dtype=torch.int64, pin_memory=True)
        host[2 : len(entries) : 4] += start
        table.copy_(host.view(torch.uint8), non_blocking=True)
        self._tables[device.index, stream] = words, table
        return table

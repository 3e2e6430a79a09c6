"""What became of a model: kernels, what was fused into each, work, traffic, ATen calls and why.

`explain(model, *inputs)` compiles and runs the model once and describes its graphs. A kernel that
only moves data says why it had to be one, a call to ATen why it is no kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from .. import compat
from ..ir import DTYPES, Extern, Kernel, Load, Program, read, written

if TYPE_CHECKING:
    from ..backend import Outcome


@dataclass(frozen=True)
class KernelReport:
    """One step of a program; flops count a multiply-add as two, bytes are read or written once."""

    name: str
    ops: tuple[str, ...]  # the ATen ops in it, in order
    flops: int
    bytes: int
    line: str  # the user's line
    note: str  # why it is an ATen call, or why it only moves data
    extern: bool


@dataclass(frozen=True)
class ProgramReport:
    kernels: tuple[KernelReport, ...]
    arena_bytes: int
    depth_first: tuple[str, ...]
    native_calls: int
    kind: str = "inference"  # or forward, backward
    notes: tuple[str, ...] = ()  # how it runs: what is one graph, and what cannot be

    @property
    def aten_calls(self) -> tuple[KernelReport, ...]:
        return tuple(k for k in self.kernels if k.extern)


@dataclass(frozen=True)
class LeftToATen:
    """A graph all of which runs on ATen."""

    kind: str
    ops: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Report:
    """All graphs of a model, in the order of compilation; `str()` of it is the text."""

    graphs: tuple[ProgramReport | LeftToATen, ...]

    @property
    def programs(self) -> tuple[ProgramReport, ...]:
        return tuple(g for g in self.graphs if isinstance(g, ProgramReport))

    def coverage(self) -> dict[str, Coverage]:
        """What became of each ATen op, by name."""
        found: dict[str, Coverage] = {}
        for g in self.graphs:
            if isinstance(g, LeftToATen):
                for op in g.ops:
                    found.setdefault(op, Coverage()).left(g.reason)
                continue
            for k in g.kernels:
                for op in k.ops:
                    one = found.setdefault(op, Coverage())
                    if k.extern:
                        one.left(k.note)
                    else:
                        one.compiled += 1
        return found

    def __str__(self) -> str:
        texts = (
            f"graph {i} ({g.kind}): {len(g.ops)} ops, all on ATen: {g.reason}"
            if isinstance(g, LeftToATen)
            else _text(i, g)
            for i, g in enumerate(self.graphs)
        )
        return "\n\n".join(texts) or "nothing was compiled"


@dataclass
class Coverage:
    """How often an op was compiled, how often it was a call to ATen, and why."""

    compiled: int = 0
    aten: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def left(self, reason: str) -> None:
        self.aten += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


def explain(model: Any, *inputs: Any, backward: bool = False) -> Report:
    """Compile a model (or function) for these inputs, run it once, and report.

    `backward`: with gradients, and the backward pass of the sum of its floating results. What was
    compiled before, by any backend, is forgotten and compiled again when it is next called.
    """
    from ..backend import Backend

    compat.reset_dynamo()
    backend = Backend()
    with torch.set_grad_enabled(backward):
        result = torch.compile(model, backend=backend, dynamic=False)(*inputs)
        leaves = compat.tree_leaves(result) if backward else []
        grown = [t.sum() for t in leaves if isinstance(t, torch.Tensor) and t.requires_grad]
        if grown:
            torch.stack(grown).sum().backward()
    return Report(tuple(map(_graph, backend.graphs)))


def _graph(outcome: Outcome) -> ProgramReport | LeftToATen:
    if outcome.runner is None:
        return LeftToATen(outcome.kind, outcome.ops, outcome.reason)
    notes = tuple(outcome.compiled.executable.notes())
    return replace(report(outcome.compiled.program), kind=outcome.kind, notes=notes)


def report(program: Program) -> ProgramReport:
    rows = tuple(_row(program, k) for k in program.kernels)
    bands = tuple(
        f"{program.kernels[d.first].name} .. {program.kernels[d.last - 1].name}: "
        f"{d.trips} x {d.chunk} images"
        for d in program.depth_first
    )
    cuts = sum(isinstance(k, Extern) for k in program.kernels)
    return ProgramReport(rows, program.arena_bytes, bands, cuts + 1)


def _row(program: Program, k: Kernel | Extern) -> KernelReport:
    if isinstance(k, Extern):
        return KernelReport(k.name, (str(k.op),), 0, 0, k.origin.line, k.reason, True)
    flops = 0
    for nest in k.body:
        points = prod(a.extent for a in nest.axes)
        flops += points * (2 if any(s.reduce for s in nest.stores) else 1)
    touched = {b for b in (*read(k), *written(k)) if program.buffers[b].scope != "local"}
    size = sum(program.buffers[b].numel * DTYPES[program.buffers[b].dtype][0] for b in touched)
    note = k.note or (moves(program, k) or "")
    return KernelReport(k.name, k.origin.ops, flops, size, k.origin.line, note, False)


def moves(program: Program, k: Kernel) -> str | None:
    """Why a kernel that only moves data exists, unless the step that left it has noted so; None
    for one that computes."""
    stores = [s for nest in k.body for s in nest.stores]
    if any(s.reduce or not isinstance(v, Load) for s in stores for v in s.values):
        return None
    targets = {program.base(b).name for b in written(k)}
    if any(program.buffers[t].scope in ("output", "saved") for t in targets):
        return "moves data: an output in eager's strides, or one that is an input or a view"
    if any(program.buffers[b].base for b in written(k)):
        return "moves data: a value that two concatenations (or one and another reader) need"
    calls = {b for e in program.kernels if isinstance(e, Extern) for b in read(e)}
    if any(program.base(b).name in targets for b in calls):
        return "moves data: an ATen call reads it in these strides"
    return "moves data: no reader takes it as addresses of its own"


def _text(i: int, p: ProgramReport) -> str:
    lines = [
        f"graph {i} ({p.kind}): {len(p.kernels)} kernels, {p.native_calls} native call(s), "
        f"{len(p.aten_calls)} ATen calls, arena {p.arena_bytes / 2**20:.1f} MiB"
    ]
    lines += [f"  depth first: {b}" for b in p.depth_first]
    lines += [f"  {note}" for note in p.notes]
    for k in p.kernels:
        ops = " + ".join(o.removeprefix("aten.").rsplit(".", 1)[0] for o in k.ops)
        work = (
            f"{k.flops / 1e6:9.2f} Mflop {k.bytes / 2**20:7.2f} MiB" if not k.extern else " " * 26
        )
        lines.append(
            f"  {work}  {k.name}: {'ATen ' if k.extern else ''}{ops}"
            + (f"  [{k.note}]" if k.note else "")
        )
    return "\n".join(lines)


__all__ = ["Coverage", "KernelReport", "LeftToATen", "ProgramReport", "Report", "explain", "report"]

"""What became of a model: kernels, what was fused into each, work, traffic, ATen calls and why.

`explain(model, *inputs)` compiles and runs the model once and describes its programs. A kernel that
only moves data says why it had to be one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from .. import compat
from ..ir import DTYPES, Extern, Kernel, Load, Program, read, written


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

    @property
    def aten_calls(self) -> tuple[KernelReport, ...]:
        return tuple(k for k in self.kernels if k.extern)


@dataclass(frozen=True)
class Report:
    """All programs of a model; `str()` of it is the text."""

    programs: tuple[ProgramReport, ...]

    def __str__(self) -> str:
        return (
            "\n\n".join(_text(i, p) for i, p in enumerate(self.programs)) or "nothing was compiled"
        )


def explain(model: Any, *inputs: Any) -> Report:
    """Compile a model (or function) for these inputs, run it once without gradients, and report."""
    from ..backend import compiled, sol

    compat.reset_dynamo()
    with torch.no_grad():
        torch.compile(model, backend=sol, dynamic=False)(*inputs)
    return Report(tuple(report(c.program) for c in compiled))


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
    if any(program.buffers[t].scope == "output" for t in targets):
        return "moves data: an output in eager's strides, or one that is an input or a view"
    if any(program.buffers[b].base for b in written(k)):
        return "moves data: a value that two concatenations (or one and another reader) need"
    calls = {b for e in program.kernels if isinstance(e, Extern) for b in read(e)}
    if any(program.base(b).name in targets for b in calls):
        return "moves data: an ATen call reads it in these strides"
    return "moves data: no reader takes it as addresses of its own"


def _text(i: int, p: ProgramReport) -> str:
    lines = [
        f"program {i}: {len(p.kernels)} kernels, {p.native_calls} native call(s), "
        f"{len(p.aten_calls)} ATen calls, arena {p.arena_bytes / 2**20:.1f} MiB"
    ]
    lines += [f"  depth first: {b}" for b in p.depth_first]
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


__all__ = ["KernelReport", "ProgramReport", "Report", "explain", "report"]

"""A scheduled program as Python files: one for each distinct Triton function, and the launches.

A file's name is a hash of its text, so that equal kernels of two networks are compiled once.
"""

from __future__ import annotations

from dataclasses import fields
from math import prod

from ...ir import Extern, Kernel, Program, Schedule, blamed
from .blocks import axis_of
from .launch import Launch
from .nest import KernelText
from .rounding import round_early

HEADER = '''\
"""Written by sol_dynamo."""

import triton
import triton.language as tl

from sol_dynamo.kernels.triton import device as sol
from sol_dynamo.kernels.triton.device import libdevice


'''


def emit_program(program: Program) -> tuple[dict[str, str], tuple[Launch | None, ...]]:
    """Source by file name; and each step's launch, None for calls outside and empty kernels."""
    program, rounded = round_early(program)
    sources: dict[str, str] = {}
    launches: list[Launch | None] = []
    for k in program.kernels:
        launches.append(None)
        if isinstance(k, Extern) or not k.body:
            continue
        with blamed(k):
            text, launch = KernelText(program, k, rounded).emit(*resources(k))
        launches[-1], sources[f"{launch.function}.py"] = launch, HEADER + text
    sources["program.py"] = "STEPS = [\n" + "".join(f"    {_row(x)},\n" for x in launches) + "]\n"
    return sources, tuple(launches)


def _row(x: Launch | None) -> str:
    if x is None:
        return "None"
    values = [getattr(x, f.name) for f in fields(x)]
    while values[-1] == fields(x)[len(values) - 1].default:
        values.pop()
    return f"({', '.join(map(repr, values))})"


def launches_of(source: str) -> tuple[Launch | None, ...]:
    """The launches that "program.py" lists."""
    names: dict = {}
    exec(source, names)
    return tuple(x and Launch(*x) for x in names["STEPS"])


def resources(k: Kernel) -> tuple[int, int]:
    """Warps of a program, and stages of its pipelined loops."""
    s = k.schedules[-1]
    if s.warps:
        return s.warps, s.stages
    points = max(_points(x, s) for x in k.schedules)
    return (8 if points >= 8192 else 4 if points >= 512 else 2 if points >= 256 else 1), 3


def _points(s: Schedule, root: Schedule) -> int:
    """Points of a nest's block, of which some loops are the root's."""
    symbols = dict.fromkeys((*root.tile, *map(axis_of, s.block)))
    tiles = [s.tile.get(a) or root.tile.get(a) for a in symbols]
    return prod(t[0] for t in tiles if t)

"""Fusion: which nests share a kernel, and which results never reach memory.

Seven steps, each linear in the size of the program: read through views, inline pointwise producers,
make long reductions one sweep in parts, group what follows, make one sum of sums of products that
are added, let rows make what they read, make beside a result what reads it or lies next to it. What
is computed is unchanged.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir import Extern, Kernel, Program, loads, read, written
from ..target import Caps
from .beside import merge_beside
from .group import group
from .inline import inline, resolve_views
from .into_rows import into_rows
from .nests import drop_unit_axes
from .one_sum import join_sums
from .reductions import merge_siblings, split_reductions
from .taps import split_taps

SWEEPS = 4  # two readers may have become one: a * sigmoid(a)


def fuse(program: Program, caps: Caps) -> Program:
    """One nest a kernel ==> as many as belong together."""
    for k in program.kernels:
        if isinstance(k, Kernel) and len(k.body) != 1:
            raise ValueError(f"kernel {k.name} has {len(k.body)} nests before fusion")
    program = without_unit_axes(program)
    program = resolve_views(program)
    if not caps.images_first:
        program = split_taps(program, caps)
    for _ in range(SWEEPS):
        before = len(program.kernels)
        program = inline(program, caps.columns, caps.row_cost)
        if len(program.kernels) == before:
            break
    program = split_reductions(merge_siblings(program), caps)
    program = group(program)
    if caps.one_sum is not None:
        program = join_sums(program, caps.one_sum)
    if not caps.images_first:
        program = into_rows(program, caps.row_cost)
        program = merge_beside(program)
    return drop_unused(program)


def without_unit_axes(program: Program) -> Program:
    """An axis of extent 1 is the constant 0: then equal indices are equal objects."""
    kernels = tuple(
        k if isinstance(k, Extern) else replace(k, body=tuple(map(drop_unit_axes, k.body)))
        for k in program.kernels
    )
    return replace(program, kernels=kernels)


def drop_unused(program: Program) -> Program:
    """Forget buffers that nothing names any more."""
    used = {*program.inputs, *(o for o in program.outputs if o)}
    for k in program.kernels:
        used.update((*read(k), *written(k)))
    for p in program.packs:
        used.update(e.buffer for e in loads(p))
        used.update(b for s in p.stores for b in s.buffers)
    stack = list(used)
    while stack:
        base = program.buffers[stack.pop()].base
        if base is not None and base not in used:
            used.add(base)
            stack.append(base)
    return replace(program, buffers={n: b for n, b in program.buffers.items() if n in used})

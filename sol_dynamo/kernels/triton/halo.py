"""A convolution of few outputs as one product for all taps along a row, in blocks that overlap.

    part[r, (j, o)] = sum over i, c of x[r, i, c] * k[o, i, j, c]
    out[r, o] = sum over j of part[r + j + shift, (j, o)]

A program makes the parts of a block of rows (points of all images, one behind the other), of which
the first and the last are its neighbours', too: their results are not its own. Nothing but results
is written (`schedule/taps.py` makes two kernels of it). A 3x3 convolution of 128 channels to 32 at
56 x 56, batch 32: 44 us for 57 of two kernels (H200; RESULTS, 2026-11-29 06:40).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...affine import Index
from ...ir import Axis, Kernel, Load, Loops, Schedule
from ...schedule import taps
from ...schedule.plan import Plan
from .blocks import fuse, grid, pow2
from .cost import Machine
from .product import MANY_BLOCKS, Terms, deep_of, laid, multiplied_by, roles_of, shape_of, tiles


def product_of_taps(plan: Plan) -> list[Kernel]:
    """The kernel in blocks of several sizes, the likely fastest first; none where parts along a row
    gain nothing, or are too many for a block."""
    if len(plan.kernel.body) != 2:
        return []
    nest, root = plan.kernel.body
    roles, row = roles_of(plan, nest, root), taps.row_of(plan.buffers, nest)
    if roles is None or row is None or not taps.summed_inside(nest, row, plan.caps):
        return []
    if roles.batch or roles.rows[-1] != row.axis:  # rows next to each other are points of a row
        return []
    name = plan.unused(f"{plan.kernel.name}_parts")
    first, second = taps.split(nest, row, name, plan.buffers, scope="local")
    points = replace(first, axes=tuple(a for a in first.axes if a.kind == "parallel"))
    of_parts, deep = roles_of(plan, first, points), deep_of(plan, first, first.reduce_axes)
    if of_parts is None or deep is None:
        return []
    first = laid(plan, first, of_parts).nest
    (first, second, root), m = fuse((first, second, root), roles.rows, "rows")
    (first,), n = fuse((first,), of_parts.columns, "columns")
    (second, root), o = fuse((second, root), roles.columns, "outputs")
    terms = Terms(deep, [a for a in first.reduce_axes if a != deep], True)
    shape = shape_of((m.extent, n.extent), [terms], 1, multiplied_by(nest.stores[0].values[0]))
    halo = {m.symbol: (-row.shift, row.tap.extent - 1 + row.shift)}
    made = []
    for t in tiles(shape, Machine(plan.caps.cores, plan.caps.local_bytes), whole=True):
        last = grid([(m, t.rows), (o, pow2(o.extent))])
        last = replace(last, warps=t.warps, stages=t.stages, halo=halo)
        at = (root.name, last.order[last.parallel - 1])
        many = -(-m.extent // t.rows) >= MANY_BLOCKS * plan.caps.cores
        own = terms.schedule(t, [], (f"{m.symbol}.0", f"{n.symbol}.0"), at, many)
        lead = (f"{m.symbol}.0", f"{o.symbol}.0")
        of_sum = Schedule((f"{row.tap.symbol}.0", *lead), at=at, block=lead)
        body = (first, second, root)
        made.append(replace(plan.kernel, body=body, schedules=(own, of_sum, last)))
    # blocks of more rows make fewer twice, which the model does not know
    return sorted(made, key=lambda k: -k.schedules[-1].tile[m.symbol][0])


@dataclass(frozen=True)
class Neighbours:
    """What a nest sums of a block (rows, columns) that an earlier one made: for each column, a part
    of a row near by, where the mask holds."""

    part: str
    rows: Index  # that it is further down
    mask: tuple[Index, ...]
    output: Axis  # the last of the two that columns are


def neighbours(
    nest: Loops, rows: Axis, columns: Axis, index: tuple[Index, ...]
) -> Neighbours | None:
    """Of a nest that sums what is held at an `index`, whose columns are taps of all outputs."""
    values = [e for x in nest.stores for e in x.values]
    outputs = [a for a in nest.axes if a.kind == "parallel" and a != rows]
    if len(values) != 1 or len(outputs) != 1 or len(nest.reduce_axes) != 1:
        return None
    (e,), (output,), (tap,) = values, outputs, nest.reduce_axes
    if not isinstance(e, Load):
        return None
    at = Index.of(columns.symbol)
    of_column = {tap.symbol: at // output.extent, output.symbol: at % output.extent}
    ranges = {columns.symbol: (0, columns.extent - 1)}
    moved = [i.subst(of_column) - j for i, j in zip(e.index, index, strict=True)]
    moved = [i.simplify(ranges) for i in moved]
    shifts = [i for i in moved if i.terms or i.const]
    if len(shifts) != 1 or shifts[0].symbols - {columns.symbol}:
        return None
    return Neighbours(e.buffer, shifts[0], tuple(m.subst(of_column) for m in e.mask), output)

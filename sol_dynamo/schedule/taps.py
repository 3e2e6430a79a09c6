"""A convolution of few outputs sums its taps along a row afterwards.

    out[h, w, o] = sum over i, j, c of x[h + i, w + j, c] * k[o, i, j, c]
    ==>  part[h, u, j, o] = sum over i, c of x[h + i, u, c] * k[o, i, j, c];
         out[h, w, o] = sum over j of part[h, w + j, j, o]

Where products are computed from memory, each tap reads its operand again: the one of few outputs
and many channels costs more than parts that are written and read once. It is for machines that run
kernel by kernel; who walks images holds rows in cache. Where a machine's kernels read a block's
values at other rows of it, parts need not be written: its walk makes one kernel of both sums
(`summed_inside`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from ..affine import Index, Range
from ..ir import (
    DTYPES,
    Axis,
    Buffer,
    Expr,
    Extern,
    Kernel,
    Load,
    Loops,
    Program,
    Store,
    contiguous,
    loads,
)
from ..target import Caps
from .nests import is_contraction, map_leaves, product_factors, substitute, unit_of

READ_AGAIN = 64 << 20  # bytes that taps read, from which two kernels may be faster than one
# along a row that a kernel sums: so many rows less one of a block are made again (not timed)
MOST_TAPS = 16
PART = 4  # reads of an operand that writing and reading a part's element is worth


@dataclass(frozen=True)
class Row:
    """Taps along a row: `x` is read at `axis` + `tap` + `shift`, which is `extent` long."""

    axis: Axis
    tap: Axis
    shift: int
    extent: int
    outputs: int  # results of each point


def split_taps(program: Program, caps: Caps) -> Program:
    """The equation above as two kernels, for each contraction that gains by it, but for those of
    which a walk makes one."""
    buffers = dict(program.buffers)
    kernels: list = []
    for k in program.kernels:
        row = row_of(buffers, k.body[0]) if isinstance(k, Kernel) else None
        if isinstance(k, Extern) or row is None or summed_inside(k.body[0], row, caps):
            kernels.append(k)
            continue
        name = f"{k.body[0].stores[0].buffers[0]}_parts"
        first, second = split(k.body[0], row, name, buffers)
        kernels += [replace(k, name=name, body=(first,)), replace(k, body=(second,))]
    return replace(program, buffers=buffers, kernels=tuple(kernels))


def summed_inside(nest: Loops, row: Row, caps: Caps) -> bool:
    """Whether a kernel of products is to sum the taps of its parts itself: there is a row of parts
    for each point, which has a power of two of outputs, and all taps' columns are one block's."""
    block = row.outputs << (row.tap.extent - 1).bit_length()
    same = row.axis.extent == row.extent and 0 <= -row.shift < row.tap.extent <= MOST_TAPS
    (store,) = nest.stores
    factors = product_factors(store.values[0])
    rounded = factors is not None and unit_of(factors) != "ieee"
    fewest, most = caps.taps_columns
    return same and rounded and fewest <= block <= most and not row.outputs & (row.outputs - 1)


def row_of(buffers: Mapping[str, Buffer], nest: Loops) -> Row | None:
    """The taps that a contraction gains by summing afterwards, if it has some."""
    if not is_contraction(nest) or nest.binds or nest.stores[0].mask:
        return None
    (store,) = nest.stores
    assert store.reduce is not None
    if store.reduce.acc_dtype != "f32" or len(store.buffers) != 1:
        return None
    if any(type(a.extent) is not int for a in nest.axes):
        return None
    found = [r for r in map(lambda e: _along(buffers, nest, e), loads(nest)) if r is not None]
    if len(found) != 1:
        return None
    (row,) = found
    touching = [e for e in loads(nest) if row.axis.symbol in _symbols(e)]
    if len(touching) != 1:  # the operand, and nothing else, depends on the place in a row
        return None
    (operand,) = touching
    terms = prod(a.extent for a in nest.reduce_axes)
    rows = prod(a.extent for a in nest.axes if a.kind == "parallel") // row.outputs
    again = terms - terms // row.tap.extent  # reads of the operand that are saved, for each point
    columns = row.tap.extent * row.outputs
    size = DTYPES[operand.dtype][0]
    gains = again > PART * columns and rows * terms * size >= READ_AGAIN
    return row if gains else None


def _along(buffers: Mapping[str, Buffer], nest: Loops, e: Load) -> Row | None:
    """The taps along the innermost row of an operand, if they move by one."""
    b = buffers[e.buffer]
    for i, n in zip(e.index, b.shape, strict=True):
        if len(i.symbols) != 2 or not all(i.is_affine_in(s) for s in i.symbols):
            continue
        axes = [nest.axis(s) for s in sorted(i.symbols)]
        parallel = [a for a in axes if a.kind == "parallel"]
        taps = [a for a in axes if a.kind == "reduce"]
        if len(parallel) != 1 or len(taps) != 1 or any(i.coefficient(a.symbol) != 1 for a in axes):
            continue
        inner = [s for s, m in zip(b.strides, b.shape, strict=True) if m > 1]
        dense = sorted(s for s in inner if s > 1)  # channels are innermost, then the row
        if dense and b.strides[list(e.index).index(i)] == dense[0] and type(n) is int:
            others = (a for a in nest.axes if a.kind == "parallel" and a.symbol not in _symbols(e))
            return Row(parallel[0], taps[0], i.const, n, prod(a.extent for a in others))
    return None


def _symbols(e: Load) -> set[str]:
    return {s for i in (*e.index, *e.mask) for s in i.symbols}


def _unmasked(e: Expr, ranges: Mapping[str, Range]) -> Expr:
    """A load without conditions that always hold."""
    if not isinstance(e, Load):
        return e
    mask = tuple(m for m in e.mask if m.bounds(ranges)[0] < 0)
    return Load(e.buffer, e.index, e.dtype, mask, e.other if mask else None)


def split(
    nest: Loops, row: Row, name: str, buffers: dict[str, Buffer], scope: str = "arena"
) -> tuple[Loops, Loops]:
    """The nest as two: parts of the taps along the row, in a new buffer of that name and scope, and
    their sum."""
    (store,) = nest.stores
    assert store.reduce is not None
    place = Index.of(row.axis.symbol) + Index.of(row.tap.symbol) + row.shift
    others = [a for a in nest.axes if a.kind == "parallel" and a.symbol != row.axis.symbol]
    operand = next(e for e in loads(nest) if row.axis.symbol in _symbols(e))
    rows = [a for a in others if a.symbol in _symbols(operand)]
    outputs = [a for a in others if a not in rows]
    along = Axis(row.axis.symbol, row.extent)
    tap = replace(row.tap, kind="parallel")
    dims = [*rows, along, tap, *outputs]
    shape = tuple(a.extent for a in dims)
    buffers[name] = Buffer(name, "f32", shape, contiguous(shape), scope=scope)
    index = tuple(Index.of(a.symbol) for a in dims)
    left = tuple(a for a in nest.reduce_axes if a is not row.tap)
    there = Index.of(row.axis.symbol) - Index.of(row.tap.symbol) - row.shift
    moved = map_leaves(substitute(nest, {row.axis.symbol: there}, (*dims, *left)), _unmasked)
    parts = Store((name,), index, moved.stores[0].values, reduce=replace(store.reduce, init=None))
    first = Loops((*dims, *left), (parts,))
    inside = (place, row.extent - 1 - place)
    at = tuple(place if a is along else Index.of(a.symbol) for a in dims)
    ranges = {a.symbol: (0, a.extent - 1) for a in nest.axes}
    mask = tuple(m for m in inside if m.bounds(ranges)[0] < 0)
    part = Load(name, at, "f32", mask, 0.0 if mask else None)
    axes = (*(a for a in nest.axes if a.kind == "parallel"), row.tap)
    return first, Loops(axes, (replace(store, values=(part,)),))

"""Reductions over much memory: several that read the same become one sweep, and a sweep is cut.

  s = sum x; q = sum x*x           ==>  one nest, two sums
  s[c] = sum over n, h, w of x     ==>  p[n, h, c] = sum over w of x;  s[c] = sum over n, h of p

A part is what fits in cache, whatever the number of threads: results have the same bits everywhere.
What is computed is unchanged but for the order of summation.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ..affine import Index
from ..ir import (
    DTYPES,
    Axis,
    Buffer,
    Extern,
    Kernel,
    Load,
    Loops,
    Program,
    Reduce,
    Store,
    contiguous,
    loads,
    read,
    written,
)
from ..target import Caps
from .inline import merge_origins
from .nests import bytes_read, dimensions, is_contraction, scans, substitute

POINTS = 1 << 18  # below it, a sweep is too short to cut
PARTIAL = 8  # partial results take at most this share of the memory that is read
# Parts of columns for each that is read at once where it is all there is: 16 parts took 7.1 us, 8
# took 8.9 and 4 took 9.4 (a norm's gradient in bfloat16 on an H100: RESULTS, 2026-11-27 23:45).
FINER = 4
MONOIDS = ("sum", "prod", "max", "min", "any", "all")


def merge_siblings(program: Program) -> Program:
    """Reductions with the same axes over a common buffer become one nest of several stores."""
    kernels: list[Kernel | Extern] = []
    home: dict[str, int] = {}  # memory -> position of the step that wrote it last
    open_: dict[tuple, int] = {}  # what siblings have in common -> position of the first
    for k in program.kernels:
        key = _family(program, k)
        place = open_.get(key) if key is not None else None
        if place is not None and isinstance(k, Kernel):
            first = kernels[place]
            assert isinstance(first, Kernel)
            after = max((home.get(program.base(b).name, -1) for b in read(k)), default=-1)
            if after < place and _share(first, k):
                kernels[place] = _merged(first, k)
                for b in written(k):
                    home[program.base(b).name] = max(home.get(program.base(b).name, place), place)
                continue
        if key is not None:
            open_[key] = len(kernels)
        home.update((program.base(b).name, len(kernels)) for b in written(k))
        kernels.append(k)
    return replace(program, kernels=tuple(kernels))


def _family(program: Program, k: Kernel | Extern) -> tuple | None:
    """What reductions must have in common to be one nest."""
    if isinstance(k, Extern) or not _is_plain(k):
        return None
    (nest,) = k.body
    if prod(a.extent for a in nest.axes) < POINTS:
        return None
    names = {a.symbol: str(i) for i, a in enumerate(nest.axes)}
    index = tuple(i.subst(names) for s in nest.stores for i in s.index)
    return tuple((a.extent, a.kind) for a in nest.axes), index[: len(nest.stores[0].index)]


def _is_plain(k: Kernel) -> bool:
    """A reduction by associative monoids, stored axis by axis, with no indirect address."""
    (nest,) = k.body
    simple = all(s.reduce and s.reduce.monoid in MONOIDS and not s.mask for s in nest.stores)
    return (
        simple
        and not nest.binds
        and not scans(nest)
        and not is_contraction(nest)
        and dimensions(nest) is not None
    )


def _share(a: Kernel, b: Kernel) -> bool:
    """Whether two nests read some buffer at the same points."""
    one, other = a.body[0], b.body[0]
    names = {y.symbol: Index.of(x.symbol) for x, y in zip(one.axes, other.axes, strict=True)}
    there = {(e.buffer, e.index) for e in loads(one) if e.index}
    return any((e.buffer, tuple(i.subst(names) for i in e.index)) in there for e in loads(other))


def _merged(a: Kernel, b: Kernel) -> Kernel:
    one, other = a.body[0], b.body[0]
    names = {y.symbol: x.symbol for x, y in zip(one.axes, other.axes, strict=True)}
    other = substitute(other, names, one.axes)
    nest = replace(one, stores=(*one.stores, *other.stores))
    return replace(a, body=(nest,), origin=merge_origins(a.origin, b.origin))


def split_reductions(program: Program, caps: Caps) -> Program:
    """Cut long sweeps into parts with results of their own, which a second nest combines."""
    buffers = dict(program.buffers)
    kernels: list[Kernel | Extern] = []
    for k in program.kernels:
        kernels += [k] if isinstance(k, Extern) else _split(buffers, k, caps)
    return replace(program, buffers=buffers, kernels=tuple(kernels))


def _split(buffers: dict[str, Buffer], k: Kernel, caps: Caps) -> list[Kernel]:
    (nest,) = k.body
    points = prod(a.extent for a in nest.axes)
    if points < POINTS or not _is_plain(k):
        return [k]
    size = bytes_read(nest)
    results = prod(a.extent for a in nest.axes if a.kind == "parallel")
    columns = _beside(buffers, nest)
    if caps.part_columns:
        enough = caps.cores if columns == 1 else caps.rows
        if (apart := results // min(columns, caps.part_columns)) >= enough:
            return [k]
        most = caps.part_bytes if columns == 1 else caps.column_bytes
        most *= -(-columns // caps.part_columns)
        parts = size // most
        if columns > 1:  # few are one program's; of many, no more than are under way at once
            parts = min(parts * FINER, -(-enough // max(apart, 1))) if parts > 1 else 1
        nest, moved, parts = _shared_out(nest, parts)
    else:
        address = buffers[nest.stores[0].buffers[0]].address(nest.stores[0].index)
        beside = [a.extent for a in nest.axes if address.coefficient(a.symbol) == 1]
        row = columns == len(nest.reduce_axes) == 1 and size // max(results, 1) <= caps.part_bytes
        if (row and results >= caps.rows) or results // max([1, *beside]) >= caps.rows:
            return [k]  # a row by itself is no more than a part
        nest, moved, parts = _cut(nest, size, caps.part_bytes)
    bytes_of_one = max(DTYPES[s.reduce.acc_dtype][0] for s in nest.stores if s.reduce)
    if parts < 2 or parts * results * bytes_of_one * len(nest.stores) * PARTIAL > size:
        return [k]
    partial: list[Store] = []
    combined: list[Store] = []
    place = tuple(Index.of(a.symbol) for a in moved)
    for s in nest.stores:
        assert s.reduce is not None
        old = buffers[s.buffers[0]]
        shape = (*(a.extent for a in moved), *old.shape)
        name = f"{old.name}_parts"
        buffers[name] = Buffer(name, s.reduce.acc_dtype, shape, contiguous(shape))
        partial.append(
            replace(
                s, buffers=(name,), index=(*place, *s.index), reduce=replace(s.reduce, init=None)
            )
        )
        value = Load(name, (*place, *s.index), s.reduce.acc_dtype)
        total = Reduce(s.reduce.monoid, s.reduce.acc_dtype, s.reduce.init)
        combined.append(Store(s.buffers, s.index, (value,), (), total))
    axes = [a for a in nest.axes if a.kind == "parallel" and a not in moved]
    axes += [replace(a, kind="reduce") for a in moved]
    first = Kernel(f"{k.name}_parts", (replace(nest, stores=tuple(partial)),), origin=k.origin)
    return [first, Kernel(k.name, (Loops(tuple(axes), tuple(combined)),), origin=k.origin)]


def _beside(buffers: dict[str, Buffer], nest: Loops) -> int:
    """How many results are of elements that lie side by side in memory."""
    reduced = {a.symbol for a in nest.reduce_axes}
    addresses = [buffers[e.buffer].address(e.index) for e in loads(nest)]
    addresses = [i for i in addresses if i.symbols & reduced]
    found = (
        a.extent
        for a in nest.axes
        if a.kind == "parallel" and any(i.coefficient(a.symbol) == 1 for i in addresses)
    )
    return max(found, default=1)


def _shared_out(nest: Loops, parts: int) -> tuple[Loops, list[Axis], int]:
    """The nest with its outer reduce axes parallel, the last of them in pieces, so that there are
    about so many parts; those axes, and the number of parts."""
    moved: list[Axis] = []
    axes = list(nest.axes)
    for a in nest.reduce_axes:
        if parts < 2:
            break
        n = max(d for d in range(1, min(parts, a.extent) + 1) if a.extent % d == 0)
        if 2 * n < parts:  # too few: some more than were asked for are better
            more = range(parts + 1, min(2 * parts, a.extent) + 1)
            n = next((d for d in more if a.extent % d == 0), n)
        parts = -(-parts // n)
        at = [x.symbol for x in axes].index(a.symbol)
        if n == a.extent:
            axes[at] = replace(a, kind="parallel")
            moved.append(axes[at])
        elif n > 1:
            nest, pieces = _in_pieces(replace(nest, axes=tuple(axes)), a, a.extent // n)
            axes = list(nest.axes)
            moved.append(pieces)
            break
    axes.sort(key=lambda a: (a not in moved, a.kind == "reduce"))
    return replace(nest, axes=tuple(axes)), moved, prod(a.extent for a in moved)


def _in_pieces(nest: Loops, a: Axis, piece: int) -> tuple[Loops, Axis]:
    """A reduce axis as two: pieces, which are parallel, and what is in a piece."""
    outer = Axis(f"{a.symbol}_part", a.extent // piece)
    inner = Axis(f"{a.symbol}_in", piece, "reduce")
    at = [x.symbol for x in nest.axes].index(a.symbol)
    axes = (*nest.axes[:at], outer, inner, *nest.axes[at + 1 :])
    point = Index({outer.symbol: piece, inner.symbol: 1})
    return substitute(nest, {a.symbol: point}, axes), outer


def _cut(nest: Loops, size: int, most_bytes: int) -> tuple[Loops, list[Axis], int]:
    """The nest with its outer reduce axes parallel, as many as make parts of at most `most_bytes`;
    those axes, and the number of parts."""
    moved: list[Axis] = []
    left = [a for a in nest.axes if a.kind == "reduce"]
    part = size
    while len(left) > 1 and part > most_bytes:
        axis = replace(left.pop(0), kind="parallel")
        part //= max(axis.extent, 1)
        moved.append(axis)
    axes = [next((m for m in moved if m.symbol == a.symbol), a) for a in nest.axes]
    if part > most_bytes and left:
        last = left[0]
        most = max(last.extent * most_bytes // part, 1)
        piece = max(d for d in range(1, most + 1) if last.extent % d == 0)
        if piece * 4 > most and piece < last.extent:
            nest, pieces = _in_pieces(replace(nest, axes=tuple(axes)), last, piece)
            axes = list(nest.axes)
            moved.append(pieces)
    axes.sort(key=lambda a: (a not in moved, a.kind == "reduce"))
    return replace(nest, axes=tuple(axes)), moved, prod(a.extent for a in moved)

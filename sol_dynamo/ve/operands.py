"""The operands of a tile in the order of its walk: where they lie already, or as copies.

The scalars' operand is laid out in blocks, or by rows as it lies; the vectors' is read in place,
from planes with zeros around (one for each phase of a stride, so that each tap is a constant
offset), or laid out in blocks, too. Weights are laid out once, by `Plan.packs`; all else by a copy
before the kernel. Knows nothing of tiles' sizes but what it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ..affine import Index
from ..ir import (
    Axis,
    Buffer,
    Expr,
    Iota,
    Kernel,
    Load,
    Loops,
    Store,
    contiguous,
    rewrite,
    walk,
)
from ..schedule.nests import expr_symbols
from ..schedule.plan import Plan
from .emit_dense import LINE
from .stage import stage_cost, stage_kernel

MOST_TAPS = 64  # steps that are written out


@dataclass(frozen=True)
class Operand:
    """One factor, how its address moves and what must be copied before the walk."""

    load: Load
    before: tuple[Kernel, ...] = ()
    buffers: tuple[Buffer, ...] = ()
    pack: Loops | None = None
    key: Any = None  # under which others find what is packed
    cost: float = 0.0


@dataclass(frozen=True)
class Vectors:
    """How the vectors' operand is walked: elements of a plane, axes of the sum in a loop, and those
    that are written out."""

    elements: int
    deep: tuple[Axis, ...]
    taps: tuple[Axis, ...]
    operand: Operand | None  # None: it is to be laid out in blocks of the tile's size


def all_symbols(e: Expr) -> set[str]:
    found = set(expr_symbols(e))
    for x in walk(e):
        if isinstance(x, Load):
            found.update(s for m in x.mask for s in m.symbols)
    return found


def together(axes: Sequence[Axis], addresses: Sequence[Index]) -> list[Axis]:
    """The innermost of the axes that are one axis in all addresses."""
    kept: list[Axis] = []
    for a in reversed(axes):
        if not all(x.is_affine_in(a.symbol) for x in addresses):
            break
        if kept:
            inner = kept[0]
            if not all(
                x.coefficient(a.symbol) == x.coefficient(inner.symbol) * inner.extent
                for x in addresses
            ):
                break
        kept.insert(0, a)
    return kept


def vector_operand(
    plan: Plan,
    e: Expr,
    pairs: bool,
    batch: tuple[Axis, ...],
    vs: tuple[Axis, ...],
    ks: tuple[Axis, ...],
) -> Vectors | None:
    """What is read in place where that is possible, else from planes, else from a copy."""
    if isinstance(e, Load) and not e.mask and not plan.moves(e.buffer):
        address = plan.address(e.buffer, e.index)
        whole = len(together(vs, [address])) == len(vs)
        if whole and address.coefficient(vs[-1].symbol) == 1 and _affine(address, batch, ks):
            cut = _deep_and_taps(address, ks)
            if cut is not None and (pairs or _even(plan, e, address, (*batch, *ks))):
                return Vectors(prod(a.extent for a in vs), *cut, Operand(e))
    if not pairs:
        return Vectors(prod(a.extent for a in vs), ks, (), None)
    weight = isinstance(e, Load) and plan.buffers[e.buffer].scope == "weight"
    if isinstance(e, Load) and e.other in (None, 0.0) and not weight:
        found = planes(plan, e, batch, vs, ks)
        if found is not None:
            return found
    points = prod(a.extent for a in vs)
    return Vectors(points, ks, (), ordered(plan, e, batch, vs, ks, (), points, False, "columns"))


def _affine(address: Index, *axes: tuple[Axis, ...]) -> bool:
    return all(address.is_affine_in(a.symbol) for group in axes for a in group)


def _even(plan: Plan, e: Load, address: Index, others: tuple[Axis, ...]) -> bool:
    """Whether pairs of neighbours are aligned to 8 bytes in memory that we place."""
    b = plan.buffers[e.buffer]
    base = plan.buffers[b.base or b.name]
    placed = base.scope in ("arena", "output", "saved")
    return (
        placed
        and address.const % 2 == 0
        and all(address.coefficient(a.symbol) % 2 == 0 for a in others)
    )


def _deep_and_taps(
    address: Index, ks: tuple[Axis, ...]
) -> tuple[tuple[Axis, ...], tuple[Axis, ...]] | None:
    axes = tuple(sorted(ks, key=lambda a: -abs(address.coefficient(a.symbol))))
    if len(together(axes, [address])) == len(axes):
        return axes, ()
    deep = max(axes, key=lambda a: a.extent)
    taps = tuple(a for a in axes if a is not deep)
    return ((deep,), taps) if prod(a.extent for a in taps) <= MOST_TAPS else None


def ordered(
    plan: Plan,
    e: Expr,
    batch: tuple[Axis, ...],
    own: tuple[Axis, ...],
    deep: tuple[Axis, ...],
    taps: tuple[Axis, ...],
    width: int,
    twice: bool,
    what: str,
) -> Operand:
    """e[batch, own, k]  ==>  laid[batch, own // width, k, own % width], and perhaps both halves of
    64 bits; once for weights, else at each call. `deep` are one loop, in which addresses grow
    evenly: where e knows some of these axes, the copy has all of them."""
    n = prod(a.extent for a in own)
    count = -(-n // width)
    used = all_symbols(e)
    groups = tuple(a for a in batch if a.symbol in used)
    along = tuple(a for a in taps if a.symbol in used)
    if any(a.symbol in used for a in deep):
        along = (*deep, *along)
    if what == "scalars" and _in_rows(plan, e, own, along):
        return _rows(plan, e, groups, own, along, twice)
    block, lane = Axis("block", count), Axis("lane", width)
    point = Index.of("block") * width + Index.of("lane")
    values = _unflatten(point, own)
    mask = _inside(values, own) if n % width else ()
    plain = isinstance(e, Load) and plan.buffers[e.buffer].scope == "weight" and len(own) == 1
    axes = tuple(replace(a, kind="parallel") for a in (*groups, block, *along, lane))
    if twice:
        axes = (*axes, Axis("half", 2))
    shape = tuple(a.extent for a in axes)
    value = _at(e, values, mask)
    place = tuple(Index.of(a.symbol) for a in axes)
    flat = _flat(own)
    index = tuple(
        flat // width if a is block else flat % width if a.symbol == "lane"
        else Index() if a.symbol == "half" else Index.of(a.symbol)
        for a in (*groups, block, *along, lane, *axes[len(groups) + len(along) + 2 :])
    )  # fmt: skip
    key: Any = (e, ("laid", axes, mask))
    once = plain and _all_affine(e)
    scope = "weight" if once else "arena"
    name = plan.packed.get(key)
    known = name is not None
    if name is None:
        name = f"{plan.kernel.name}_{what}"
    buffer = Buffer(name, "f32", shape, contiguous(shape), scope=scope)
    load = Load(name, index, "f32")
    if known:
        return Operand(load)
    store = Store((name,), place, (value,))
    if once:
        return Operand(load, buffers=(buffer,), pack=Loops(axes, (store,)), key=key)
    kernel = stage_kernel(plan, Loops(axes, (store,)), twice)
    return Operand(load, (kernel,), (buffer,), cost=stage_cost(kernel))


def _in_rows(plan: Plan, e: Expr, own: tuple[Axis, ...], ks: tuple[Axis, ...]) -> bool:
    """Whether an operand of this call lies along the sum's axes: as a matrix by rows."""
    if not isinstance(e, Load) or e.mask or plan.buffers[e.buffer].scope == "weight":
        return False
    address = plan.address(e.buffer, e.index)
    apart = not own or abs(address.coefficient(own[-1].symbol)) > 1
    along = len(together(ks, [address])) == len(ks) > 0
    return apart and along and address.coefficient(ks[-1].symbol) == 1 and _affine(address, own)


def _rows(
    plan: Plan,
    e: Expr,
    groups: tuple[Axis, ...],
    own: tuple[Axis, ...],
    ks: tuple[Axis, ...],
    twice: bool,
) -> Operand:
    """e[batch, own, k]  ==>  laid[batch, own // 2, k, own % 2], or with both halves of 64 bits: as
    it lies. Rows are an odd number of lines apart: a tile's are in different sets of the cache."""
    n, depth = prod(a.extent for a in own), prod(a.extent for a in ks)
    pitch = (-(-depth // LINE) | 1) * LINE
    row = Axis("row", n if twice else -(-n // 2))
    term, half = Axis("term", pitch), Axis("half", 2)
    point = Index.of("row") if twice else Index({"row": 2, "half": 1})
    values = _unflatten(point, own)
    mask = () if twice or n % 2 == 0 else _inside(values, own)
    mask += (depth - 1 - Index.of("term"),) if pitch > depth else ()
    axes = tuple(replace(a, kind="parallel") for a in (*groups, row, term, half))
    value = _at(e, values | _unflatten(Index.of("term"), ks), mask)
    name = f"{plan.kernel.name}_scalars"
    shape = tuple(a.extent for a in axes)
    buffer = Buffer(name, "f32", shape, contiguous(shape))
    store = Store((name,), tuple(Index.of(a.symbol) for a in axes), (value,))
    flat = _flat(own)
    place = (flat, _flat(ks), Index()) if twice else (flat // 2, _flat(ks), flat % 2)
    load = Load(name, (*(Index.of(a.symbol) for a in groups), *place), "f32")
    kernel = stage_kernel(plan, Loops(axes, (store,)), twice)
    return Operand(load, (kernel,), (buffer,), cost=stage_cost(kernel))


def _all_affine(e: Expr) -> bool:
    return isinstance(e, Load) and all(
        isinstance(atom, str) for i in e.index for atom, _ in i.terms
    )


def _flat(axes: Sequence[Axis]) -> Index:
    flat = Index()
    for a in axes:
        flat = flat * a.extent + Index.of(a.symbol)
    return flat


def _unflatten(point: Index, axes: Sequence[Axis]) -> dict[str, Index]:
    values: dict[str, Index] = {}
    step = prod(a.extent for a in axes)
    for n, a in enumerate(axes):
        step //= a.extent
        values[a.symbol] = point // step if n == 0 else (point // step) % a.extent
    return values


def _inside(values: dict[str, Index], axes: Sequence[Axis]) -> tuple[Index]:
    """The mask of points that are no more than there are, in terms of the outermost axis: what
    follows from it for an address that this axis is in can be seen."""
    return (axes[0].extent - 1 - values[axes[0].symbol],)


def _at(e: Expr, values: dict[str, Index], mask: tuple[Index, ...]) -> Expr:
    """An expression at other points; where a mask fails its loads are 0."""

    def leaf(x: Expr) -> Expr:
        if isinstance(x, Load):
            index = tuple(i.subst(values) for i in x.index)
            masks = (*(m.subst(values) for m in x.mask), *mask)
            other = (0.0 if x.other is None else x.other) if masks else None
            return Load(x.buffer, index, x.dtype, masks, other)
        return Iota(x.index.subst(values), x.dtype) if isinstance(x, Iota) else x

    return rewrite(e, leaf)


def planes(
    plan: Plan,
    e: Load,
    batch: tuple[Axis, ...],
    vs: tuple[Axis, ...],
    ks: tuple[Axis, ...],
    two: Axis | None = None,
) -> Vectors | None:
    """x[.., a*s + k*d - pad, ..] where that is inside  ==>  planes[.., phase, a + (k*d) // s, ..]
    with zeros around; the rows of a plane lie at one pitch. Neighbours along `two` are the halves
    of an element."""
    if plan.buffers[e.buffer].dtype != "f32":
        return None
    shape = plan.buffers[e.buffer].shape
    of_axis = {a.symbol: a for a in (*vs, *ks, *batch)}
    spatial: list[tuple[int, Axis, int, Index, int]] = []  # dimension, axis, stride, taps, least
    tapped: set[str] = set()
    bounds: set[Index] = set()
    ranges = {a.symbol: (0, a.extent - 1) for a in of_axis.values()}
    for d, i in enumerate(e.index):
        mine = [a for a in vs if a.symbol in i.symbols]
        if not mine:
            continue
        if len(mine) > 1 or not i.is_affine_in(mine[0].symbol):
            return None
        stride = i.coefficient(mine[0].symbol)
        taps = i - Index.of(mine[0].symbol) * stride
        if stride <= 0 or not all(isinstance(t, str) for t, _ in taps.terms):
            return None
        if not taps.symbols <= {a.symbol for a in ks} or taps.symbols & tapped:
            return None
        tapped |= taps.symbols
        low = taps.bounds(ranges)[0]
        spatial.append((d, mine[0], stride, taps - low, low))
        bounds |= {i, shape[d] - 1 - i}
    if [x[1] for x in spatial] != list(vs) or not set(e.mask) <= bounds:
        return None
    others = {
        s for d, i in enumerate(e.index) if d not in {x[0] for x in spatial} for s in i.symbols
    }
    if others & tapped:
        return None
    taps_axes = tuple(a for a in ks if a.symbol in tapped)
    if prod(a.extent for a in taps_axes) > MOST_TAPS:
        return None
    deep = tuple(a for a in ks if a.symbol not in tapped)
    if len({a.symbol in others for a in deep}) > 1:  # no one loop
        return None
    phases, rows = [], []
    for n, (_, a, stride, t, _) in enumerate(spatial):
        most = t.bounds(ranges)[1]
        phases.append(Axis(f"phase{n}", min(stride, most + 1)))
        rows.append(a.extent + most // stride + (n == 0))
    # the columns behind a row are those before the next one, where all of them are zeros
    d, a, stride, t, low = spatial[-1]
    wide, size = a.extent + t.bounds(ranges)[1], shape[d]
    shared = wide - (size - low)
    if stride == 1 and len(spatial) > 1 and 0 < shared <= -low and a.extent <= size - low:
        rows[-1] = size - low
    groups = tuple(x for x in (*batch, *deep) if x.symbol in others)
    if two is not None:
        pair = Axis("pair", -(-two.extent // 2))
        groups = tuple(pair if x is two else x for x in groups)
    lines = [Axis(f"line{n}", r) for n, r in enumerate(rows)]
    halves = () if two is None else (Axis("half", 2),)
    axes = tuple(replace(x, kind="parallel") for x in (*groups, *phases, *lines, *halves))
    index, mask = list(e.index), []
    if two is not None:
        channel = Index({"pair": 2, "half": 1})
        index = [i.subst({two.symbol: channel}) for i in index]
        mask += [two.extent - 1 - channel] if two.extent % 2 else []
    spans = {x.symbol: (0, x.extent - 1) for x in axes}
    for n, (d, _, stride, _, low) in enumerate(spatial):
        p = Index.of(f"line{n}") * stride + Index.of(f"phase{n}") + low
        index[d] = p
        lo, hi = p.bounds(spans)
        mask += ([p] if lo < 0 else []) + ([shape[d] - 1 - p] if hi >= shape[d] else [])
    extents = tuple(x.extent for x in axes)
    strides = contiguous(extents)
    name = f"{plan.kernel.name}_planes"
    buffer = Buffer(name, "f32", extents, strides)
    flat = replace(buffer, name=f"{name}_flat", shape=(prod(extents),), strides=(1,), base=name)
    place = Index()
    for x, step in zip(axes, strides, strict=True):
        if x in phases:
            _, _, stride, t, _ = spatial[phases.index(x)]
            place = place + (t % stride) * step
        elif x in lines:
            _, a, stride, t, _ = spatial[lines.index(x)]
            place = place + (Index.of(a.symbol) + t // stride) * step
        elif two is not None and x.symbol == "pair":
            place = place + Index.of(two.symbol) // 2 * step
        elif two is not None and x.symbol == "half":
            place = place + Index.of(two.symbol) % 2
        else:
            place = place + Index.of(x.symbol) * step
    place = place.simplify(ranges)
    other = 0.0 if e.other is None else e.other
    value = Load(e.buffer, tuple(index), "f32", tuple(mask), other)
    store = Store((name,), tuple(Index.of(x.symbol) for x in axes), (value,))
    kernel = stage_kernel(plan, Loops(axes, (store,)), False)
    span = {a.symbol: strides[len(groups) + len(phases) + n] for n, a in enumerate(vs)}
    elements = 1 + sum((a.extent - 1) * span[a.symbol] for a in vs) // (1 if two is None else 2)
    operand = Operand(
        Load(flat.name, (place,), "f32"), (kernel,), (buffer, flat), cost=stage_cost(kernel)
    )
    return Vectors(elements, deep, taps_axes, operand)

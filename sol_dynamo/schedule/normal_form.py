"""Each kernel in normal form, which every schedule builds on.

The last nest is pointwise; nests name their common axes alike; axes of extent 1 are gone; axes that
lie next to each other in every address are one; a shuffled reduction is an order of two axes.
What is computed is unchanged.
"""

from __future__ import annotations

from dataclasses import replace

from ..affine import Index
from ..ir import (
    Axis,
    Buffer,
    Expr,
    Iota,
    Kernel,
    Load,
    Loops,
    Op,
    Store,
    contiguous,
    expressions,
    loads,
    walk,
)
from .nests import drop_unit_axes, map_leaves, split_of, substitute
from .plan import Plan, scan_axis


def normalize(plan: Plan) -> None:
    """The last nest is pointwise, rows have the same axis names in every nest, axes of extent 1
    are constants, and neighbouring axes are fused."""
    k = plan.kernel
    if any(s.reduce for s in k.body[-1].stores) and not scan_axis(k.body[-1]):
        k = _with_root(plan, k)
    k = replace(k, body=tuple(drop_unit_axes(n) for n in k.body))
    k = replace(k, body=tuple(_split_reduce_axes(flatten(plan, n)) for n in k.body))
    k = _unify(plan, k)
    k = _collapse(plan, k)
    k = replace(k, body=tuple(_collapse_reduce(plan, n) for n in k.body))
    plan.kernel = replace(k, body=tuple(flatten(plan, n) for n in k.body))


def _with_root(plan: Plan, k: Kernel) -> Kernel:
    """out[i] sum= ...  ==>  acc[i] sum= ...; out[i] = acc[i]"""
    nest = k.body[-1]
    stores, copies = [], []
    for s in nest.stores:
        if not s.reduce:
            stores.append(s)
            continue
        names = []
        for b in s.buffers:
            old = plan.buffers[b]
            acc = replace(
                old,
                name=f"{b}_acc",
                base=None,
                offset=0,
                scope="local",
                dtype=s.reduce.acc_dtype
                if old.dtype != "i64" or len(s.buffers) == 1
                else old.dtype,
                strides=contiguous(old.shape),
            )
            plan.buffers[acc.name] = acc
            names.append(acc.name)
            value: Expr = Load(acc.name, s.index, acc.dtype)
            if acc.dtype != old.dtype:
                value = Op("cast", (value,), old.dtype)
            copies.append(Store((b,), s.index, (value,)))
        stores.append(replace(s, buffers=tuple(names)))
    used = {x for s in copies for i in s.index for x in i.symbols}
    root = Loops(tuple(a for a in nest.axes if a.symbol in used), tuple(copies))
    return replace(k, body=(*k.body[:-1], replace(nest, stores=tuple(stores)), root))


def _split_reduce_axes(nest: Loops) -> Loops:
    """x[k % 2 * 24 + k // 2] over k  ==>  x[k0 * 24 + k1] over k0, k1: a shuffle is an order."""
    for a in nest.reduce_axes:
        divisors = {
            atom.divisor
            for e in loads(nest)
            for i in e.index
            for atom, _ in i.terms
            if not isinstance(atom, str) and split_of(atom) == a.symbol
        }
        d = min(divisors, default=1)
        if d <= 1 or a.extent % d:
            continue
        outer, inner = (
            Axis(f"{a.symbol}_mod", d, "reduce"),
            Axis(f"{a.symbol}_div", a.extent // d, "reduce"),
        )
        at = [x.symbol for x in nest.axes].index(a.symbol)
        axes = (*nest.axes[:at], outer, inner, *nest.axes[at + 1 :])
        point = Index({inner.symbol: d, outer.symbol: 1})
        nest = substitute(nest, {a.symbol: point}, axes)
        ranges = {x.symbol: (0, x.extent - 1) for x in axes}

        def leaf(e: Expr, _, ranges=ranges) -> Expr:
            if not isinstance(e, Load):
                return e
            return Load(
                e.buffer, tuple(i.simplify(ranges) for i in e.index), e.dtype, e.mask, e.other
            )

        nest = map_leaves(nest, leaf)
    return nest


def _unify(plan: Plan, k: Kernel) -> Kernel:
    """Rename every nest's output axes as the root's of the same dimension and extent, others apart:
    a nest that nobody reads is walked with the root's axes of the same names."""
    root = k.body[-1]
    extents = {a.symbol: a.extent for a in root.axes}
    names = [next(iter(i.symbols)) if i.symbols else None for i in root.stores[0].index]
    plain = all(
        i.is_const or i == Index.of(n) for i, n in zip(root.stores[0].index, names, strict=True)
    )
    body = []
    for n, nest in enumerate(k.body[:-1]):
        index = nest.stores[0].index
        new: dict[str, str] = {}
        if plain and len(index) == len(names):
            for i, name in zip(index, names, strict=True):
                axis = nest.axis(next(iter(i.symbols))) if i.symbols else None
                if name and axis and i == Index.of(axis.symbol) and axis.extent == extents[name]:
                    new[axis.symbol] = name
        for a in nest.axes:
            if a.symbol not in new:
                new[a.symbol] = a.symbol if len(k.body) == 2 else f"{a.symbol}_{n}"
        kept = {x for i in index for x in i.symbols if x in new}
        taken = {new[x] for x in kept}
        for x in new:
            if x not in kept and new[x] in taken:
                new[x] = f"{new[x]}_{n}"
        axes = tuple(replace(a, symbol=new[a.symbol]) for a in nest.axes)
        body.append(substitute(nest, new, axes))
    return replace(k, body=(*body, root))


def _collapse(plan: Plan, k: Kernel) -> Kernel:
    """Fuse root axes that are neighbours in every address: n, h, w of a 1x1 convolution are one."""
    root = k.body[-1]
    store = root.stores[0]
    axes = [a for a in root.axes]
    out = plan.address(store.buffers[0], store.index)
    axes.sort(key=lambda a: -out.coefficient(a.symbol))
    k = replace(k, body=(*k.body[:-1], replace(root, axes=tuple(axes))))
    n = len(axes) - 1
    while n > 0:
        outer, inner = axes[n - 1], axes[n]
        if _fusable(plan, k, outer, inner):
            k, fused = _fuse(plan, k, outer, inner)
            axes[n - 1 : n + 1] = [fused]
        n -= 1
    return k


def _collapse_reduce(plan: Plan, nest: Loops) -> Loops:
    """Fuse reduce axes that are neighbours in every address, and in the order of the sum."""
    n = len(nest.axes) - 1
    while n > 0:
        outer, inner = nest.axes[n - 1 : n + 1]
        pair = {outer.symbol, inner.symbol}
        if outer.kind == inner.kind == "reduce" and not nest.binds:
            plain = all(_moves_as_one(plan, e, outer, inner) for e in walk(*expressions(nest)))
            if plain and not any(m.symbols & pair for s in nest.stores for m in s.mask):
                fused = Axis(f"{outer.symbol}{inner.symbol}", outer.extent * inner.extent, "reduce")
                f = Index.of(fused.symbol)
                values = {outer.symbol: f // inner.extent, inner.symbol: f % inner.extent}
                nest = substitute(nest, values, (*nest.axes[: n - 1], fused, *nest.axes[n + 1 :]))
        n -= 1
    return nest


def _moves_as_one(plan: Plan, e: Expr, outer: Axis, inner: Axis) -> bool:
    """Whether two axes enter an expression's addresses only, there as neighbours."""
    pair = {outer.symbol, inner.symbol}
    if isinstance(e, Load):
        address = plan.address(e.buffer, e.index)
        local = plan.buffers[e.buffer].scope == "local" and any(i.symbols & pair for i in e.index)
        masked = any(m.symbols & pair for m in e.mask)
        return (
            not local
            and not masked
            and _proportional(address, outer.symbol, inner.symbol, inner.extent)
        )
    return isinstance(e, Op) or not hasattr(e, "index") or not e.index.symbols & pair


def _locals(plan: Plan, k: Kernel) -> set[str]:
    return {
        b for n in k.body for s in n.stores for b in s.buffers if plan.buffers[b].scope == "local"
    }


def _fusable(plan: Plan, k: Kernel, outer: Axis, inner: Axis) -> bool:
    a, b, n = outer.symbol, inner.symbol, inner.extent
    if {outer.kind, inner.kind} != {"parallel"}:
        return False
    local = _locals(plan, k)
    walked = {
        e.buffer
        for nest in k.body
        for e in loads(nest)
        if e.buffer in local and any(i.symbols & {a, b} for i in e.index)
    }
    for nest in k.body:
        touched = {e.buffer for e in loads(nest)} | {x for s in nest.stores for x in s.buffers}
        if touched & walked and not {a, b} <= {x.symbol for x in nest.axes}:
            return False
        present = {x.symbol for x in nest.axes} & {a, b}
        if len(present) == 1 or nest.binds:
            return False
        if not present:
            continue
        for e in walk(*expressions(nest)):
            if isinstance(e, Load):
                if any(m.symbols & present for m in e.mask):
                    return False
                if e.buffer in local:
                    if not _both_or_neither(e.index, a, b):
                        return False
                    continue
                if not _proportional(plan.address(e.buffer, e.index), a, b, n):
                    return False
            elif isinstance(e, Iota) and not _proportional(e.index, a, b, n):
                return False
        for s in nest.stores:
            if any(m.symbols & present for m in s.mask):
                return False
            if s.buffers[0] in local:
                if not _both_or_neither(s.index, a, b):
                    return False
            elif not all(_proportional(plan.address(x, s.index), a, b, n) for x in s.buffers):
                return False
    return True


def _both_or_neither(index, a: str, b: str) -> bool:
    plain = {
        next(iter(i.symbols)) for i in index if i.symbols and i == Index.of(next(iter(i.symbols)))
    }
    return (a in plain) == (b in plain) and all(i.is_const or i.symbols <= plain for i in index)


def _proportional(address: Index, a: str, b: str, n: int) -> bool:
    if not (address.is_affine_in(a) and address.is_affine_in(b)):
        return False
    return address.coefficient(a) == address.coefficient(b) * n


def _fuse(plan: Plan, k: Kernel, outer: Axis, inner: Axis) -> tuple[Kernel, Axis]:
    a, b, n = outer.symbol, inner.symbol, inner.extent
    fused = Axis(f"{a}{b}", outer.extent * n)
    f = Index.of(fused.symbol)
    values = {a: f // n, b: f % n}
    local = _locals(plan, k)
    merged: dict[str, tuple[int, int]] = {}
    body = []

    def drop(name: str, index: tuple[Index, ...]) -> tuple[Index, ...]:
        if not any(i == Index.of(b) for i in index):
            return index
        at = index.index(Index.of(b))
        merged[name] = (index.index(Index.of(a)), at)
        new = [f if i == Index.of(a) else i for i in index]
        del new[at]
        return tuple(new)

    for nest in k.body:
        if not {x.symbol for x in nest.axes} & {a, b}:
            body.append(nest)
            continue

        def leaf(e: Expr, _) -> Expr:
            if isinstance(e, Load) and e.buffer in local:
                return Load(e.buffer, drop(e.buffer, e.index), e.dtype, e.mask, e.other)
            return e

        nest = map_leaves(nest, leaf)
        stores = tuple(
            replace(s, index=drop(s.buffers[0], s.index)) if s.buffers[0] in local else s
            for s in nest.stores
        )
        for s in nest.stores:
            if s.buffers[0] in merged:
                merged.update(dict.fromkeys(s.buffers, merged[s.buffers[0]]))
        axes = [x for x in nest.axes if x.symbol != b]
        axes[[x.symbol for x in axes].index(a)] = fused
        body.append(substitute(replace(nest, stores=stores), values, tuple(axes)))
    for name, (kept, gone) in merged.items():
        old = plan.buffers[name]
        shape = list(old.shape)
        shape[kept] *= shape[gone]
        del shape[gone]
        plan.buffers[name] = replace(old, shape=tuple(shape), strides=contiguous(shape))
    return replace(k, body=tuple(body)), fused


def flatten(plan: Plan, nest: Loops) -> Loops:
    """x[f // 56, f % 56]  ==>  flat[f]: where the address is a plain sum, so is the index, and
    stays one when f is cut into tiles."""

    def flat(names: tuple[str, ...], index: tuple[Index, ...]) -> tuple[list[str], Index] | None:
        if all(isinstance(atom, str) for i in index for atom, _ in i.terms):
            return None
        buffers = [plan.buffers[b] for b in names]
        addresses = {b.address(index) - b.offset for b in buffers}
        address = addresses.pop()
        simple = all(isinstance(atom, str) for atom, _ in address.terms)
        if addresses or not simple or any(b.scope == "local" for b in buffers):
            return None
        return [_as_row(plan, b) for b in buffers], address

    def leaf(e: Expr, _: object) -> Expr:
        if isinstance(e, Load) and not e.mask and (found := flat((e.buffer,), e.index)):
            (name,), address = found
            return Load(name, (address,), e.dtype, e.mask, e.other)
        return e

    nest = map_leaves(nest, leaf)
    stores = []
    for s in nest.stores:
        dense = all(_span(plan.buffers[b]) == plan.buffers[b].numel for b in s.buffers)
        found = flat(s.buffers, s.index) if dense else None
        new = s if found is None else replace(s, buffers=tuple(found[0]), index=(found[1],))
        stores.append(new)
    return replace(nest, stores=tuple(stores))


def _as_row(plan: Plan, b: Buffer) -> str:
    """The memory from a buffer's first to its last element, as one row."""
    size = (_span(b),)
    row = replace(b, name=f"{b.name}_flat", shape=size, strides=(1,), base=b.base or b.name)
    return plan.buffers.setdefault(row.name, row).name


def _span(b: Buffer) -> int:
    return 1 + sum((n - 1) * s for n, s in zip(b.shape, b.strides, strict=True))

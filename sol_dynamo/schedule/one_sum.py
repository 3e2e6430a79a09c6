"""Sums of products that are added are one sum.

    a[i] = s + sum of x; b[i] = t + sum of y; out[i] = f(a[i] + b[i])
        ==>  one kernel: a[i] = sum of x; b[i] = a[i] + sum of y; out[i] = f(b[i] + t + s)

A block of a network whose shortcut is a convolution, say, or a recurrent cell's gates: what the one
makes is neither written nor read again. It is for machines whose kernels hold a block of sums in
registers, where more terms cost no more than in a kernel of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import prod

from ..affine import Index
from ..ir import (
    Buffer,
    Expr,
    Extern,
    Kernel,
    Load,
    Loops,
    Op,
    Program,
    Store,
    Work,
    children,
    expressions,
    is_op,
    read,
    subst,
    walk,
    written,
)
from .group import same_points
from .inline import merge_origins
from .nests import dimensions, expr_symbols, is_contraction, product_factors, unit_of

Worth = Callable[[Work], bool]


def join_sums(program: Program, worth: Worth) -> Program:
    """The equation above, where both sums are `worth` it, in program order."""
    users = Counter(program.base(b).name for k in program.kernels for b in read(k))
    users.update(program.base(o).name for o in program.outputs if o is not None)
    kernels: list[Kernel | Extern] = []
    for k in program.kernels:
        while isinstance(k, Kernel) and (found := _other(program, kernels, k, users, worth)):
            place, load = found
            other = kernels.pop(place)
            assert isinstance(other, Kernel)
            k = _joined(other, k, load)
        kernels.append(k)
    return replace(program, kernels=tuple(kernels))


def _other(
    program: Program,
    before: Sequence[Kernel | Extern],
    k: Kernel,
    users: Counter[str],
    worth: Worth,
) -> tuple[int, Load] | None:
    """The place of a kernel that makes a sum which k alone reads, and adds to its own; and where
    it does."""
    roles = _roles(program.buffers, k, worth)
    if len(roles) != 1 or None in roles:
        return None
    own = k.body[-2].stores[0].buffers[0]
    added = _Added.find(k.body[-1], own)
    if added is None:
        return None
    twice = _loaded_twice(k)
    for load in added.others:
        if not isinstance(load, Load) or load.mask or load.index != added.own.index:
            continue
        b = program.buffers[load.buffer]
        alone = b.scope == "arena" and b.base is None and users[b.name] == 1
        if not alone or b.shape != program.buffers[own].shape or b.name in twice:
            continue
        place = next((n for n, x in enumerate(before) if b.name in written(x)), None)
        if place is None or not _can_wait(program, before[place], before[place + 1 :]):
            continue
        maker = before[place]
        if not isinstance(maker, Kernel) or _roles(program.buffers, maker, worth) != roles:
            continue
        if _only_adds(maker):
            return place, load
    return None


@dataclass(frozen=True)
class _Added:
    """What a nest's only load of a sum is added to: all of `whole` but that."""

    own: Load
    whole: Expr
    others: tuple[Expr, ...]

    @staticmethod
    def find(root: Loops, own: str) -> _Added | None:
        every = [*walk(*expressions(root))]
        users = Counter(id(a) for e in every for a in children(e))
        users.update(map(id, expressions(root)))
        loads = [e for e in every if isinstance(e, Load) and e.buffer == own]
        if len(loads) != 1 or loads[0].mask or users[id(loads[0])] != 1:
            return None
        (load,) = loads
        whole: Expr = load
        for e in every:  # arguments first
            if is_op(e, "add") and e.dtype == "f32" and whole in e.args and users[id(whole)] == 1:
                whole = e

        def leaves(e: Expr) -> Iterator[Expr]:
            if is_op(e, "add") and (e is whole or users[id(e)] == 1):
                for a in e.args:
                    yield from leaves(a)
            else:
                yield e

        return _Added(load, whole, tuple(e for e in leaves(whole) if e is not load))


def _loaded_twice(k: Kernel) -> set[str]:
    """Buffers that a kernel's last nest has more than one use of."""
    users: Counter[str] = Counter()
    for e in walk(*expressions(k.body[-1])):
        users.update(a.buffer for a in children(e) if isinstance(a, Load))
    return {b for b, n in users.items() if n > 1}


def _only_adds(k: Kernel) -> bool:
    """Whether a kernel stores its last sum, perhaps with other values added, and nothing else."""
    *_, of_sum, copy = k.body
    names = same_points(of_sum, copy)
    if names is None or len(copy.stores) > 1:
        return False
    (x,), (y,) = of_sum.stores, copy.stores
    added = _Added.find(copy, x.buffers[0])
    index = tuple(i.subst(names) for i in x.index)
    if added is None or y.values != (added.whole,) or y.mask:
        return False
    return added.own.index == y.index == index


Roles = frozenset[frozenset[int]]  # a result's dimensions that one factor has alone, the other one


def _roles(buffers: Mapping[str, Buffer], k: Kernel, worth: Worth) -> set[Roles | None]:
    """Of a kernel of sums of products, each from the one before, and what follows; with None where
    it is of something else."""
    return {_roles_of(buffers, nest, worth) for nest in k.body[:-1]}


def _roles_of(buffers: Mapping[str, Buffer], nest: Loops, worth: Worth) -> Roles | None:
    """None but for a sum of products in float32, point by point, that is worth it."""
    if not is_contraction(nest) or nest.binds:
        return None
    (x,), dims = nest.stores, dimensions(nest)
    factors = product_factors(x.values[0])
    if factors is None or dims is None or x.mask or x.reduce is None:
        return None
    if len(x.buffers) > 1 or {x.reduce.acc_dtype, buffers[x.buffers[0]].dtype} != {"f32"}:
        return None
    of_a, of_b = map(expr_symbols, factors)
    symbols = of_a & of_b, of_a - of_b, of_b - of_a

    def points(own: set[str]) -> int:
        return prod(a.extent for a in nest.axes if a.kind == "parallel" and a.symbol in own)

    batch, rows, columns = map(points, symbols)
    terms = prod(a.extent for a in nest.reduce_axes)
    if not worth(Work("one sum", batch, rows, columns, terms, 1, unit_of(factors), False)):
        return None
    return frozenset(frozenset(d for d, a in enumerate(dims) if a in own) for own in symbols[1:])


def _can_wait(program: Program, k: Kernel | Extern, others: Sequence[Kernel | Extern]) -> bool:
    """Whether a step may be made behind others: they write nothing that it reads."""
    memory = {program.base(b).name for b in read(k)}
    return memory.isdisjoint(program.base(b).name for x in others for b in written(x))


def _joined(other: Kernel, k: Kernel, load: Load) -> Kernel:
    """k, with the sums of the kernel whose result it loads there, from which its own start."""
    (*made, last, copy), (first, *rest, root) = other.body, k.body
    (a,), (b,) = last.stores, first.stores
    assert a.reduce is not None and b.reduce is not None
    own = k.body[-2].stores[0].buffers[0]
    theirs, ours = _Added.find(copy, a.buffers[0]), _Added.find(root, own)
    assert theirs is not None and ours is not None
    there = {x: i for x, i in zip(dimensions(copy) or (), load.index, strict=True) if x}
    more = [e for e in ours.others if e is not load] + [subst(e, there) for e in theirs.others]
    starts = [_start(nest, load.index) for nest in (other.body[0], first)]
    total: Expr = ours.own
    for e in chain(*starts, more):
        total = Op("add", (total, e), "f32")
    root = replace(root, stores=tuple(_with(s, ours.whole, total) for s in root.stores))
    from_there = Load(a.buffers[0], b.index, "f32")
    made = [*made, last]
    made[0] = _from(made[0], None)
    origin = merge_origins(other.origin, k.origin)
    return replace(k, body=(*made, _from(first, (from_there,)), *rest, root), origin=origin)


def _from(nest: Loops, start: tuple[Expr, ...] | None) -> Loops:
    """A nest whose sum starts elsewhere."""
    (x,) = nest.stores
    assert x.reduce is not None
    return replace(nest, stores=(replace(x, reduce=replace(x.reduce, init=start)),))


def _with(s: Store, old: Expr, new: Expr) -> Store:
    """A store of values with one expression in place of another."""

    def value(root: Expr) -> Expr:
        made: dict[int, Expr] = {}
        for e in walk(root):
            args = tuple(made[id(a)] for a in children(e))
            same = Op(e.name, args, e.dtype) if isinstance(e, Op) else e
            made[id(e)] = new if e is old else same
        return made[id(root)]

    return replace(s, values=tuple(map(value, s.values)))


def _start(nest: Loops, index: tuple[Index, ...]) -> list[Expr]:
    """Where a nest's sum starts, at a point of another nest."""
    (x,) = nest.stores
    if x.reduce is None or x.reduce.init is None:
        return []
    axes = dimensions(nest)
    assert axes is not None
    return [subst(e, {a: i for a, i in zip(axes, index, strict=True) if a}) for e in x.reduce.init]

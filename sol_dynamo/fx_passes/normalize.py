"""One form of each op.

clone(x), alias(x), detach(x)     ==>  x                (layout comes later)
x * 1, x / 1, view or expand      ==>  x                (where dtype and shape stay the same)
as_strided(x)                     ==>  x                (where shape and elements stay the same)
t(x)                              ==>  permute(x, [1, 0])
relu6(x), hardtanh(x, a, b)       ==>  clamp(x, a, b)   (of floats: clamp promotes integers)
view(mm(x, w), shape) + vector    ==>  view(addmm(vector, x, w), shape)
view(permute(view(x)))            ==>  permute(view(x)) (dimensions that are joined and cut again)

x + 0 stays: it turns -0.0 into 0.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ..compat import needs_strides
from .rewriter import Rewriter

aten = torch.ops.aten
VIEWS = (aten.view.default, aten._unsafe_view.default, aten.reshape.default)
BEFORE = object()  # among the arguments of a call: what the call before it gives


def normalize(r: Rewriter) -> None:
    for n in r.nodes():
        same = _identity(n)
        if same is not None and r.spend():
            r.replace(n, same)
            continue
        new = _canonical(n)
        if new is not None and r.spend():
            r.replace(n, r.call(n, *new))
            continue
        calls = _with_vector(n) or _cut_again(n)
        if calls and r.spend():
            for target, *args in calls:
                made = r.call(n, target, *(made if a is BEFORE else a for a in args))
            r.replace(n, made)


def _identity(n: fx.Node) -> Any:
    """The argument that a node returns unchanged, or None."""
    if n.target in (aten.alias.default, aten.detach.default, aten.lift_fresh.default):
        return n.args[0]
    if n.target is aten.clone.default and _only_read(n):
        return n.args[0]
    if n.target is aten.mul.Tensor and n.args[1] == 1 and _same_dtype(n):
        return n.args[0]
    if n.target is aten.div.Tensor and n.args[1] == 1 and _same_dtype(n):
        return n.args[0]
    if n.target in (aten.expand.default, aten.view.default) and _same_shape(n):
        return n.args[0]
    if n.target is aten.as_strided.default and _same_shape(n) and _lies_alike(n):
        return n.args[0]
    return None


def _only_read(n: fx.Node) -> bool:
    """A copy matters only to what is returned (it must not be an input itself), written to, or read
    in the strides that the copy gave it."""
    return all(
        u.op == "call_function" and not needs_strides(u.target) and not u.target._schema.is_mutable
        for u in n.users
    )


def _same_dtype(n: fx.Node) -> bool:
    a, v = n.args[0], n.meta.get("val")
    return (
        isinstance(a, fx.Node) and a.meta["val"].dtype == v.dtype and a.meta["val"].shape == v.shape
    )


def _same_shape(n: fx.Node) -> bool:
    if not all(u.op == "call_function" for u in n.users):
        return False
    a = n.args[0]
    return isinstance(a, fx.Node) and tuple(a.meta["val"].shape) == tuple(n.meta["val"].shape)


def _lies_alike(n: fx.Node) -> bool:
    """Whether a value of the same shape is the same elements: strides of size 1 do not matter."""
    a, v = n.args[0].meta["val"], n.meta["val"]
    strides = zip(a.shape, a.stride(), v.stride(), strict=True)
    same = all(size == 1 or s == t for size, s, t in strides)
    return same and a.storage_offset() == v.storage_offset()


def _canonical(n: fx.Node) -> tuple | None:
    if n.target is aten.t.default:
        rank = n.args[0].meta["val"].dim()
        return (aten.permute.default, n.args[0], [1, 0]) if rank == 2 else None
    if n.target is aten.hardtanh.default and n.meta["val"].is_floating_point():
        low = n.args[1] if len(n.args) > 1 else -1.0
        high = n.args[2] if len(n.args) > 2 else 1.0
        return aten.clamp.default, n.args[0], low, high
    if n.target is aten.relu6.default:
        return aten.clamp.default, n.args[0], 0.0, 6.0
    return None


def _with_vector(n: fx.Node) -> list[tuple]:
    """A product of matrices, seen in another shape, with a vector added to each row: what a linear
    layer is of data that is not contiguous."""
    x: Any = n.args[0] if n.args else None
    if n.target is not aten.add.Tensor or n.kwargs or not _is_only_users(x, n):
        return []
    vector: Any = n.args[1]
    product: Any = x.args[0] if x.target in VIEWS else x
    if not isinstance(vector, fx.Node) or not _is_only_users(product, x if product is not x else n):
        return []
    if product.target is not aten.mm.default:
        return []
    value, made, whole = vector.meta["val"], product.meta["val"], n.meta["val"]
    alike = value.dtype == made.dtype == whole.dtype and x.meta["val"].shape == whole.shape
    if not alike or value.dim() != 1 or not value.shape[0] == made.shape[1] == whole.shape[-1]:
        return []
    addmm = (aten.addmm.default, vector, *product.args)
    return [addmm, (aten.view.default, BEFORE, list(whole.shape))]


def _cut_again(n: fx.Node) -> list[tuple]:
    """Dimensions that a view joins, and another one cuts behind a permutation: strides say the
    whole, but not the first view of data whose dimensions cannot be joined (the heads of attention
    and the batch beside them)."""
    moved: Any = n.args[0] if n.args else None
    if n.target not in VIEWS or not _only_read(n) or not _is_only_users(moved, n):
        return []
    if moved.target not in (aten.permute.default, aten.transpose.int):
        return []
    joined: Any = moved.args[0]
    if not _is_only_users(joined, moved) or joined.target not in VIEWS:
        return []
    x, shape = joined.args[0], tuple(n.meta["val"].shape)
    order = list(range(joined.meta["val"].dim()))
    if moved.target is aten.permute.default:
        order = [d % len(order) for d in moved.args[1]]
    else:
        a, b = (d % len(order) for d in moved.args[1:])
        order[a], order[b] = order[b], order[a]
    found = through(tuple(x.meta["val"].shape), tuple(joined.meta["val"].shape), order, shape)
    if found is None:
        return []
    sizes, places = found
    cut, turned = (aten.view.default, x, sizes), (aten.permute.default, BEFORE, places)
    return [cut, turned, (aten.view.default, BEFORE, list(shape))]


def _is_only_users(a: Any, n: fx.Node) -> bool:
    """Whether a value is a call's that one node alone reads."""
    return isinstance(a, fx.Node) and a.op == "call_function" and list(a.users) == [n]


def through(
    shape: Sequence[int], joined: Sequence[int], order: Sequence[int], result: Sequence[int]
) -> tuple[list[int], list[int]] | None:
    """x.view(joined).permute(order).view(result), for an x of a shape, as x.view(sizes).permute(
    places) without dimensions of size 1; None where that joins some, or where the first view did
    not."""
    if 0 in shape:
        return None
    parts = factors(shape, joined)
    groups = None if parts is None else grouped(parts, joined)
    if parts is None or groups is None or all(len(g) < 2 for g in groups):
        return None
    turned = [p for d in order for p in groups[d]]
    wanted = [n for n in result if n != 1]
    if factors([parts[p] for p in turned], wanted) != wanted:
        return None
    pieces = grouped(wanted, [parts[p] for p in turned])  # of each part, in order of the result
    if pieces is None:
        return None
    within = sorted(range(len(wanted)), key=lambda k: next(
        (turned[at], k) for at, piece in enumerate(pieces) if k in piece
    ))  # fmt: skip
    return [wanted[k] for k in within], [within.index(k) for k in range(len(wanted))]


def factors(a: Sequence[int], b: Sequence[int]) -> list[int] | None:
    """The fewest factors in order of which both are products, without 1; None if there are none."""
    left, right = [n for n in a if n != 1], [n for n in b if n != 1]
    found: list[int] = []
    while left and right:
        n = min(left[0], right[0])
        if left[0] % n or right[0] % n:
            return None
        found.append(n)
        for sizes in (left, right):
            sizes[0] //= n
            if sizes[0] == 1:
                del sizes[0]
    return None if left or right else found


def grouped(parts: Sequence[int], sizes: Sequence[int]) -> list[list[int]] | None:
    """Which factors in order make up each size."""
    found, at = [], 0
    for n in sizes:
        group = []
        while n != 1:
            if at == len(parts) or n % parts[at]:
                return None
            n //= parts[at]
            group.append(at)
            at += 1
        found.append(group)
    return found if at == len(parts) else None

"""One form of each op.

clone(x), alias(x), detach(x)     ==>  x                (layout comes later; ATen's copies stay)
x * 1, x / 1, view or expand      ==>  x                (where dtype and shape stay the same)
as_strided(x)                     ==>  x                (where shape and elements stay the same)
t(x)                              ==>  permute(x, [1, 0])
relu6(x), hardtanh(x, a, b)       ==>  clamp(x, a, b)   (of floats: clamp promotes integers)

x + 0 stays: it turns -0.0 into 0.0.
"""

from __future__ import annotations

from operator import getitem
from typing import Any

import torch
from torch import fx

from ..compat import gives_views, needs_strides
from .rewriter import Rewriter

aten = torch.ops.aten


def normalize(r: Rewriter) -> None:
    for n in r.nodes():
        same = _identity(n, r.caps.device_type)
        if same is not None and r.spend():
            r.replace(n, same)
            continue
        new = _canonical(n)
        if new is not None and r.spend():
            r.replace(n, r.call(n, *new))


def _identity(n: fx.Node, device: str) -> Any:
    """The argument that a node returns unchanged, or None."""
    if n.target in (aten.alias.default, aten.detach.default, aten.lift_fresh.default):
        return n.args[0]
    if n.target is aten.clone.default and not _is_foreign(n, device) and _only_read(n):
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


def _is_foreign(n: fx.Node, device: str) -> bool:
    """Whether what reads a value is ATen's, whose views need the strides that a copy has."""
    value = n.meta["val"]
    kind, size = value.dtype, value.itemsize
    float8, unsigned = kind.is_floating_point and size == 1, not kind.is_signed and size > 1
    return value.device.type != device or kind.is_complex or float8 or unsigned


def _only_read(n: fx.Node) -> bool:
    """A copy matters only to what is returned (it must not be an input itself), written to, or read
    in the strides that the copy gave it, itself or through views."""
    return not _strides_matter(n) and all(
        u.op == "call_function" and not u.target._schema.is_mutable for u in n.users
    )


def _strides_matter(n: fx.Node) -> bool:
    for u in n.users:
        if u.op != "call_function":
            continue
        one_of_several = u.target is getitem
        if not one_of_several and needs_strides(u.target):
            return True
        if (one_of_several or gives_views(u.target)) and _strides_matter(u):
            return True
    return False


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

"""Forward and backward of a graph that AOTAutograd traced as one.

torch's minimal cut decides what forward saves, but for one thing: a mask (x <= 0 of a ReLU) of
values that backward needs in memory anyway, for the weights of the layer behind, is computed where
backward uses it. The cut of some versions saves it as well, since its user is far from x's others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from .. import compat

aten = torch.ops.aten
PRODUCTS = (
    aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution, aten.convolution_backward,
)  # fmt: skip


def partitioned(
    joint: fx.GraphModule, inputs: Sequence[Any], **kwargs: Any
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The graphs of forward and of backward: a `partition_fn` of AOTAutograd's."""
    recompute_masks(joint.graph)
    return compat.min_cut_partition()(joint, inputs, **kwargs)


def recompute_masks(graph: fx.Graph) -> list[fx.Node]:
    """Have backward compute bools, element by element, of what it has in memory; gives these."""
    behind: set[fx.Node] = set()  # what can only be computed in backward
    place = {n: i for i, n in enumerate(graph.nodes)}
    for n in graph.nodes:
        if compat.is_tangent(n) or not behind.isdisjoint(n.all_input_nodes):
            behind.add(n)

    def multiplied(x: fx.Node) -> bool:
        """Whether a product of backward reads a tensor, or a view of it."""
        users = x.users
        return any(u in behind and _packet(u) in PRODUCTS for u in users) or any(
            multiplied(u) for u in users if _is_view(u)
        )

    def in_memory(x: fx.Node) -> fx.Node | None:
        """A tensor of the same elements that backward needs in memory, itself or by others of its
        memory: dropout that drops nothing leaves a copy behind."""
        base = x
        while _is_view(base):
            base = base.all_input_nodes[0]
        if multiplied(base):
            return x
        copies = (u for u in base.users if u.target is aten.clone.default and multiplied(u))
        return next((u for u in copies if _lies(u) == _lies(x)), None)

    made = []
    for n in graph.nodes:
        if n in behind or not _is_mask(n) or behind.isdisjoint(n.users):
            continue
        there = {x: in_memory(x) for x in n.all_input_nodes}
        if all(y is not None and place[y] < place[n] for y in there.values()):
            for x, y in there.items():
                n.replace_input_with(x, y)
            compat.compute_in_backward(n)
            made.append(n)
    return made


def _is_mask(n: fx.Node) -> bool:
    value = n.meta.get("val")
    return (
        _has_tag(n, torch.Tag.pointwise)
        and not _has_tag(n, torch.Tag.nondeterministic_seeded)
        and isinstance(value, torch.Tensor)
        and value.dtype == torch.bool
        and bool(n.all_input_nodes)
    )


def _lies(n: fx.Node) -> tuple:
    """Of a tensor, where its elements lie in its memory."""
    value = n.meta["val"]
    strides = value.stride() if value.layout == torch.strided else ()
    return value.layout, tuple(value.shape), tuple(strides)


def _is_view(n: fx.Node) -> bool:
    if not isinstance(n.target, compat.OpOverload):
        return False
    info = [r.alias_info for r in n.target._schema.returns]
    return len(info) == 1 and info[0] is not None and not info[0].is_write


def _packet(n: fx.Node) -> Any:
    return getattr(n.target, "overloadpacket", None)


def _has_tag(n: fx.Node, tag: torch.Tag) -> bool:
    return isinstance(n.target, compat.OpOverload) and tag in n.target.tags

"""Forward and backward of a graph that AOTAutograd traced as one.

torch's minimal cut decides what forward saves. It takes a copy (dropout that drops nothing) for
another value, though, and saves a mask beside the copy that it saves anyway:

  d = clone(h);  d @ w;  ...  mask = h <= 0, saved  ==>  mask = d <= 0, computed in backward
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
SAME = (aten.detach, aten.alias)  # views of the same elements in the same places
ALL = (
    *SAME, aten.view, aten.t, aten.transpose, aten.permute, aten.unsqueeze, aten.squeeze,
)  # fmt: skip


def partitioned(
    joint: fx.GraphModule, inputs: Sequence[Any], **kwargs: Any
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The graphs of forward and of backward: a `partition_fn` of AOTAutograd's."""
    recompute_masks(joint.graph)
    return compat.min_cut_partition()(joint, inputs, **kwargs)


def recompute_masks(graph: fx.Graph) -> list[fx.Node]:
    """Have backward compute bools, element by element, of copies that it has in memory; gives
    these nodes."""
    behind: set[fx.Node] = set()  # what can only be computed in backward
    for n in graph.nodes:
        if compat.is_tangent(n) or not behind.isdisjoint(n.all_input_nodes):
            behind.add(n)

    def multiplied(x: fx.Node) -> bool:
        """Whether a product of backward reads a tensor, or all of it in another order."""
        users = x.users
        return any(u in behind and _packet(u) in PRODUCTS for u in users) or any(
            multiplied(u) for u in users if _packet(u) in ALL
        )

    def in_memory(x: fx.Node, seen: set[fx.Node]) -> fx.Node | None:
        """A copy of x, of those seen, that backward needs in memory, where it needs no other."""
        while _packet(x) in SAME:
            x = x.all_input_nodes[0]
        if multiplied(x) or compat.has_backward_hook(x):
            return None
        copies = (u for u in x.users if u in seen and _is_copy(u) and multiplied(u))
        return next(copies, None)

    made: list[fx.Node] = []
    seen: set[fx.Node] = set()
    for n in graph.nodes:
        seen.add(n)
        if n in behind or not _is_mask(n) or behind.isdisjoint(n.users):
            continue
        copies = {x: in_memory(x, seen) for x in n.all_input_nodes}
        if all(copies.values()) and compat.compute_in_backward(n):
            for x, copy in copies.items():
                n.replace_input_with(x, copy)
            made.append(n)
    return made


def _is_mask(n: fx.Node) -> bool:
    value = n.meta.get("val")
    return (
        isinstance(n.target, compat.OpOverload)
        and torch.Tag.pointwise in n.target.tags
        and torch.Tag.nondeterministic_seeded not in n.target.tags
        and isinstance(value, torch.Tensor)
        and value.dtype == torch.bool
        and bool(n.all_input_nodes)
    )


def _is_copy(n: fx.Node) -> bool:
    """Whether a node is a copy that lies as what it copies."""
    return n.target is aten.clone.default and n.kwargs.get("memory_format") in (
        None, torch.preserve_format,
    )  # fmt: skip


def _packet(n: fx.Node) -> Any:
    return getattr(n.target, "overloadpacket", None)

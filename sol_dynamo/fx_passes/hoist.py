"""What depends on weights and constants alone leaves the graph.

    f(x, g(w))  ==>  weights: w -> g(w), once per weight set;  main: (x, gw) -> f(x, gw)

What would be larger than what it is made from stays: an expansion is an address, not memory. So
does a formula of indices, such as a causal mask: a kernel computes it faster than it reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from ..compat import OpOverload, gives_views
from .rewriter import is_pure

aten = torch.ops.aten


@dataclass(frozen=True)
class Hoisted:
    """`sources[i]` tells what placeholder i of `main` is: ("input", index among the graph's inputs)
    or ("weight", index among the outputs of `weights`)."""

    main: fx.GraphModule
    weights: fx.GraphModule
    sources: tuple[tuple[str, int], ...]


def hoist(gm: fx.GraphModule, weights: frozenset[int]) -> Hoisted:
    placeholders = [n for n in gm.graph.nodes if n.op == "placeholder"]
    constant: set[fx.Node] = {n for i, n in enumerate(placeholders) if i in weights}
    formulas: set[fx.Node] = set()  # what is made of nothing, and formulas of that
    for n in gm.graph.nodes:
        inputs = n.all_input_nodes
        if n.op == "get_attr" and isinstance(n.meta.get("val"), torch.Tensor):
            constant.add(n)
        if n.op != "call_function" or not is_pure(n) or _grows(n):
            continue
        if all(a in constant for a in inputs):
            constant.add(n)
            if _is_formula(n) and all(a in formulas for a in inputs):
                formulas.add(n)
    kept = _kept(gm, constant, formulas)
    constant -= kept
    border: dict[fx.Node, None] = {}
    for n in gm.graph.nodes:
        if n not in constant:
            border.update((a, None) for a in n.all_input_nodes if a in constant)
    side, copies = fx.Graph(), {}
    for n in placeholders:
        if n in constant:
            copies[n] = side.placeholder(n.name)
            copies[n].meta = n.meta
    for n in gm.graph.nodes:
        if (n in constant and n.op != "placeholder") or n in formulas:
            copies[n] = side.node_copy(n, copies.__getitem__)
            if n.target in (aten.view.default, aten._unsafe_view.default):  # passes drop copies
                copies[n].target = aten.reshape.default
    side.output(tuple(copies[n] for n in border))
    side.eliminate_dead_code()
    for n in list(side.nodes):  # dead placeholders stay: callers pass all weights
        n.meta.setdefault("val", None)
    main, new = fx.Graph(), {}
    sources = []
    for i, n in enumerate(placeholders):
        if n not in constant:
            new[n] = main.node_copy(n)
            sources.append(("input", i))
    for j, n in enumerate(border):
        new[n] = main.placeholder(f"{n.name}_w" if n.op != "placeholder" else n.name)
        new[n].meta = dict(n.meta)
        sources.append(("weight", j))
    for n in gm.graph.nodes:
        if n.op not in ("placeholder",) and n not in constant:
            new[n] = main.node_copy(n, new.__getitem__)
    return Hoisted(
        fx.GraphModule(gm, main),
        fx.GraphModule(gm, side),
        tuple(sources),
    )


def _kept(gm: fx.GraphModule, constant: set[fx.Node], formulas: set[fx.Node]) -> set[fx.Node]:
    """The formulas that something else than a constant reads, with what they are made of; those
    that only constants read leave with them."""
    kept: set[fx.Node] = set()
    for n in reversed(gm.graph.nodes):
        if n in formulas and any(u not in constant or u in kept for u in n.users):
            kept.add(n)
    return kept


def _is_formula(n: fx.Node) -> bool:
    """Whether a kernel can compute a node's elements where it needs them."""
    if not isinstance(n.target, OpOverload):
        return False
    views = gives_views(n.target)
    return not n.all_input_nodes or views or torch.Tag.pointwise in n.target.tags


def _grows(n: fx.Node) -> bool:
    if n.target not in (aten.expand.default, aten.repeat.default):
        return False
    return n.meta["val"].numel() > max(n.args[0].meta["val"].numel(), 1)

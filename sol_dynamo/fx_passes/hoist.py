"""What depends on weights alone leaves the graph.

    f(x, g(w))  ==>  weights: w -> g(w), once per weight set;  main: (x, gw) -> f(x, gw)

What would be larger than what it is made from stays: an expansion is an address, not memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

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
    for n in gm.graph.nodes:
        inputs = n.all_input_nodes
        if n.op != "call_function" or not inputs or not is_pure(n) or _grows(n):
            continue
        if all(a in constant for a in inputs):
            constant.add(n)
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
        if n in constant and n.op == "call_function":
            copies[n] = side.node_copy(n, copies.__getitem__)
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
        fx.GraphModule(torch.nn.Module(), main),
        fx.GraphModule(torch.nn.Module(), side),
        tuple(sources),
    )


def _grows(n: fx.Node) -> bool:
    value = n.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return False
    most = max(
        (
            a.meta["val"].numel()
            for a in n.all_input_nodes
            if isinstance(a.meta.get("val"), torch.Tensor)
        ),
        default=0,
    )
    return value.numel() > max(most, 1) and n.target in (aten.expand.default, aten.repeat.default)

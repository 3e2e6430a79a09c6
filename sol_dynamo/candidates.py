"""ATen or kernels of ours for a node's sums of products, by timing both: `mode="max-autotune"`.

Each candidate is a small program of its own, compiled as the whole one is: the node, what is
computed of its operands point by point for it alone, and what follows it in one kernel. So a time
holds all that a choice brings with it, like the passes over memory that a call of ATen needs before
and behind it. Which was faster is kept on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import inf

from torch import fx

from . import programs
from .ir import Work
from .lowering import lower
from .lowering.convolution import of_product
from .lowering.graph import FUSED, VIEWS, Products
from .lowering.strides import dense
from .runtime import cache
from .schedule import schedule
from .target import Target

log = logging.getLogger("sol_dynamo")
LEAST = 1 << 23  # products from which a call of ATen is timed: fewer take less than its launch
CLEARLY = 0.9  # of our time that it has to keep below: kernels of ours begin before others end


class Candidates:
    """`Products.elsewhere` of a graph whose placeholders are of some scopes."""

    def __init__(self, target: Target, products: Products, scopes: Mapping[fx.Node, str]):
        """`products` are those of a machine that chooses by its model."""
        self._target, self._products, self._scopes = target, products, scopes
        self._known: dict[fx.Node, str] = {}  # lowering asks again after an error

    def __call__(self, work: Work, node: fx.Node) -> str:
        """Why ATen is to compute a node's sums of products, or ""."""
        if work.kind == "sum inside":  # which is asked beside the product's
            assert self._products.elsewhere is not None
            return self._products.elsewhere(work, node)
        if node not in self._known:
            self._known[node] = self._choose(work, node)
        return self._known[node]

    def _choose(self, work: Work, node: fx.Node) -> str:
        assert self._products.elsewhere is not None
        reason = self._products.elsewhere(work, node)
        products = work.batch * work.rows * work.columns * work.terms * work.taps
        if products < LEAST:
            return reason
        gm, scopes = alone(node, self._scopes)
        if gm is None:
            return reason
        caps = self._target.caps
        laid = [n.meta.get("sol_strides") for n in gm.graph.nodes]
        more = scopes, laid, sorted(self._products.tf32), "candidates"
        key = programs.name(gm, caps, self._target.describe(), *more)
        known = cache.lookup(key, ".txt") if key else None
        if known is not None:
            return known.read_text()
        ours, theirs = (self._seconds(gm, scopes, choice) for choice in ("", "timed"))
        log.info("%s: ours %.1f us, ATen's %.1f us", node.name, 1e6 * ours, 1e6 * theirs)
        if min(ours, theirs) == inf:
            return reason
        reason = ""
        if theirs < CLEARLY * ours:
            reason = f"ATen's {work.kind} was faster: {1e6 * theirs:.1f} us, ours {1e6 * ours:.1f}"
        if key:
            cache.store(key, ".txt", reason.encode())
        return reason

    def _seconds(self, gm: fx.GraphModule, scopes: list[str], choice: str) -> float:
        """The time of a graph with its sums of products by ATen, for the reason `choice`, or by
        kernels of ours; infinite for one that cannot be made or run."""
        caps = self._target.caps
        assert caps.seconds is not None
        products = replace(self._products, elsewhere=lambda work, node: choice)
        sources = [(scope, i) for i, scope in enumerate(scopes)]
        try:
            program = lower(gm, sources, caps.device_type, products)
            program = schedule(program, caps, partial(self._target.walk, measure=True))
            return caps.seconds(program)
        except Exception as e:  # torch's and Triton's, too: memory may not suffice
            log.info("%s with %r: %s", gm.graph.output_node().args[0], choice, e)
            return inf


def alone(node: fx.Node, scopes: Mapping[fx.Node, str]) -> tuple[fx.GraphModule | None, list[str]]:
    """A node with what is part of its kernel, as a graph, and the scopes of its inputs; None where
    the result is no tensor, or an input is one of the graph's own constants."""
    inside = {node}
    last, left = node, list(node.all_input_nodes)
    while len(last.users) == 1 and (user := next(iter(last.users))).target in FUSED | VIEWS:
        inside.add(user)
        last = user
    while left:
        n = left.pop()
        if n.target in FUSED | VIEWS and inside.issuperset(n.users) and not of_product(n):
            inside.add(n)
            left += n.all_input_nodes
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    of_inputs: list[str] = []
    # names count anew, and lines are left out: nodes that do the same give the same graph
    given = [n for n in node.graph.nodes if n not in inside and inside.intersection(n.users)]
    for n in given:
        value = n.meta.get("val")
        if n.op not in ("placeholder", "call_function") or not hasattr(value, "new_empty_strided"):
            return None, []
        copies[n] = graph.placeholder(f"x{len(copies)}")
        where = n.meta.get("sol_strides") or (value.stride() if n in scopes else dense(value))
        copies[n].meta["val"] = value.new_empty_strided(value.shape, where)
        of_inputs.append(scopes.get(n, "input"))
    for n in node.graph.nodes:
        if n in inside:
            args, kwargs = fx.node.map_arg((n.args, n.kwargs), copies.__getitem__)
            copies[n] = graph.call_function(n.target, args, kwargs)
            copies[n].meta = {k: v for k, v in n.meta.items() if k != "stack_trace"}
    if not hasattr(last.meta.get("val"), "new_empty_strided"):
        return None, []
    output = graph.output((copies[last],))
    output.meta["sol_output_strides"] = [None]  # where it lies
    return fx.GraphModule({}, graph), of_inputs

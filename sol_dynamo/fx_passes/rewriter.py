"""What passes build graphs with: new nodes with their fake values, counted and rationed by fuel."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import fx

from ..compat import OpOverload, fake_mode_of
from ..target import Caps

aten = torch.ops.aten


class Rewriter:
    """One pass at work on a graph."""

    def __init__(
        self,
        gm: fx.GraphModule,
        weights: frozenset[int],
        caps: Caps,
        fuel: list[int],
        known: dict[Hashable, Any] | None = None,
    ):
        """`known`: the fake values that calls gave, those of passes before, too."""
        self.gm, self.graph, self.caps = gm, gm.graph, caps
        self._known = {} if known is None else known
        self.weights, self._fuel, self.count = weights, fuel, 0
        self._mode = fake_mode_of(gm.graph)
        placeholders = [n for n in self.graph.nodes if n.op == "placeholder"]
        self._constant: dict[fx.Node, bool] = {n: i in weights for i, n in enumerate(placeholders)}

    def nodes(self, *targets: Any) -> list[fx.Node]:
        """Calls of these ops (without any: of all) from dense tensors to dense tensors; sizes that
        are data can't be compared, so that no pass sees them."""
        return [
            n
            for n in self.graph.nodes
            if n.op == "call_function"
            and (not targets or n.target in targets)
            and all(_is_dense(a.meta.get("val")) for a in (n, *n.all_input_nodes))
        ]

    def spend(self) -> bool:
        """Ask for one rewrite; False when the fuel is used up."""
        if self._fuel[0] == 0:
            return False
        if self._fuel[0] > 0:
            self._fuel[0] -= 1
        self.count += 1
        return True

    def is_weight(self, node: Any) -> bool:
        """Whether a value depends on parameters and buffers only."""
        if not isinstance(node, fx.Node):
            return True
        found = self._constant.get(node)
        if found is None:
            found = (
                node.op == "call_function"
                and not node.kwargs.get("device")
                and is_pure(node)
                and bool(node.all_input_nodes)
                and all(self.is_weight(a) for a in node.all_input_nodes)
            )
            self._constant[node] = found
        return found

    def call(self, before: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """A new node in front of another, its value computed on fakes, or that of a like call: of
        a new node's value, `memory_of` means nothing."""
        with self.graph.inserting_before(before):
            node = self.graph.call_function(target, args, kwargs)
        value = lambda n: n.meta["val"]  # noqa: E731
        fake_args, fake_kwargs = fx.node.map_arg((args, kwargs), value)
        like = _like((target, fake_args, fake_kwargs))
        if like is None or like not in self._known:
            with self._mode or nullcontext(), torch.no_grad():
                made = target(*fake_args, **fake_kwargs)
            if like is not None:
                self._known[like] = made
        else:
            made = self._known[like]
        node.meta["val"] = made
        node.meta["stack_trace"] = before.meta.get("stack_trace")
        return node

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        old.replace_all_uses_with(new)

    def finish(self) -> None:
        """The module's code stays as it was: nobody runs what is between passes."""
        self.graph.eliminate_dead_code()


def _like(value: Any) -> Hashable:
    """What calls have in common whose results have equal metadata; None where that is not known."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            return None
        place = (*value.shape, *value.stride(), value.storage_offset())
        if not all(type(n) is int for n in place):
            return None
        return type(value), value.dtype, value.device, value.dim(), place
    if isinstance(value, (tuple, list, dict)):
        parts = value.items() if isinstance(value, dict) else value
        found = tuple(map(_like, parts))
        return None if None in found else (type(value), found)
    symbol = isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))
    return (type(value), value) if isinstance(value, Hashable) and not symbol else None


def _is_dense(value: Any) -> bool:
    """A tensor, or several (and None for those not asked for), with strides and with sizes that are
    numbers."""
    if isinstance(value, (tuple, list)):
        return all(v is None or _is_dense(v) for v in value)
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return False
    return all(isinstance(n, int) for n in (*value.shape, *value.stride()))


def is_pure(node: fx.Node) -> bool:
    """Neither random nor writing to anything."""
    target = node.target
    if not isinstance(target, OpOverload):
        return getattr(target, "__name__", "") == "getitem"
    return not target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in target.tags


def dims(rank: int, at: int, n: int) -> Sequence[int]:
    """The shape that broadcasts a vector of n along dimension `at` of a rank."""
    return [n if d == at else 1 for d in range(rank)]

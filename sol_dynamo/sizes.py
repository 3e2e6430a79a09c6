"""Graphs with symbolic sizes: a program for each of a few sizes that come again, ATen for the rest.

    f(s0, x[s0, 3])  ==>  {(7,): f7(x[7, 3]), (12,): f12(x[12, 3])}, else f on ATen

A graph is compiled for sizes when they come the second time, so that what differs at each call (a
growing cache, the last batch of an epoch) costs no compiler; and `limit` bounds the programs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from . import compat

log = logging.getLogger("sol_dynamo")

SEEN = 256  # sizes remembered of those that came once


def has_symbols(gm: fx.GraphModule) -> bool:
    """Whether sizes of a graph's inputs, or numbers among them, are known at a call only."""
    return any(_is_symbolic(n.meta.get("val")) for n in gm.graph.find_nodes(op="placeholder"))


def _is_symbolic(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            return any(isinstance(n, torch.SymInt) for n in value.shape)
        return any(isinstance(n, torch.SymInt) for n in (*value.shape, *value.stride()))
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))


def specialize(gm: fx.GraphModule, args: Sequence[Any]) -> fx.GraphModule:
    """A graph for the sizes of these arguments: numbers that follow from them are constants, and
    values in `meta` have those sizes. It takes the same arguments.

    Errors: whatever an op's fake kernel raises.
    """
    graph = fx.Graph()
    values: dict[fx.Node, Any] = {}
    copies: dict[fx.Node, Any] = {}  # nodes of the new graph, or numbers
    given = iter(args)
    with compat.plain_dispatch(), compat.unbacked_fake_mode() as mode:
        for n in gm.graph.nodes:
            if n.op == "placeholder":
                a = next(given)
                fake = isinstance(a, torch.Tensor)
                values[n] = mode.from_tensor(a, static_shapes=True) if fake else a
            elif n.op == "get_attr":
                values[n] = getattr(gm, n.target)
            elif n.op == "call_function":
                inputs, options = fx.node.map_arg((n.args, n.kwargs), values.__getitem__)
                values[n] = n.target(*inputs, **options)
            number = isinstance(values.get(n), (bool, int, float))
            if number and n.op != "placeholder":
                copies[n] = values[n]
                continue
            copy = graph.node_copy(n, copies.__getitem__)
            copies[n] = values[n] if number else copy
            if n.op != "output":
                copy.meta["val"] = values[n]
    return fx.GraphModule(gm, graph)


class BySizes:
    """The boxed callable of a graph with symbolic sizes."""

    def __init__(
        self,
        gm: fx.GraphModule,
        compile: Callable[[fx.GraphModule], Callable],
        on_aten: Callable,
        limit: int,
    ):
        """`compile` makes a boxed callable of a graph whose sizes are numbers, `on_aten` runs any;
        at most `limit` graphs are compiled."""
        self._boxed_call = True
        self._gm, self._compile, self._on_aten, self._limit = gm, compile, on_aten, limit
        values = [n.meta.get("val") for n in gm.graph.find_nodes(op="placeholder")]
        self._symbolic = [i for i, v in enumerate(values) if _is_symbolic(v)]
        self._programs: dict[tuple, Callable] = {}
        self._seen: dict[tuple, None] = {}
        self._lock = threading.Lock()

    def __call__(self, args: list[Any]) -> list[Any]:
        key = tuple(_sizes(args[i]) for i in self._symbolic)
        run = self._programs.get(key)
        if run is None and len(self._programs) < self._limit:
            run = self._meet(key, args)
        return (run or self._on_aten)(args)

    def _meet(self, key: tuple, args: Sequence[Any]) -> Callable | None:
        """Compile for sizes that come the second time; None the first, or while another thread
        compiles."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if key not in self._seen:
                self._seen[key] = None
                if len(self._seen) > SEEN:
                    del self._seen[next(iter(self._seen))]
                return None
            if key not in self._programs:
                self._programs[key] = self._specialized(args)
            return self._programs[key]
        finally:
            self._lock.release()

    def _specialized(self, args: Sequence[Any]) -> Callable:
        try:
            static = specialize(self._gm, args)
        except Exception as e:  # whatever a fake kernel raises: ATen's kernels need not
            log.info("a graph stays on ATen, its sizes can't be followed: %s", e)
            return self._on_aten
        with compat.plain_dispatch():
            return self._compile(static)


def _sizes(value: Any) -> Any:
    """What tells calls apart: the sizes and strides of a tensor, a number itself."""
    if isinstance(value, torch.Tensor):
        strided = value.layout == torch.strided
        return tuple(value.shape), tuple(value.stride()) if strided else ()
    return value

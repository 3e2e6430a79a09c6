"""A graph on ATen, op by op: what is done with what cannot be compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import fx

from . import compat

aten = torch.ops.aten
VIEWS = (aten.view.default, aten._unsafe_view.default)


def run_on_aten(gm: fx.GraphModule, restride: bool = False) -> Callable:
    """A graph op by op, as it is but for views, which copy where they must.

    `restride`: its inputs may lie otherwise than they were traced, as what a compiled forward graph
    saves does; views in the graph rely on the traced strides, and some on where memory begins.
    """
    absolute = any(compat.counts_from_memory(n.target, n.args) for n in gm.graph.nodes)
    places = [
        _traced_place(n, absolute) if restride else None
        for n in gm.graph.find_nodes(op="placeholder")
    ]

    @cache
    def module() -> fx.GraphModule:
        """Of what lies otherwise than traced (of fake kernels that are wrong about it: group norms
        of channels that lie innermost, on a CPU) a view may have to be a copy."""
        copied = fx.GraphModule(gm, copy.deepcopy(gm.graph))
        for n in copied.graph.nodes:
            if n.target in VIEWS:
                n.target = aten.reshape.default
        copied.recompile()
        return copied

    def run(args: list[Any]) -> list[Any]:
        values = list(args)
        args.clear()
        for i, place in enumerate(places):
            x = values[i]
            if place is None or x is None:
                continue
            strides, offset = place
            if tuple(x.stride()) != strides or offset not in (None, x.storage_offset()):
                values[i] = x.new_empty_strided(x.shape, strides).copy_(x)
        return module()(*values)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run


def _traced_place(n: fx.Node, absolute: bool) -> tuple[tuple[int, ...], int | None] | None:
    """A graph input's strides, where they are numbers, and if wanted where it begins: what is
    copied begins at 0."""
    value = n.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return None
    strides, begins = tuple(value.stride()), value.storage_offset()
    if not all(isinstance(s, int) for s in strides):
        return None
    return strides, 0 if absolute and isinstance(begins, int) and begins == 0 else None

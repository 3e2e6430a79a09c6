"""Concatenations that begin alike are nested.

    cat(a, b); cat(a, b, c)  ==>  ab = cat(a, b); cat(ab, c)
    cat(a)                   ==>  a

DenseNet concatenates all earlier features before each layer. Nested, every feature is in one
concatenation only, and all of a block's are slices of one buffer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .rewriter import Rewriter

aten = torch.ops.aten


def share_cat(r: Rewriter) -> None:
    known: dict[
        tuple[int, tuple[Any, ...]], fx.Node
    ] = {}  # (dim, inputs) -> the node that concatenates them
    for n in r.nodes(aten.cat.default):
        inputs: tuple[Any, ...] = tuple(n.args[0])  # type: ignore[arg-type]
        rank = n.meta["val"].dim()
        dim = (n.args[1] if len(n.args) > 1 else 0) % max(rank, 1)
        if len(inputs) == 1 and r.spend():
            r.replace(n, inputs[0])
            continue
        known.setdefault((dim, inputs), n)
        for length in range(len(inputs) - 1, 1, -1):
            prefix = known.get((dim, inputs[:length]))
            if prefix is not None and prefix is not n:
                if r.spend():
                    n.update_arg(0, [prefix, *inputs[length:]])
                break

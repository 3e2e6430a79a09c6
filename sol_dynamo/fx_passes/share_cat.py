"""Concatenations that begin alike are nested.

    cat(a, b); cat(a, b, c)  ==>  ab = cat(a, b); cat(ab, c)
    cat(a)                   ==>  a

DenseNet concatenates all earlier features before each layer. Nested, every feature is in one
concatenation only, and all of a block's are slices of one buffer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from .rewriter import Rewriter

aten = torch.ops.aten


@dataclass
class Prefix:
    """A sequence of inputs with which some concatenation begins."""

    whole: fx.Node | None = None  # the first node that concatenates just these
    longer: dict[Any, Prefix] = field(default_factory=dict)  # by the next input


def share_cat(r: Rewriter) -> None:
    roots: dict[int, Prefix] = {}  # by dimension
    for n in r.nodes(aten.cat.default):
        inputs: Any = n.args[0]
        if len(inputs) == 1 and r.spend():
            r.replace(n, inputs[0])
            continue
        dim = (n.args[1] if len(n.args) > 1 else 0) % max(n.meta["val"].dim(), 1)
        at = roots.setdefault(dim, Prefix())
        known, length = None, 0  # the longest earlier concatenation that this one begins with
        for k, x in enumerate(inputs):
            if at.whole is not None and k > 1:
                known, length = at.whole, k
            at = at.longer.setdefault(x, Prefix())
        if at.whole is None:
            at.whole = n
        if known is not None and r.spend():
            n.update_arg(0, [known, *inputs[length:]])

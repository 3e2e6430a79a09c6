"""FX -> FX: the graph as AOTAutograd gives it becomes what lowering wants to see.

`PASSES` is the order; an entry says why it stands where it stands. A pass is a function
GraphModule -> number of rewrites, over ATen ops with fake values in `meta["val"]`. The driver alone
does timing, dumping, fuel and verification. Nothing here knows the loop IR or a device's name.
"""

from __future__ import annotations

import logging
import operator
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx

from ..compat import memory_of
from ..config import Config
from ..target import Caps
from .batch_norm import batch_norm
from .convolution_backward import convolution_backward
from .fold_scale import fold_scale
from .hoist import Hoisted, hoist
from .layout import layout
from .normalize import normalize
from .partition import partitioned
from .rewriter import Rewriter
from .share_cat import share_cat

log = logging.getLogger("sol_dynamo")


# for each output that is a view of another one: which, and its first element there
Views = Sequence[tuple[int, int] | None]


@dataclass(frozen=True)
class Pass:
    name: str
    run: Callable[[Rewriter], None]


PASSES = (
    Pass("normalize", normalize),  # first: the others match one form of each op only
    Pass("convolution_backward", convolution_backward),
    Pass("batch_norm", batch_norm),
    Pass("fold_scale", fold_scale),  # after batch_norm, which makes the scales
    Pass("share_cat", share_cat),
    Pass("layout", layout),  # last: it annotates the nodes that remain
)


def run(
    gm: fx.GraphModule,
    weights: Sequence[int],
    caps: Caps,
    config: Config,
    output_strides: Sequence[tuple[int, ...] | None] | None = None,
    output_views: Views | None = None,
) -> Hoisted:
    """All passes over a graph whose placeholders at `weights` are parameters and buffers.

    `output_strides`: what each output must have, None for one that may have any; without them
    those of the graph as it comes, before a pass replaces values by equal ones that lie otherwise.
    `output_views`: which are to be views of which.
    """
    fuel = [config.fuel]
    known: dict[Hashable, Any] = {}
    output = gm.graph.output_node()
    output.meta["sol_output_strides"] = output_strides or traced_strides(gm)
    output.meta["sol_output_views"] = output_views
    for p in PASSES:
        start = time.perf_counter()
        rewriter = Rewriter(gm, frozenset(weights), caps, fuel, known)
        p.run(rewriter)
        rewriter.finish()
        log.debug(
            "%s: %d rewrites, %.1f ms", p.name, rewriter.count, 1e3 * (time.perf_counter() - start)
        )
        if config.check or config.strict:
            verify(gm, p.name)
        if config.dump:
            folder = Path(config.dump)
            folder.mkdir(parents=True, exist_ok=True)
            text = gm.print_readable(print_output=False)
            (folder / f"{PASSES.index(p)}_{p.name}.py").write_text(text)
    return hoist(gm, frozenset(weights))


def traced_strides(gm: fx.GraphModule) -> list[tuple[int, ...] | None]:
    """The strides of a graph's outputs as they were traced; None for what is no tensor."""
    (outputs,) = gm.graph.output_node().args
    values = (a.meta.get("val") if isinstance(a, fx.Node) else None for a in outputs)
    return [tuple(v.stride()) if isinstance(v, torch.Tensor) else None for v in values]


def views_of_outputs(gm: fx.GraphModule) -> Views:
    """Which outputs view others, whose memory is seen as a whole: a caller who writes to one of
    them changes the other."""
    outputs: Any = gm.graph.output_node().args[0]
    found: list[tuple[int, int] | None] = [None] * len(outputs)
    together: dict[Any, list[tuple[int, int, int]]] = {}  # output, its first element and its end
    for k, a in enumerate(outputs):
        v = a.meta.get("val") if isinstance(a, fx.Node) else None
        if isinstance(v, torch.Tensor) and (place := _place(v)):
            together.setdefault((memory_of(v), v.dtype), []).append((k, *place))
    for group in together.values():
        start, end = min(first for _, first, _ in group), max(last for *_, last in group)
        whole = [
            k
            for k, *place in group
            if place == [start, end] and outputs[k].meta["val"].numel() == end - start
        ]
        for k, first, _ in group:
            if whole and k != whole[0]:
                found[k] = whole[0], first - start
    return found


def _place(t: torch.Tensor) -> tuple[int, int] | None:
    """A tensor's first element in its memory and one past its last; None where there are none, or
    where they are not known."""
    if t.layout != torch.strided:
        return None
    first: Any = t.storage_offset()
    if not all(isinstance(n, int) for n in (first, *t.shape, *t.stride())) or 0 in t.shape:
        return None
    last: Any = sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    return first, first + last + 1


def verify(gm: fx.GraphModule, name: str) -> None:
    """The graph is well-formed and every node has a value to speak of, or such parts."""
    gm.graph.lint()
    for n in gm.graph.nodes:
        taken_apart = all(u.target is operator.getitem for u in n.users)
        if n.op == "call_function" and "val" not in n.meta and not taken_apart:
            raise AssertionError(f"pass {name} left {n} = {n.target} without a value")


__all__ = ["PASSES", "Hoisted", "partitioned", "run"]

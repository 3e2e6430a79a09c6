"""Every private torch import of this package, with what differs between versions 2.11 and 2.14."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.backends.common import aot_autograd
from torch._guards import TracingContext


def static_input_indices() -> list[int]:
    """Which graph inputs are parameters and buffers, as AOTAutograd found them."""
    context = TracingContext.try_get()
    meta = getattr(context, "fw_metadata", None) if context is not None else None
    return list(getattr(meta, "static_input_indices", None) or [])


def mutated_input_indices() -> set[int]:
    """Which graph inputs the graph writes to."""
    context = TracingContext.try_get()
    meta = getattr(context, "fw_metadata", None) if context is not None else None
    found = set(getattr(meta, "mutated_inp_runtime_indices", None) or [])
    for i, info in enumerate(getattr(meta, "input_info", None) or []):
        if info.mutates_data or info.mutates_metadata:
            found.add(i)
    return found


def core_decompositions() -> dict[Any, Callable]:
    """ATen's own decompositions into core ops."""
    from torch._decomp import core_aten_decompositions

    return dict(core_aten_decompositions())


def min_cut_partition() -> Callable:
    from functorch.compile import min_cut_rematerialization_partition

    return min_cut_rematerialization_partition


def fake_mode_of(gm: torch.fx.GraphModule) -> Any:
    """The fake-tensor mode of a graph's example values."""
    from torch._guards import detect_fake_mode

    values = [n.meta.get("val") for n in gm.graph.nodes if n.op == "placeholder"]
    return detect_fake_mode([v for v in values if isinstance(v, torch.Tensor)])


def maybe_disable_fake(mode: Any) -> Any:
    from contextlib import nullcontext

    return mode if mode is not None else nullcontext()


__all__ = ["TracingContext", "aot_autograd"]

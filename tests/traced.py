"""A backend that runs ATen and lays results out as the fake kernels said while tracing.

Where these know other strides than ATen's kernels give, a compiler goes by the fake kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from functorch.compile import make_boxed_func
from torch import fx
from torch._dynamo.backends.common import aot_autograd


class _Laid(fx.Interpreter):
    """Runs a graph node by node, each result in the strides that its fake tensor has."""

    def run_node(self, n: fx.Node) -> Any:
        fake = n.meta.get("val")
        result = super().run_node(n)
        return result if fake is None else pytree.tree_map(_laid_out, result, fake)


def _laid_out(x: Any, fake: Any) -> Any:
    if not isinstance(x, torch.Tensor) or x.layout != torch.strided or x.numel() == 0:
        return x
    pairs = zip(fake.shape, x.stride(), fake.stride(), strict=True)
    if x._base is not None or all(n == 1 or a == b for n, a, b in pairs):
        return x
    return x.new_empty_strided(fake.shape, fake.stride()).copy_(x)


def _compiler(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable:
    return make_boxed_func(_Laid(gm).run)


as_traced = aot_autograd(fw_compiler=_compiler, bw_compiler=_compiler)

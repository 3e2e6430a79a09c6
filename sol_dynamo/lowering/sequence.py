"""Tensors made of nothing: sequences as expressions of an index, and memory that nobody wrote."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..affine import Index
from ..ir import DTYPES, Const, Expr, Iota, Op
from .graph import Lowering, NotHandled, cast, constant, rule

aten = torch.ops.aten
_EXACT = {"f64": 2**53, "f32": 2**24, "f16": 2**24, "bf16": 2**24, "i32": 2**31, "i64": 2**63}


@rule(aten.arange.start_step)
def arange(low: Lowering, node: fx.Node, start: Any, end: Any, step: Any = 1, **_: Any) -> Any:
    """start + i * step: whole numbers exactly, others in float64 and rounded once."""
    out = low.output(node)
    if not all(isinstance(v, (int, float)) for v in (start, step)):
        return NotHandled("a sequence of what is no number")
    whole = all(v == v // 1 for v in (start, step))
    if not whole and DTYPES[out.dtype][1] != "f":
        return NotHandled(f"a sequence of {out.dtype} by fractions")

    def value(i: Index) -> Expr:
        if not whole:
            moved = Op("mul", (Iota(i, "f64"), Const(float(step), "f64")), "f64")
            return Op("add", (Const(float(start), "f64"), moved), "f64")
        place = i * int(step) + int(start)
        last = int(start) + int(step) * max(out.shape[0] - 1, 0)
        if max(abs(int(start)), abs(last)) < _EXACT.get(out.dtype, 0):
            return Iota(place, {"f16": "f32", "bf16": "f32"}.get(out.dtype, out.dtype))
        return cast(Iota(place, "i64"), out.dtype)

    return low.pointwise(out, value)


@rule(aten.empty.memory_format, aten.empty_permuted.default)
def empty(low: Lowering, node: fx.Node, *_: Any, **__: Any) -> Any:
    """Zeros, for who reads what nobody wrote: mostly nobody does, and nothing is left of them."""
    out = low.output(node)
    return low.pointwise(out, lambda *i: constant(0, out.dtype))

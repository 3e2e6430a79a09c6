"""Triton's interpreter, completed: what it lacks of what emitted kernels call, in numpy.

TRITON_INTERPRET=1 runs kernels on CPU tensors, so that they are tested where there is no GPU. It
knows no functions of libdevice, and combines reductions of other than its own
functions one element at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ...interp import FUNCTIONS, OPERATIONS

_OTHER = {"rint": np.rint, "fmod": np.fmod, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil,
          "trunc": np.trunc}  # fmt: skip
_REDUCED = {
    "combine_max": np.maximum, "combine_min": np.minimum, "combine_prod": np.multiply,
    "combine_any": np.bitwise_or, "combine_all": np.bitwise_and,
}  # fmt: skip

_FOUND = {"combine_argmax": np.maximum, "combine_argmin": np.minimum}


@cache
def libdevice_of_interpreter() -> SimpleNamespace:
    """CUDA's table of functions, over a builder that knows what they mean."""
    import triton.language as tl
    import triton.runtime.interpreter as interpreter
    from triton.language.core import is_builtin
    from triton.language.extra.cuda import libdevice

    builder = interpreter.InterpreterBuilder
    handle = interpreter.TensorHandle

    def create_extern_elementwise(self, lib, path, symbol, args, result, pure) -> Any:
        values = [np.asarray(a.data) for a in args]
        made = np.asarray(_function(symbol)(*(v.astype(np.float64) for v in values)))
        return handle(made.astype(values[0].dtype), args[0].dtype)

    def create_inline_asm(self, asm, constraints, values, types, pure, pack) -> Any:
        if not asm.startswith("cvt.rna.tf32"):
            raise NotImplementedError(f"{asm} in the interpreter")
        made = handle(OPERATIONS["tf32"](np.asarray(values[0].data)), tl.float32)
        return SimpleNamespace(get_result=lambda _: made)

    plain_dot = builder.create_dot

    def create_dot(self, a, b, acc, precision, imprecise) -> Any:
        a, b = (
            handle(x.data.astype(np.uint32).__lshift__(16).view(np.float32), tl.float32)
            if x.dtype.scalar == tl.bfloat16  # it would multiply the bits
            else x
            for x in (a, b)
        )
        return plain_dot(self, a, b, acc, precision, imprecise)

    plain_cast = builder.cast_impl

    def cast_impl(self, value, dtype) -> Any:
        if value.dtype.scalar == tl.float32 and dtype.scalar == tl.bfloat16:  # it would truncate
            data = torch.from_numpy(np.array(value.data, np.float32)).to(torch.bfloat16)
            return handle(data.view(torch.uint16).numpy(), tl.bfloat16)
        return plain_cast(self, value, dtype)

    plain_binary = builder.binary_op

    def binary_op(self, a, b, op) -> Any:
        made = plain_binary(self, a, b, op)
        if np.asarray(made.data).dtype == np.bool_:  # else a scalar's would become numbers
            made.dtype = tl.int1
        return made

    builder.cast_impl, builder.binary_op = cast_impl, binary_op
    builder.create_inline_asm, builder.create_dot = create_inline_asm, create_dot
    builder.create_extern_elementwise = create_extern_elementwise
    _reduce_by_numpy(interpreter.ReduceOps)
    semantic = interpreter.interpreter_semantic
    return SimpleNamespace(**{
        name: partial(function, _semantic=semantic)
        for name, function in vars(libdevice).items()
        if is_builtin(function)
    })  # fmt: skip


def _reduce_by_numpy(ops: Any) -> None:
    plain = ops.apply_impl

    def apply_impl(self: Any, input: Any) -> Any:
        name = getattr(getattr(self.combine_fn, "fn", self.combine_fn), "__name__", "")
        along = {"axis": self.axis, "keepdims": self.keep_dims}
        data = [x.handle.data for x in input]
        if name in _REDUCED and self.axis is not None:
            made = [_REDUCED[name].reduce(data[0], **along)]
        elif name in _FOUND and self.axis is not None:
            best = _FOUND[name].reduce(data[0], axis=self.axis, keepdims=True)
            same = (data[0] == best) | ((data[0] != data[0]) & (best != best))
            first = np.where(same, data[1], np.iinfo(data[1].dtype).max).min(**along)
            made = [best if self.keep_dims else best.squeeze(self.axis), first]
        else:
            return plain(self, input)
        return [self.to_tensor(m, x.dtype) for m, x in zip(made, input, strict=True)]

    ops.apply_impl = apply_impl


def _function(symbol: str) -> Callable[..., Any]:
    """What "__nv_expf" or "__nv_exp" computes."""
    name = symbol.removeprefix("__nv_")
    for known in (name, name.removesuffix("f")):
        for table in (FUNCTIONS, _OTHER, OPERATIONS):
            if known in table:
                return table[known]
    raise NotImplementedError(f"{symbol} in the interpreter")

"""Ops of a device one at a time: each kind of call is a program of its own, made by the pipeline.

    add(x: f32[3, 4], 2.5, out=y)  ==>  y := program(x, 2.5)

The device's dispatcher (`ve/csrc/programs.cpp`) keeps programs by what calls look like: the op, the
dtypes, sizes and strides of tensors, numbers and flags. It asks `compile_op` for those that it
does not know, once each; what has no program (an op without a rule somewhere in its parts, sizes
that are data) is the CPU's. A call that writes to its arguments is traced as the functional op, and
the program stores to them where nothing that it reads lies there. Ops of lists are programs of
their elements, run in one call (`lists`). Nothing here knows how programs are made, nor the
device's name.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from .. import backend, programs
from ..config import Config, config
from ..ir import Extern, Kernel, Load, Loops, Program, read, walk, written
from . import pieces
from .calls import Call, Unfit, operator
from .lists import Elements, NotYetError, is_list_call
from .run import OneOp, Plan, Write
from .trace import Input, outputs_of, traced

log = logging.getLogger("sol_dynamo")
_lock = threading.RLock()
_inside = threading.local()


def compile_op(
    name: str, overload: str, arguments: list[Any], numbers_at: list[int]
) -> tuple[Callable, tuple[int, ...]] | bool | None:
    """The program of a call, as a function of its tensors and numbers, and how its results are
    grouped; None where the CPU is to run it, False where it is to do so this time. `arguments` are
    in the schema's order; at `numbers_at` stand numbers of which only the kind matters.

    It is made in a thread of its own: the caller's may be in the middle of a trace or of another
    mode, which would take our fake tensors for its own.
    """
    made: list[Any] = [None]

    def work() -> None:
        try:
            made[0] = _made(operator(name, overload), arguments, numbers_at)
        except BaseException as e:
            made[0] = e

    if getattr(_inside, "compiling", False):
        work()
    else:
        thread = threading.Thread(target=work, name="sol_dynamo eager")
        thread.start()
        thread.join()
    if isinstance(made[0], BaseException):
        raise made[0]
    return made[0]


def _made(
    op: Any, arguments: list[Any], numbers_at: list[int]
) -> tuple[Callable, tuple[int, ...]] | bool | None:
    _inside.compiling = True
    c = config()
    try:
        with _lock, torch.no_grad():
            call = Call(op, arguments, numbers_at)
            if is_list_call(call):
                elements = Elements(call, c, lambda e: OneOp(_plan(e, c), e.target, e.device))
                return elements, elements.counts
            if not pieces.wanted(call, call.name(c)):
                return _of_any_size(call)
            program = OneOp(_plan(call, c), call.target, call.device)
            return program, program.counts
    except NotYetError:
        return False
    except Unfit as e:
        log.debug("%s has no program: %s", op, e)
    except Exception as e:
        if c.strict:
            raise
        warnings.warn(
            f"sol_dynamo could not compile {op} and leaves it to the CPU: right, but slow. Please"
            f" report this: {type(e).__name__}: {e}",
            stacklevel=2,
        )
    return None


def _of_any_size(call: Call) -> tuple[Callable, tuple[int, ...]] | bool:
    """For a call whose sizes may not come again."""

    def make(piece: Call) -> OneOp:
        return OneOp(_plan(piece, config()), piece.target, piece.device)

    try:
        return pieces.InPieces(call, make), ()
    except Unfit as e:
        log.debug("%s runs on the CPU, the first time with these sizes: %s", call.op, e)
        return False


def _plan(call: Call, c: Config) -> Plan:
    key = None if c.check or c.dump or c.fuel >= 0 else call.name(c)
    plan = programs.find(key, Plan) if key else None
    if plan is None:
        plan = _compiled(call, c)
        if key:
            programs.keep(key, plan)
    return plan


def _compiled(call: Call, c: Config) -> Plan:
    gm, inputs, counts, writes = traced(call)
    outputs, copied = outputs_of(gm, inputs)
    writes = [*writes, *copied]
    values = [n.meta.get("val") if isinstance(n, fx.Node) else None for n in outputs]
    strides: list[tuple[int, ...] | None] = [
        tuple(v.stride()) if isinstance(v, torch.Tensor) else None for v in values
    ]
    results = len(outputs) - len(writes)
    for j, k in enumerate(writes):
        value, target = values[results + j], call.tensors[k]
        if value is None or value.dtype != target.dtype:
            raise Unfit("a write of another dtype")
        if value.shape != target.shape:
            read_too = any(t is target for j, t in enumerate(call.tensors) if j != k)
            if k not in call.resized or read_too or call.alike[k]:
                raise Unfit("a write of another size")
        elif target.numel():
            strides[results + j] = tuple(target.stride())
    if not any(isinstance(n, fx.Node) for n in outputs):
        raise Unfit("nothing to compute")
    kept, changed = backend.compiled(gm, call.target, c, strides)
    for step in kept.program.kernels:
        if isinstance(step, Extern) and step.name != "seed":
            raise Unfit(f"{step.op}: {step.reason}")
    if changed:
        raise Unfit("a kernel that the target can't take")
    return Plan(
        kept,
        inputs,
        tuple(i if isinstance(n, fx.Node) else None for i, n in enumerate(outputs[:results])),
        tuple(
            Write(
                k,
                results + j,
                _direct(call, kept.program, inputs, k, results + j),
                _size(values[results + j], call.tensors[k]),
            )
            for j, k in enumerate(writes)
        ),
        counts,
    )


def _size(value: Any, target: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Shape and strides that a tensor is to have."""
    return None if value.shape == target.shape else (tuple(value.shape), tuple(value.stride()))


def _direct(call: Call, program: Program, inputs: Sequence[Input], k: int, output: int) -> bool:
    """Whether a program may store a result where the call's tensor `k` lies: nothing that it reads
    is there, it has been read before, or each element is read where it is stored."""
    name = program.outputs[output]
    if name is None or program.buffers[name].scope != "output":
        return False
    if program.buffers[name].base is not None or program.outputs.count(name) > 1:
        return False
    own = [k, *call.alike[k]]
    if any(j != k and j in call.written for j in own):
        return False
    stored = [
        n
        for n, step in enumerate(program.kernels)
        if any(program.base(w).name == name for w in written(step))
    ]
    if len(stored) != 1 or program.depth_first:
        return False
    for j in own:
        buffers = [program.inputs[i] for i, x in enumerate(inputs) if x.tensor == j]
        for b in buffers:
            for n, step in enumerate(program.kernels):
                if n < stored[0] or not any(program.base(r).name == b for r in read(step) if r):
                    continue  # done before the place is stored to
                if n > stored[0] or not _pointwise(program, step, b, name):
                    return False
    return True


def _pointwise(program: Program, kernel: Kernel | Extern, source: str, out: str) -> bool:
    """Whether a kernel reads an element of `source` only where it stores that of `out`."""
    if not isinstance(kernel, Kernel) or len(kernel.body) != 1:
        return False
    (nest,) = kernel.body
    if nest.binds or any(a.kind != "parallel" for a in nest.axes):
        return False
    stores = [s for s in nest.stores if out in s.buffers]
    if len(stores) != 1 or stores[0].mask or not _reads(program, nest, source):
        return False
    at = program.buffers[out].address(stores[0].index)
    return all(
        program.buffers[e.buffer].address(e.index) == at and not e.mask
        for e in _reads(program, nest, source)
    )


def _reads(program: Program, nest: Loops, source: str) -> list[Load]:
    roots = [v for s in nest.stores for v in s.values]
    return [
        e for e in walk(*roots) if isinstance(e, Load) and program.base(e.buffer).name == source
    ]

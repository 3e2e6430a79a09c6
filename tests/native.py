"""Programs of the loop IR as native code: scheduled, built and run on this machine, and held to
what the interpreter gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from sol_dynamo.interp import run
from sol_dynamo.ir import Extern, Kernel, Program
from sol_dynamo.kernels.c.target import target
from sol_dynamo.lowering.graph import TORCH_DTYPE
from sol_dynamo.schedule import schedule
from sol_dynamo.schedule.memory import plan_memory
from sol_dynamo.spec import check
from sol_dynamo.target import Caps

Array = np.ndarray
CPU = target()


def unscheduled(program: Program) -> Program:
    """One nest a kernel, no schedule, no local memory, no packs: as lowering leaves programs."""
    packed = [b for nest in program.packs for s in nest.stores for b in s.buffers]
    kernels: list[Kernel | Extern] = [Kernel(n.name, (n,)) for n in program.packs]
    for k in program.kernels:
        if isinstance(k, Extern):
            kernels.append(k)
            continue
        kernels += [Kernel(n.name, (n,), origin=k.origin) for n in k.body]
    buffers = {
        n: replace(b, scope="arena") if b.scope == "local" or n in packed else b
        for n, b in program.buffers.items()
    }
    return replace(program, buffers=buffers, kernels=tuple(kernels), packs=())


def default_schedule(program: Program, caps: Caps | None = None) -> Program:
    """What the pipeline makes of a program."""
    return schedule(
        unscheduled(program),
        caps or CPU.caps,
        after=lambda step, p: check(p, f"schedule, {step}"),
    )


def own_schedule(program: Program) -> Program:
    """A program with the schedules that it has."""
    return plan_memory(program)


def execute(program: Program, arrays: Sequence[Array]) -> list[Array]:
    """A scheduled program's outputs, natively; bf16 comes and goes as float32."""
    executable = CPU.build(CPU.emit(program), program)
    tensors: dict[str, list[torch.Tensor]] = {"input": [], "weight": []}
    for name, a in zip(program.inputs, arrays, strict=True):
        b = program.buffers[name]
        memory = torch.empty_strided(b.shape, b.strides, dtype=TORCH_DTYPE[b.dtype])
        tensors[b.scope].append(memory.copy_(torch.from_numpy(np.array(a))))
    outputs = executable(tensors["input"], executable.prepare(tensors["weight"]))
    return [(y.float() if y.dtype == torch.bfloat16 else y).numpy() for y in outputs]


def assert_close(got: Array, expected: Array, ulps: float) -> None:
    """Equal integers; floats within some ulp of the largest number, NaN and infinity in place."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    finite = expected[np.isfinite(expected)]
    atol = ulps * np.finfo(expected.dtype).eps * (np.abs(finite).max() if finite.size else 0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=float(atol))


def assert_means(program: Program, arrays: Sequence[Array], ulps: float = 4) -> list[Array]:
    """A scheduled program gives natively what the interpreter gives; gives the outputs."""
    outputs = execute(program, arrays)
    for got, expected in zip(outputs, run(program, arrays), strict=True):
        assert_close(got, expected, ulps)
    return outputs

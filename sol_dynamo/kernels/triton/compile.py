"""Compiling a program's Triton functions for a GPU that need not be there."""

from __future__ import annotations

from typing import Any

from ...ir import Program
from .execute import load
from .nest import Launch
from .program import launches_of
from .walk import ALIGNED

_TYPES = {"f64": "fp64", "f32": "fp32", "f16": "fp16", "bf16": "bf16", "bool": "i1"}


def compile_program(
    sources: dict[str, str], program: Program, capability: int
) -> dict[str, tuple[Launch, Any]]:
    """Each function's first launch and compiled kernel (`.asm["ptx"]`, `.metadata`), for an NVIDIA
    GPU of a compute capability: 90 is an H100's.

    Errors: those of Triton's compiler.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    made: dict[str, tuple[Launch, Any]] = {}
    for launch in launches_of(sources["program.py"]):
        if launch is None or launch.function in made:
            continue
        name = launch.function
        function = getattr(load(name, sources[f"{name}.py"]), name)
        dtypes = [program.buffers[b].dtype for b in launch.buffers]
        source = ASTSource(
            function,
            {p: f"*{_TYPES.get(d, d)}" for p, d in zip(function.arg_names, dtypes, strict=True)},
            attrs={(i,): [["tt.divisibility", ALIGNED]] for i in range(len(dtypes))},
        )
        options = {"num_warps": launch.warps, "num_stages": launch.stages}
        target = GPUTarget("cuda", capability, 32)
        made[name] = launch, triton.compile(source, target=target, options=options)
    return made

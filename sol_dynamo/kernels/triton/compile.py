"""Compiling a program's Triton functions, for a GPU that need not be there."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

from ...ir import Program
from ...runtime import cache
from .blocks import ALIGNED
from .launch import BEHIND, SCRATCH, Launch
from .program import launches_of

_modules: dict[str, ModuleType] = {}
_TYPES = {"f64": "fp64", "f32": "fp32", "f16": "fp16", "bf16": "bf16", "bool": "i1"}


def load(name: str, text: str) -> ModuleType:
    """A module of emitted text; Triton reads its functions' source from a file."""
    key = cache.key("triton", text)
    if key not in _modules:
        path = cache.lookup(key, ".py") or cache.store(key, ".py", text.encode())
        spec = importlib.util.spec_from_file_location(f"sol_dynamo_kernels.{name}", path)
        assert spec is not None and spec.loader is not None, path
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        _modules[key] = module
    return _modules[key]


def compile_program(
    sources: dict[str, str],
    program: Program,
    capability: int | str,
    shared: int | None = None,
) -> dict[str, tuple[Launch, Any]]:
    """Each function's first launch and compiled kernel (`.asm["ptx"]`, `.metadata`), for an NVIDIA
    GPU of a compute capability (90 is an H100's) or an AMD one by name ("gfx942"), whose programs
    have so many bytes of shared memory.

    Errors: those of Triton's compiler; `TooLarge`.
    """
    made: dict[str, tuple[Launch, Any]] = {}
    for launch in launches_of(sources["program.py"]):
        if launch is not None and launch.function not in made:
            name = launch.function
            dtypes = [SCRATCH.get(b) or program.buffers[b].dtype for b in launch.buffers]
            what = launch, sources[f"{name}.py"], dtypes, capability
            kernel = compile_launch(*what) if shared is None else compile_fitting(*what, shared)[0]
            made[name] = launch, kernel
    return made


def compile_launch(launch: Launch, text: str, dtypes: list[str], capability: int | str) -> Any:
    """Its compiled kernel; `dtypes` are those of the memory that it takes. Errors as above."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(load(launch.function, text), launch.function)
    options = launch.options(capability)
    types = {p: f"*{_TYPES.get(d, d)}" for p, d in zip(function.arg_names, dtypes, strict=False)}
    source = ASTSource(
        function,
        {**types, BEHIND: "constexpr"},
        {BEHIND: options.pop(BEHIND)},
        {(i,): [["tt.divisibility", ALIGNED]] for i in range(len(dtypes))},
    )
    amd = isinstance(capability, str)
    target = GPUTarget("hip", capability, 64) if amd else GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=options)


class TooLarge(RuntimeError):
    """A kernel that no GPU of a kind can start."""


def compile_fitting(
    launch: Launch, text: str, dtypes: list[str], capability: int | str, shared: int
) -> tuple[Any, int]:
    """A kernel that is compiled for a program's bytes of shared memory, and with how many stages of
    loads: fewer where it takes more than `cost.py` expects, as one does that computes an operand of
    several that it loads.

    Errors: those of Triton's compiler; `TooLarge` where it takes more without any.
    """
    for stages in range(launch.stages, 0, -1):
        made = compile_launch(replace(launch, stages=stages), text, dtypes, capability)
        if made.metadata.shared <= shared:
            return made, stages
    raise TooLarge(
        f"{launch.function} takes {made.metadata.shared} bytes of shared memory, and a program on "
        f"this GPU has {shared}"
    )


def written(kernel: Any, stages: int) -> bytes | None:
    """What is kept of a compiled kernel; None for one whose launch takes more than `binary.py`
    knows."""
    m = kernel.metadata
    more = ("global_scratch_size", "profile_scratch_size", "launch_cooperative_grid")
    if any(getattr(m, n, 0) for n in more) or getattr(m, "num_ctas", 1) != 1:
        return None
    head = json.dumps([m.name, m.num_warps, m.shared, stages])
    return head.encode() + b"\n" + kernel.asm["cubin"]

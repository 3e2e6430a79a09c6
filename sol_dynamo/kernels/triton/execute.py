"""Runs a program of Triton kernels: one launch after the other, ATen calls in between."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ...ir import Extern, Program, read
from ...lowering.graph import TORCH_DTYPE
from ...runtime import cache
from ..host import Blocks, Operands, call, memory, tensor
from .nest import Launch
from .program import launches_of

_modules: dict[str, ModuleType] = {}


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


class TritonExecutable:
    """See `target.Executable`."""

    def __init__(self, program: Program, sources: dict[str, str], device_type: str):
        self.program = program
        launches = launches_of(sources["program.py"])
        self._steps: list[tuple[Launch, Callable] | Extern] = []
        for k, launch in zip(program.kernels, launches, strict=True):
            if isinstance(k, Extern):
                self._steps.append(k)
            elif launch is not None:
                module = load(launch.function, sources[f"{launch.function}.py"])
                self._steps.append((launch, getattr(module, launch.function)))
        self._device_type = device_type
        self._operands = Operands(program)
        self._blocks = Blocks(self._operands.saved, device_type)
        self._lock = threading.Lock()

    def prepare(self, weights: list[Any]) -> list[Any]:
        return self._operands.prepare(weights)

    def __call__(self, inputs: list[Any], weights: list[Any]) -> list[Any]:
        p = self.program
        values = self._operands.given(inputs, weights)
        device = next(
            (t.device for t in values.values() if isinstance(t, torch.Tensor)
             and t.device.type == self._device_type), torch.device(self._device_type)
        )  # fmt: skip
        arena = torch.empty(max(p.arena_bytes, 1), dtype=torch.uint8, device=device)
        for b in self._operands.outputs:
            values[b.name] = torch.empty_strided(
                b.shape, b.strides, dtype=TORCH_DTYPE[b.dtype], device=device
            )
        with self._lock:
            values |= self._blocks.take()
        for step in self._steps:
            if isinstance(step, Extern):
                given = {b: tensor(p, b, arena, values) for b in read(step)}
                values |= call(p, step, given, arena)
                continue
            launch, function = step
            args = [memory(p, b, arena, values) for b in launch.buffers]
            self._launch(launch, function, args)
        return [None if o is None else tensor(p, o, arena, values) for o in p.outputs]

    def _launch(self, launch: Launch, function: Any, args: list[torch.Tensor]) -> None:
        extra = {"debug": True} if launch.checks else {}
        try:
            with np.errstate(all="ignore"):  # for the interpreter
                function[(launch.grid,)](
                    *args, num_warps=launch.warps, num_stages=launch.stages, **extra
                )
        except AssertionError as e:  # in the interpreter; a GPU's error comes with its next call
            raise IndexError(str(e)) from None

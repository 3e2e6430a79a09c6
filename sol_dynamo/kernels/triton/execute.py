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

from ...ir import DTYPES, Extern, Program, read
from ...lowering.graph import TORCH_DTYPE
from ...runtime import cache
from ..host import Blocks, call, packed
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
        buffers = program.buffers
        self._device_type = device_type
        self._inputs = [n for n in program.inputs if buffers[n].scope == "input"]
        self._raw = [n for n in program.inputs if buffers[n].scope == "weight"]
        self._packed = [p.stores[0].buffers[0] for p in program.packs]
        self._made = [b for b in buffers.values() if b.scope == "output" and b.base is None]
        self._blocks = Blocks(
            [b for b in buffers.values() if b.scope == "saved" and b.base is None], device_type
        )
        self._lock = threading.Lock()

    def prepare(self, weights: list[Any]) -> list[Any]:
        """The weights as they are, then the packed ones."""
        values = dict(zip(self._raw, weights, strict=True))
        return [*weights, *(packed(self.program, p, values) for p in self.program.packs)]

    def __call__(self, inputs: list[Any], weights: list[Any]) -> list[Any]:
        p = self.program
        values: dict[str, Any] = dict(zip(self._inputs, inputs, strict=True))
        values |= zip((*self._raw, *self._packed), weights, strict=True)
        device = next(
            (t.device for t in values.values() if isinstance(t, torch.Tensor)
             and t.device.type == self._device_type), torch.device(self._device_type)
        )  # fmt: skip
        arena = torch.empty(max(p.arena_bytes, 1), dtype=torch.uint8, device=device)
        for b in self._made:
            values[b.name] = torch.empty_strided(
                b.shape, b.strides, dtype=TORCH_DTYPE[b.dtype], device=device
            )
        with self._lock:
            values |= self._blocks.take()
        for step in self._steps:
            if isinstance(step, Extern):
                given = {b: self._tensor(b, arena, values) for b in read(step)}
                values |= call(p, step, given, arena)
                continue
            launch, function = step
            args = [self._memory(b, arena, values) for b in launch.buffers]
            self._launch(launch, function, args)
        return [None if o is None else self._tensor(o, arena, values) for o in p.outputs]

    def _launch(self, launch: Launch, function: Any, args: list[torch.Tensor]) -> None:
        extra = {"debug": True} if launch.checks else {}
        try:
            with np.errstate(all="ignore"):  # for the interpreter
                function[(launch.grid,)](
                    *args, num_warps=launch.warps, num_stages=launch.stages, **extra
                )
        except AssertionError as e:  # in the interpreter; a GPU's error comes with its next call
            raise IndexError(str(e)) from None

    def _memory(self, name: str, arena: torch.Tensor, values: dict[str, Any]) -> torch.Tensor:
        """A tensor that starts where a buffer with memory of its own does."""
        if name in values:
            return values[name]
        start, dtype = self.program.arena[name], self.program.buffers[name].dtype
        size = DTYPES[dtype][0]
        return arena[start : start + (len(arena) - start) // size * size].view(TORCH_DTYPE[dtype])

    def _tensor(self, name: str, arena: torch.Tensor, values: dict[str, Any]) -> Any:
        """A buffer as a tensor over its memory, or the foreign value that it stands for."""
        b = self.program.buffers[name]
        base = self.program.base(name)
        if base.name in values and b.base is None:
            return values[base.name]
        t = self._memory(base.name, arena, values)
        return t.as_strided(b.shape, b.strides, t.storage_offset() + b.offset)

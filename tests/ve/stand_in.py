"""A target that runs the device's programs as C of the host, on copies: the dispatch of ops can be
tried without the vector engine's compiler. Only tests may use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from sol_dynamo import target
from sol_dynamo.ir import Extern, Program
from sol_dynamo.kernels.c.target import CpuTarget


class Copying:
    def __init__(self, inner: Any):
        self.inner = inner

    def __call__(self, inputs: list, weights: list, into: Mapping[int, Any] | None = None) -> list:
        given = [_read(x) for x in inputs]
        outputs = self.inner(given, weights)
        for k, t in (into or {}).items():
            made = torch.empty(0, dtype=t.dtype, device=t.device)
            made.set_(t.untyped_storage(), t.storage_offset(), t.shape, t.stride())
            _write(t, outputs[k])
            outputs[k] = t
        return [_sent(x) if isinstance(x, torch.Tensor) and x.is_cpu else x for x in outputs]

    def prepare(self, weights: list) -> list:
        return self.inner.prepare(weights)

    def notes(self) -> list[str]:
        return []


def _span(t: torch.Tensor) -> int:
    if not t.numel():
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))


def _read(t: Any) -> Any:
    flat = torch.empty(0, dtype=t.dtype, device=t.device)
    flat.set_(t.untyped_storage(), t.storage_offset(), (_span(t),), (1,))
    return flat.cpu().as_strided(t.shape, t.stride())


def _write(t: Any, value: Any) -> None:
    host = _read(t)
    host.copy_(value)
    flat = torch.empty(0, dtype=t.dtype, device=t.device)
    flat.set_(t.untyped_storage(), t.storage_offset(), (_span(t),), (1,))
    flat.copy_(host.as_strided((_span(t),), (1,)))


def _sent(x: torch.Tensor) -> torch.Tensor:
    made = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="ve")
    _write(made, x)
    return made


class OnHost:
    """A call whose results come back."""

    def __init__(self, op: Any):
        self.op = op

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.op(*args, **kwargs).cpu()


class StandIn(CpuTarget):
    def __init__(self) -> None:
        super().__init__()
        self._caps = replace(self._caps, device_type="ve", alone=True)

    def build(self, sources: dict[str, str], program: Program) -> Any:
        steps = tuple(
            replace(k, op=OnHost(k.op)) if isinstance(k, Extern) else k for k in program.kernels
        )
        program = replace(program, kernels=steps)
        return Copying(super().build(sources, program))

    def describe(self) -> dict[str, str]:
        return {**super().describe(), "kind": "stand-in"}


def install() -> None:
    target._REGISTRY["ve"] = "stand_in:StandIn"
    target._loaded["ve"] = StandIn()

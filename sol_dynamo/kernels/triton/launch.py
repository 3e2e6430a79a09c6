"""A step of a program as what is launched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .interpreted import interpreting

# memory that is no buffer of the program: partial sums of programs that share a block, and how many
# of them have arrived, zero before and after each kernel
PARTS, COUNTERS = "@parts", "@counters"
SCRATCH = {PARTS: "f32", COUNTERS: "i32"}


@dataclass(frozen=True)
class Launch:
    """One step of a program: a function, its grid, and the buffers whose addresses it takes."""

    function: str
    grid: int
    buffers: tuple[str, ...]
    warps: int
    stages: int
    checks: bool = False  # whether it asserts something of its data
    parts: int = 0  # elements of PARTS
    counters: int = 0  # elements of COUNTERS

    def options(self, backend: str = "") -> dict[str, Any]:
        """What Triton compiles it with, for its backend "cuda" or "hip", by default torch's:
        libdevice's functions of denormal numbers, too, which are zero to "cuda" unless told."""
        backend = backend or ("hip" if torch.version.hip else "cuda")
        own: dict[str, Any] = {"debug": True} if self.checks else {}
        if backend == "cuda" and not interpreting():
            own["enable_reflect_ftz"] = False
        return {"num_warps": self.warps, "num_stages": self.stages, **own}

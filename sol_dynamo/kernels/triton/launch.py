"""A step of a program as what is launched."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

# memory that is no buffer of the program: partial sums of programs that share a block, and how many
# of them have arrived, zero before and after each kernel
PARTS, COUNTERS = "@parts", "@counters"
SCRATCH = {PARTS: "f32", COUNTERS: "i32"}
# the parameter that says whether a kernel starts before the one ahead of it is done
BEHIND = "behind"
DEPENDENT = 90  # the compute capability from which a GPU can have it so
SHARED = 227 << 10  # bytes of a program's shared memory, where there is no GPU to ask: an H100's


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

    def options(self, capability: int | str | None = None) -> dict[str, Any]:
        """What Triton compiles it with, for an NVIDIA GPU of a compute capability (90), an AMD one
        by name ("gfx942"), or the current one: libdevice's functions of denormal numbers, too,
        which are zero to NVIDIA's unless told; and a start behind the kernel before, where that is
        not all done (`BEHIND`)."""
        own: dict[str, Any] = {"debug": True} if self.checks else {}
        if capability is None and not interpreting():
            capability = _current()
        if isinstance(capability, int):
            own |= {"enable_reflect_ftz": False, "launch_pdl": capability >= DEPENDENT}
        own[BEHIND] = own.get("launch_pdl", False)
        if not interpreting():
            own["enable_fp_fusion"] = False  # a * b + c is rounded twice, unless it says otherwise
            own["sanitize_overflow"] = False  # checks that are traced, then dropped
        return {"num_warps": self.warps, "num_stages": self.stages, **own}


def interpreting() -> bool:
    """Whether Triton's functions run in its interpreter; it is not imported to be asked."""
    knobs = sys.modules.get("triton.knobs")
    if knobs is not None:
        return bool(knobs.runtime.interpret)
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def shared_memory() -> int:
    """How many bytes of shared memory a program can have on the current GPU."""
    import torch

    if not torch.cuda.is_available():
        return SHARED
    return getattr(torch.cuda.get_device_properties(), "shared_memory_per_block_optin", SHARED)


def _current() -> int | str:
    """What the current GPU is; an H100 where there is none."""
    import torch

    if torch.version.hip:
        return torch.cuda.get_device_properties().gcnArchName
    if not torch.cuda.is_available():
        return DEPENDENT
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor

"""From a lowered program to a scheduled one: five steps, each a function Program -> Program.

Every step asks the target's capabilities and never its name; none changes what is computed.
"""

from __future__ import annotations

from ..ir import Program
from ..target import Caps
from .depth_first import depth_first
from .fusion import fuse
from .memory import plan_memory
from .slices import place_slices
from .tiling import tile

STEPS = (
    (
        "place_slices",
        lambda p, caps: place_slices(p),
    ),  # before fusion: copies must still be kernels
    ("fuse", lambda p, caps: fuse(p)),
    ("depth_first", depth_first),  # before tiling: it sets the extents that tiles are made for
    ("tile", tile),
    ("plan_memory", lambda p, caps: plan_memory(p)),  # last: it fixes every address
)


def schedule(program: Program, caps: Caps, after=None) -> Program:
    """Run all steps; `after(name, program)` sees the program behind each (dumps, checks)."""
    for name, step in STEPS:
        program = step(program, caps)
        if after is not None:
            after(name, program)
    return program

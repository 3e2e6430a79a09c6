"""From a lowered program to a scheduled one: five steps, each a function Program -> Program.

Every step asks the target's capabilities and never its name; none changes what is computed. How
one kernel is walked is the target's own choice: `tiling.schedule_kernel` makes the register tiles
of machines with vector registers, and a machine that computes otherwise brings its own.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir import Program
from ..target import Caps
from .depth_first import depth_first
from .fusion import fuse
from .memory import plan_memory
from .plan import Walk
from .slices import place_slices
from .tiling import schedule_kernel, tile

Step = Callable[[Program, Caps, Walk], Program]

STEPS: tuple[tuple[str, Step], ...] = (
    # before fusion: copies must still be kernels
    ("place_slices", lambda p, caps, walk: place_slices(p)),
    ("fuse", lambda p, caps, walk: fuse(p, caps)),
    # before tiling: it sets the extents that tiles are made for
    ("depth_first", lambda p, caps, walk: depth_first(p, caps)),
    ("tile", tile),
    ("plan_memory", lambda p, caps, walk: plan_memory(p)),  # last: it fixes every address
)


def schedule(
    program: Program,
    caps: Caps,
    walk: Walk = schedule_kernel,
    after: Callable[[str, Program], None] | None = None,
) -> Program:
    """Run all steps; `walk` schedules one kernel; `after(name, program)` sees the program behind
    each step (dumps, checks)."""
    for name, step in STEPS:
        program = step(program, caps, walk)
        if after is not None:
            after(name, program)
    return program

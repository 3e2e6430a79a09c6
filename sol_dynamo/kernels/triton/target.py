"""A GPU as a target: what its multiprocessors can do, and how to build for it."""

from __future__ import annotations

import os
from functools import cached_property, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ... import ir
from ...schedule.plan import Plan
from ...target import Caps
from .binary import version
from .cost import Machine
from .launch import SHARED, interpreting, shared_memory
from .product import SMALLEST, elsewhere, one_sum
from .walk import walk_kernel

if TYPE_CHECKING:
    import torch

# what tests and cross-compiling assume where there is no GPU: an H100's
PROCESSORS, L2 = 132, 50 << 20
PART_COLUMNS = 32  # results side by side that a program sums (`walk`)
COLUMNS = 64  # of a product, for which making an operand in each block pays
TAPS_COLUMNS = 128  # of a block whose neighbouring rows are summed (RESULTS, 2026-11-29 06:40)
ROUNDING = 8  # the major compute capability from which products round their operands to TF32


class TritonTarget:
    """Triton kernels for the GPUs that it knows; on CPU tensors in its interpreter."""

    def __init__(self, device_type: str = "cuda", processors: int = PROCESSORS):
        """`processors`: multiprocessors to make programs for, where there is no GPU to ask."""
        self._device_type, self._processors = device_type, processors

    @cached_property
    def caps(self) -> Caps:
        import torch

        nvidia, processors, l2, shared = torch.version.hip is None, self._processors, L2, SHARED
        rounding = nvidia
        if self._device_type == "cuda" and torch.cuda.is_available():
            device = torch.cuda.get_device_properties(torch.cuda.current_device())
            processors, l2 = device.multi_processor_count, device.L2_cache_size
            rounding, shared = nvidia and device.major >= ROUNDING, shared_memory()
        return Caps(
            self._device_type,
            vector_bytes=16,
            l2=l2,
            cores=processors,
            rows=4 * processors,
            row_cost=512,
            part_bytes=1 << 15,
            part_columns=PART_COLUMNS,
            column_bytes=1 << 17,
            images_first=False,
            columns=COLUMNS,
            taps_columns=(SMALLEST, TAPS_COLUMNS),
            local_bytes=shared,
            tf32=rounding,
            half_products=True,
            rectified=self._device_type == "cuda"
            and nvidia
            and torch.backends.cudnn.is_available(),
            elsewhere=partial(elsewhere, machine=Machine(processors, shared)),
            one_sum=one_sum,
            seconds=self._seconds,
        )

    def available(self) -> str | None:
        if find_spec("triton") is None:
            return "no package triton: pip install triton"
        if self._device_type == "cpu" and not interpreting():
            return "Triton runs on CPU tensors in its interpreter only: TRITON_INTERPRET=1"
        import torch

        if self._device_type == "cuda" and not torch.cuda.is_available():
            return "torch sees no GPU: see torch.cuda.is_available()"
        return None

    def start(self) -> None:
        from .binary import makes_binaries, start

        if makes_binaries(self._device_type):
            start()

    def walk(self, plan: Plan, measure: bool = False) -> None:
        if not measure:
            return walk_kernel(plan)
        from .tune import fastest

        walk_kernel(plan, lambda plan, ways: fastest(plan, ways, self._current()))

    def _seconds(self, program: ir.Program) -> float:
        from .tune import seconds

        return seconds(self.build(self.emit(program), program), program, self._current())

    def _current(self) -> torch.device:
        import torch

        cuda = self._device_type == "cuda"
        return torch.device(self._device_type, torch.cuda.current_device() if cuda else 0)

    def emit(self, program: ir.Program) -> dict[str, str]:
        from .program import emit_program

        return emit_program(program)[0]

    def build(self, sources: dict[str, str], program: ir.Program):
        from .execute import TritonExecutable

        return TritonExecutable(program, sources, self._device_type)

    def describe(self) -> dict[str, str]:
        import torch

        there = self._device_type == "cuda" and torch.cuda.is_available()
        return {
            "compiler": f"triton {version()}",
            **({"device": torch.cuda.get_device_name()} if there else {}),
            "processors": str(self.caps.cores),
            "interpreter": os.environ.get("TRITON_INTERPRET", "off"),
        }


def target() -> TritonTarget:
    return TritonTarget()

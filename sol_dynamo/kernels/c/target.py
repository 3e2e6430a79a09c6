"""The CPU as a target: what this machine's vectors and caches can do, and how to build for it."""

from __future__ import annotations

import platform

from ... import ir
from ...runtime import toolchain
from ...schedule.plan import Plan
from ...schedule.tiling import schedule_kernel
from ...target import Caps
from .execute import NativeExecutable
from .program import emit_program


class CpuTarget:
    """C with GNU vector extensions, compiled by whatever C compiler is at hand."""

    def __init__(self) -> None:
        _, l2, _ = toolchain.cache_sizes()
        features = toolchain.cpu_features()
        wide = 64 if "avx512f" in features else 32 if "avx2" in features else 16
        arm = platform.machine() in ("aarch64", "arm64")
        self._caps = Caps(
            "cpu",
            vector_bytes=wide,
            vector_registers=32 if wide == 64 or arm else 16,
            max_accumulators=28 if wide == 64 or arm else 12,
            l2=l2,
            cores=toolchain.cores(),
        )

    @property
    def caps(self) -> Caps:
        return self._caps

    def available(self) -> str | None:
        try:
            toolchain.find_compiler()
        except toolchain.ToolchainError as e:
            return str(e)
        return None

    def start(self) -> None:
        """The compiler is a process of its own."""

    def walk(self, plan: Plan, measure: bool = False) -> None:
        schedule_kernel(plan)

    def emit(self, program: ir.Program) -> dict[str, str]:
        return emit_program(program).sources

    def build(self, sources: dict[str, str], program: ir.Program) -> NativeExecutable:
        return NativeExecutable(program, toolchain.compile_shared(sources))

    def describe(self) -> dict[str, str]:
        c = toolchain.find_compiler()
        caps, (l1, _, _) = self._caps, toolchain.cache_sizes()
        return {
            "compiler": f"{' '.join(c.command)} ({c.version})",
            "vectors": f"{caps.vector_bytes * 8} bits, {caps.max_accumulators} accumulators",
            "caches": f"L1 {l1 >> 10} KiB, L2 {caps.l2 >> 10} KiB a core",
            "cores": str(caps.cores),
        }


def target() -> CpuTarget:
    return CpuTarget()

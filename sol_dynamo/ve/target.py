"""The vector engine as a target: what it can do, and how a program becomes objects of the card.

Kernels are scheduled by `walk`, written by `program`, compiled by `compiler` and run by `execute`.
An object that needs more vector registers than there are is written again with fewer, in the end
without vectors: that shows in `explain`'s notes, never in a result.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from .. import ir
from ..runtime import toolchain
from ..schedule.plan import Plan
from ..target import Caps
from . import cards, compiler, interface
from .execute import Built, VeExecutable
from .program import ATTEMPTS, Step, Writer, emit_program, file_text, runtime_text, steps_of
from .walk import walk_kernel

LLC = 16 << 20  # bytes: the last-level cache, which the cores share


class VeTarget:
    """Intrinsics of the vector engine in C."""

    @cached_property
    def caps(self) -> Caps:
        return Caps(
            "ve",
            vector_bytes=2048,
            fma_pipes=3,
            load_ports=1,
            fmas_in_flight=16,
            vector_registers=64,
            max_accumulators=32,
            l2=LLC // 8,
            cores=8,
            rows=64,
            row_cost=40,
            part_bytes=1 << 17,
            images_first=False,
            half_products=True,
            alone=True,
            channels_last=False,
        )

    def available(self) -> str | None:
        try:
            compiler.find_compiler()
        except toolchain.ToolchainError as e:
            return str(e)
        return None if cards.find().nodes else "there is no card, and none is simulated"

    def start(self) -> None:
        """The compiler is a process of its own."""

    def walk(self, plan: Plan, measure: bool = False) -> None:
        walk_kernel(plan)

    def emit(self, program: ir.Program) -> dict[str, str]:
        return emit_program(program)

    def build(self, sources: dict[str, str], program: ir.Program) -> VeExecutable:
        interface.register_if_loaded()
        return VeExecutable(program, built(sources, program))

    def describe(self) -> dict[str, str]:
        c = compiler.find_compiler()
        found = cards.find()
        return {
            "made by": f"{' '.join(c.command)} ({c.version})",
            "cards": f"{len(found.nodes)}{' (simulated)' if found.simulated else ''}",
        }


def built(sources: dict[str, str], program: ir.Program) -> Built:
    """The objects of a program's kernels. Errors: `ToolchainError`."""
    texts = {name: text for name, text in sources.items() if name.endswith(".c")}
    runtime = "runtime.c"
    made = compiler.compile_objects({**texts, runtime: runtime_text()})
    steps = steps_of(sources)
    objects: list[Path | None] = [None] * len(steps)
    for name, text in texts.items():
        path = made[name]
        for n, s in enumerate(steps):
            if isinstance(path, Path) and f"void {s.name}(" in text:
                objects[n] = path
    missing = [n for n, path in enumerate(objects) if path is None]
    if missing:
        _again(program, steps, objects, missing)
    runner = made[runtime]
    assert isinstance(runner, Path), runner
    assert all(objects)
    return Built(tuple(steps), tuple(p for p in objects if p is not None), runner)


def _again(
    program: ir.Program, steps: list[Step], objects: list[Path | None], missing: list[int]
) -> None:
    """Kernels of files that were refused: each alone, with ever fewer vector registers."""
    writer = Writer(program)
    for attempt in range(ATTEMPTS + 1):
        codes = {n: writer.code(n, attempt) for n in missing}
        made = compiler.compile_objects({f"k{n}.c": file_text([c]) for n, c in codes.items()})
        for n in missing:
            path = made[f"k{n}.c"]
            if isinstance(path, Path):
                objects[n] = path
                steps[n] = writer.step(n, codes[n])
        missing = [n for n in missing if objects[n] is None]
        if not missing:
            return
    raise toolchain.ToolchainError(f"no code without vectors for {writer.name(missing[0])}")


def target() -> VeTarget:
    return VeTarget()

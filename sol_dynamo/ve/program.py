"""A scheduled program as C files for the vector engine, and the table of its steps.

Each file becomes an object that needs no other: there is no linker for this machine at hand, and so
equal kernels of two programs are one. A kernel is written with vectors, as a dense one by `dense`
or by the general emitter; what these refuse, or what turns out to need too many registers when it
is compiled, is written as scalar C, in which anything can be said.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from ..ir import Bind, Kernel, Program, blamed
from ..kernels.c.addresses import page_name, storage
from ..kernels.c.nest import Code, emit_kernel
from ..kernels.c.program import HEADER, addresses, indirect_sites
from ..kernels.c.scope import identifier
from ..kernels.c.supports import check_supported
from ..kernels.c.values import EmitError
from ..kernels.c.vecmath import PRELUDE
from .dense import emit_dense
from .functions import definitions
from .scalar import one_vector_at_a_time, without_vectors
from .vector import VECTORS, FrugalWalk, ScalarWalk, VectorWalk

log = logging.getLogger("sol_dynamo")

VL = 256

FILE_TEXT = 6_000  # bytes of kernels in a C file: half a second of compiling
STEPS = "steps.json"
RUNTIME = Path(__file__).with_name("steps.c")
BARRIER = Path(__file__).with_name("barrier.h")
ATTEMPTS = 2  # of a dense kernel, each with fewer registers


@dataclass(frozen=True)
class Step:
    """A kernel in the table of steps."""

    name: str  # of its function
    units: int
    scratch: int  # bytes
    vectors: bool = True


def emit_program(program: Program) -> dict[str, str]:
    """C files by name, and the table of steps as `steps.json`."""
    check_supported(program, range(1, VL + 1))
    writer = Writer(program)
    sources: dict[str, str] = {}
    steps: list[Step] = []
    part: list[Code] = []

    def close() -> None:
        if part:
            sources[f"kernels{len(sources)}.c"] = file_text(part)
            part.clear()

    for n in range(len(writer.kernels)):
        code = writer.code(n)
        if code.text.startswith("/* flags:") or sum(len(c.text) for c in part) > FILE_TEXT:
            close()
        part.append(code)
        if code.text.startswith("/* flags:"):
            close()
        steps.append(writer.step(n, code))
    close()
    sources[STEPS] = json.dumps([astuple(s) for s in steps], indent=0)
    return sources


def steps_of(sources: dict[str, str]) -> list[Step]:
    return [Step(*row) for row in json.loads(sources[STEPS])]


class Writer:
    """Writes the kernels of a program one by one."""

    def __init__(self, program: Program):
        self.program = program
        self.kernels = [k for k in program.kernels if isinstance(k, Kernel)]
        self._memory, _ = addresses(program)
        self._plain: set[int] = set()  # kernels that were written without vectors
        self._sites: dict[Bind, int] = {b: n for n, (_, b) in enumerate(indirect_sites(program), 1)}

    def step(self, n: int, code: Code) -> Step:
        return Step(self.name(n), code.units, code.scratch, n not in self._plain)

    def name(self, n: int) -> str:
        return f"k{n}_{identifier(self.kernels[n].name)}"

    def code(self, n: int, attempt: int = 0) -> Code:
        """The n-th kernel; each further attempt needs fewer vector registers, the last one none."""
        kernel, name = self.kernels[n], self.name(n)
        with blamed(kernel):
            if attempt < ATTEMPTS:
                code = emit_dense(kernel, self.program, name, self._memory, attempt)
                if code is not None:
                    return code
            ways = ((kernel, VectorWalk), (one_vector_at_a_time(kernel), FrugalWalk))
            for scheduled, walk in ways[attempt:]:
                try:
                    return self._emitted(scheduled, name, walk)
                except EmitError as e:
                    log.info("%s: %s", name, e)
            log.info("%s is written without vectors", name)
            self._plain.add(n)
            return self._emitted(without_vectors(kernel), name, ScalarWalk)

    def _emitted(self, kernel: Kernel, name: str, walk: Any) -> Code:
        return emit_kernel(kernel, self.program, name, self._memory, self._sites, walk)


def file_text(codes: Iterable[Code]) -> str:
    """A C file of some kernels, with the functions and pages that they use."""
    codes = list(codes)
    flags = ""
    texts = []
    for c in codes:
        first, _, rest = c.text.partition("\n")
        flags, text = (first + "\n", rest) if first.startswith("/* flags:") else (flags, c.text)
        texts += [*(f"static {t}" for t in c.tiles.values()), text]
    uses = set().union(*(c.uses for c in codes))
    pages: dict[tuple[str, str], int] = {}
    for c in codes:
        for key, n in c.pages.items():
            pages[key] = max(pages.get(key, 0), n)
    page = "".join(
        f"static const {storage(dtype)} {page_name(dtype, text)}[{n}] = "
        f"{{[0 ... {n - 1}] = {text}}};\n"
        for (dtype, text), n in pages.items()
    )
    return flags + "\n".join((prelude(), VECTORS, page, definitions(uses), *texts))


def runtime_text() -> str:
    """The C file that runs the steps: the same for all programs."""
    return prelude() + BARRIER.read_text() + RUNTIME.read_text()


def prelude() -> str:
    return "#include <velintrin.h>\n" + PRELUDE(()) + HEADER

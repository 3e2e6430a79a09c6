"""Building of the simulator's library: errors that help, and the compiler that pip brings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from compiled import ve_object

from sol_dynamo.runtime.toolchain import ToolchainError, find_compiler
from sol_dynamo.ve.sim import build


def test_a_compiler_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOL_CXX", "no-such-compiler -O1")
    with pytest.raises(ToolchainError, match=r"install g\+\+ or clang.*\n.*no-such-compiler -O1"):
        build.library()


def test_the_library_is_built_once() -> None:
    first = build.library()
    before = first.stat().st_ino
    assert build.library() == first and first.stat().st_ino == before


C_PROGRAM = """
#include <stdio.h>
#include <string.h>
#include "vesim.h"
int main(int argc, char** argv) {
  static char code[1 << 20], text[200];
  FILE* f = fopen(argv[1], "rb");
  uint64_t n = fread(code, 1, sizeof code, f), result = 0, arguments[2] = {40, 2};
  vesim_trap trap;
  vesim_machine* m = vesim_create(1, 0, 1 << 20);
  vesim_image* i = vesim_load(m, code, n, argv[1], text, sizeof text);
  if (i == 0) return printf("%s", text), 1;
  if (vesim_call(m, vesim_symbol(i, "sum"), arguments, 2, &result, &trap)) return 2;
  vesim_disassemble(0x79ull << 56, text, sizeof text);
  printf("%d %s %d ", (int)result, text, argc);
  vesim_call(m, vesim_symbol(i, "wild"), arguments, 2, &result, &trap);
  printf("%d %s", trap.kind, strstr(trap.text, "wild"));
  vesim_unload(i);
  vesim_destroy(m);
  return 0;
}
"""


def test_a_c_program_uses_it(tmp_path: Path) -> None:
    source, program, code = tmp_path / "main.c", tmp_path / "main", tmp_path / "code.o"
    source.write_text(C_PROGRAM)
    code.write_bytes(ve_object("long sum(long a,long b){return a+b;}int wild(int*p){return*p;}"))
    library, compiler = build.library(), find_compiler()
    subprocess.run(
        [*compiler.command, f"-I{build.SOURCES}", source, library, "-o", program], check=True
    )
    done = subprocess.run([program, code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("42 nop 2 3 wild+0x") and "is not mapped" in done.stdout


PROGRAM = """
import numpy as np
from sol_dynamo.ve import sim
core = sim.Machine().core
core.vl = 256
core.v[1] = np.arange(256.0).view(np.uint64)
core.s[1] = np.float64(2.5).view(np.uint64)
core.execute([0xE2108100_00010001])  # vfmad.d %v0, %v1, %s1, %v1
core.execute([0xE8000000_02000800])  # vcvt.w.d.sx.rz %v2, %v0
assert (core.v[0].view(float) == np.arange(256) * 3.5).all(), core.v[0].view(float)[:8]
assert (core.v[2].astype(int) == (np.arange(256) * 3.5).astype(int)).all()
try:
    core.execute([0])
except sim.Fault as fault:
    assert fault.kind == "IllegalInstruction"
else:
    raise AssertionError
"""


@pytest.mark.slow
def test_ziglang_builds_it(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "SOL_CXX": f"{sys.executable} -m ziglang c++",
        "SOL_CACHE_DIR": str(tmp_path),
    }
    root = str(Path(build.__file__).parents[3])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

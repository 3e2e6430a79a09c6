"""C for the vector engine and, from the same text, for the host: what the tests compare.

VE objects come from ziglang's clang, which every machine with the tests' requirements has. Objects
are kept in the package's cache: a second run compiles nothing.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from functools import cache as memoized
from pathlib import Path

from sol_dynamo.runtime import cache
from sol_dynamo.runtime.toolchain import compile_shared

VE_FLAGS = ("-target", "ve-freestanding", "-ffreestanding", "-fno-builtin", "-fno-sanitize=all")


@memoized
def ve_object(source: str, *flags: str, suffix: str = ".c") -> bytes:
    """The bytes of an object file for VE."""
    command = [sys.executable, "-m", "ziglang", "cc", *VE_FLAGS, *flags, "-c"]
    name = cache.key("ve test object", command[1:], suffix, source)
    found = cache.lookup(name, ".o")
    if found is not None:
        return found.read_bytes()
    with tempfile.TemporaryDirectory(prefix="sol-ve-test-") as folder:
        text, out = Path(folder) / f"source{suffix}", Path(folder) / "out.o"
        text.write_text(source)
        done = subprocess.run([*command, str(text), "-o", str(out)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        data = out.read_bytes()
    cache.store(name, ".o", data)
    return data


@memoized
def host_library(source: str) -> ctypes.CDLL:
    """The same C as a library of this machine, without contraction: bits can be compared."""
    return ctypes.CDLL(str(compile_shared({"ve_test.c": source}, ("-ffp-contract=off",))))

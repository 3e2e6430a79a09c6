"""Triton kernels without a GPU: in Triton's interpreter, on CPU tensors, and compiled for some.

The interpreter is chosen when triton is imported, so that each runs in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def run_kinds(*args: str, **environment: str) -> None:
    given = {**os.environ, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0", **environment}
    command = [sys.executable, str(Path(__file__).with_name("triton_kinds.py")), *args]
    p = subprocess.run(command, env=given, capture_output=True, text=True, timeout=900)
    assert p.returncode == 0, p.stdout + p.stderr[-3000:]


def test_kernels_in_the_interpreter():
    """Each kind of kernel, held to the accuracy contract."""
    run_kinds(TRITON_INTERPRET="1")


def test_kernels_compile_without_a_gpu():
    run_kinds("80", "90", "100")

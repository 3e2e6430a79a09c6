"""Triton kernels in Triton's interpreter, on CPU tensors: no GPU is needed.

The interpreter is chosen when triton is imported, so that these run in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_kernels_in_the_interpreter():
    """Each kind of kernel, held to the accuracy contract by `triton_kinds.py`."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("triton_kinds.py")
    p = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert p.returncode == 0, p.stdout + p.stderr[-3000:]

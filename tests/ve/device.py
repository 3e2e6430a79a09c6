"""What tests of the device share: another process, and comparison with the CPU."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import torch


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, without warnings of fallbacks."""
    import os

    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def check_python(code: str, **environment: str) -> str:
    """The same; it must end well. Its output."""
    done = run_python(code, **environment)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def same(got: torch.Tensor, expected: torch.Tensor, **bounds: Any) -> None:
    """A tensor of the device equals one of the CPU, bit by bit unless bounds are given."""
    assert got.device.type == "ve"
    assert got.dtype == expected.dtype and got.shape == expected.shape
    bounds = bounds or {"rtol": 0, "atol": 0}
    torch.testing.assert_close(got.cpu(), expected, equal_nan=True, **bounds)


def special(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random values with NaN, infinities, denormals and -0 among them."""
    x = torch.randn(shape, dtype=dtype)
    tiny = torch.finfo(dtype).smallest_normal / 4
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), tiny, -0.0], dtype=dtype)
    flat = x.view(-1)
    count = min(len(values), flat.numel())
    flat[torch.randperm(flat.numel())[:count]] = values[:count]
    return x

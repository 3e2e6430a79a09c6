"""What tests of the device share: programs in processes of their own, comparison with the CPU."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


# A process that has imported torch and does nothing but fork: its children start as if they had
# just imported it, without the seconds that takes. A program is a line of JSON.
_FORKING = """
import json, os, sys, torch
for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, name in ((0, os.devnull), (1, task["stdout"]), (2, task["stderr"])):
            os.dup2(os.open(name, os.O_RDWR), number)
        os.environ.update(task["environment"])
        exec(compile(task["code"], "<test>", "exec"), {"__name__": "__main__"})
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@cache
def _forking() -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", _FORKING]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.kill)
    return process


def run_python(code: str, **environment: str) -> Done:
    """Run a program in a process of its own that has imported torch, without warnings. With
    variables that matter while it is imported (SOL_VE, PATH), that is done anew."""
    code = textwrap.dedent(code)
    if {"SOL_VE", "PATH"} & set(environment):
        command = [sys.executable, "-W", "ignore", "-c", code]
        variables = {**os.environ, **environment}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
        return Done(done.returncode, done.stdout, done.stderr)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, name) for name in ("stdout", "stderr")}
        for file in files.values():
            file.touch()
        task = {"code": code, "environment": environment, **{k: str(f) for k, f in files.items()}}
        process = _forking()
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        return Done(status, files["stdout"].read_text(), files["stderr"].read_text())


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

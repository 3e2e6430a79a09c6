"""The command line: what it prints, what it exits with, and that it leaves the rest alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sol_dynamo
from sol_dynamo import __main__ as cli
from sol_dynamo.runtime import toolchain
from sol_dynamo.ve import compiler as ve_compiler

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("SOL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_runs_as_a_module_without_torch() -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['sol_dynamo', '--version']\n"
        "try:\n    runpy.run_module('sol_dynamo', run_name='__main__')\n"
        "except SystemExit as e:\n    assert not e.code, e.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sol_dynamo.__version__


def test_doctor(folder: Path, capsys: Captured) -> None:
    code = cli.main(["doctor"])
    out = capsys.readouterr().out
    for word in ("python", "torch", "triton", "compiler", "target cpu", "device ve", str(folder)):
        assert word in out
    assert code == (0 if "target cpu    not available" not in out else 1)


def test_doctor_says_what_to_do(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise toolchain.ToolchainError("no C compiler found: install gcc")

    monkeypatch.setattr(toolchain, "find_compiler", none)
    monkeypatch.setattr(ve_compiler, "find_compiler", none)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert out.count("to do: no C compiler found: install gcc\n") == 1
    assert "target cpu    not available: " in out


def test_cache(folder: Path, capsys: Captured) -> None:
    assert cli.main(["cache"]) == 0
    assert "0 files, 0.0 MiB in " in capsys.readouterr().out
    (folder / "a.o").write_bytes(bytes(3 << 20))
    cli.main(["cache", "show"])
    assert capsys.readouterr().out == f"1 files, 3.0 MiB in {folder}\n"
    cli.main(["cache", "clear"])
    assert capsys.readouterr().out == f"1 files, 3.0 MiB removed from {folder}\n"
    assert not list(folder.iterdir())


def test_explain(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    seen = []
    monkeypatch.setattr(
        sol_dynamo,
        "explain",
        lambda model, x, **_: seen.append((model, x)) or "said",
        raising=False,
    )
    arguments = ["explain", "shufflenet_v2_x0_5", "--batch", "2", "--size", "64"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == "said\n"
    model, x = seen[0]
    assert not model.training and x.shape == (2, 3, 64, 64)


def test_coverage(capsys: Captured) -> None:
    pytest.importorskip("torchvision")
    assert cli.main(["coverage", "vit_b_16", "--size", "224"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (attention,) = (t for t in lines if "scaled_dot_product" in t)
    assert attention.split()[:2] == ["0", "12"] and "no lowering rule" in attention
    assert any(t.split()[1:3] == ["0", "aten.gelu.default"] for t in lines)


def test_explain_unknown_network(capsys: Captured) -> None:
    pytest.importorskip("torchvision")
    assert cli.main(["explain", "resnet5"]) == 2
    assert "did you mean 'resnet50'?" in capsys.readouterr().out


def test_bench_passes_its_arguments_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(subprocess, "call", lambda command, cwd: calls.append((command, cwd)) or 3)
    assert cli.main(["bench", "--net", "resnet50", "--no-save"]) == 3
    command, cwd = calls[0]
    assert command[1:] == ["-m", "benchmarks.bench", "--net", "resnet50", "--no-save"]
    assert cwd == Path(cli.__file__).parents[1]


def test_bench_outside_the_repository(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "sol_dynamo" / "__main__.py"))
    assert cli.main(["bench"]) == 1
    assert "run this in its repository" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["cache", "clean"], ["doctor", "--nothing"]])
def test_wrong_usage(arguments: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as e:
        cli.main(arguments)
    assert e.value.code == 2
    assert "usage:" in capsys.readouterr().err

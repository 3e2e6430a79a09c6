"""What all tests share: strict errors, golden files (`--update-golden`), an empty cache for those
that ask for one, and a light hypothesis profile. Nothing here knows what is tested.

SOL_TEST_TARGET=triton runs them on Triton's kernels, on CPU tensors in Triton's interpreter;
SOL_TEST_TARGET=cuda runs the samples of operators on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["SOL_STRICT"] = "1"  # a broken invariant raises instead of falling back to ATen

if os.environ.get("SOL_TEST_TARGET") == "triton":
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton

GOLDEN = Path(__file__).parent / "golden"

settings.register_profile("sol", deadline=None, max_examples=100, print_blob=True)
settings.load_profile("sol")


def pytest_configure() -> None:
    if os.environ.get("SOL_TEST_TARGET") == "triton":
        from sol_dynamo import target
        from sol_dynamo.kernels.triton.target import TritonTarget

        # few programs of large blocks: what is interpreted is slow
        target._loaded["cpu"] = TritonTarget("cpu", processors=4)
    if os.environ.get("SOL_TEST_TARGET"):
        import torch

        torch.backends.cudnn.conv.fp32_precision = "ieee"  # as on a CPU


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden instead of comparing"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """golden(file name, text): text equals tests/golden/<file name>, byte for byte."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        assert path.exists(), f"no {path}; write it with --update-golden"
        assert text == path.read_text(), f"{path} differs; see --update-golden"

    return compare


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and options as users have them: what is kept is kept for who looks at no
    stage."""
    monkeypatch.setenv("SOL_CACHE_DIR", str(tmp_path))
    for name in ("SOL_STRICT", "SOL_CHECK"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path

"""The golden programs: valid, printed as they were, and meaning what torch computes in float64."""

from __future__ import annotations

import numpy as np
import pytest
from golden_programs import PROGRAMS

from sol_dynamo.interp import run
from sol_dynamo.ir import show
from sol_dynamo.spec import check

EACH = pytest.mark.parametrize("name", PROGRAMS)


@EACH
def test_valid(name: str) -> None:
    check(PROGRAMS[name].program, "golden_programs")


@EACH
def test_text(name: str, golden) -> None:
    golden(f"{name}.txt", show(PROGRAMS[name].program) + "\n")


@EACH
@pytest.mark.parametrize("wide", [False, True], ids=["f32", "f64"])
def test_meaning(name: str, wide: bool) -> None:
    g = PROGRAMS[name]
    inputs = g.inputs(np.random.default_rng(0))
    outputs, expected = run(g.program, inputs, wide), g.reference(inputs)
    assert len(outputs) == len(expected)
    for y, ref in zip(outputs, expected, strict=True):
        assert y.shape == ref.shape
        if ref.dtype.kind == "f":
            scale = np.abs(ref[np.isfinite(ref)]).max()
            np.testing.assert_allclose(y, ref, rtol=0, atol=scale * (1e-13 if wide else 1e-6))
        else:
            np.testing.assert_array_equal(y, ref)


def test_gather_out_of_range() -> None:
    g = PROGRAMS["gather"]
    _, table = g.inputs(np.random.default_rng(0))
    for bad in (11, -12):
        with pytest.raises(IndexError, match="index out of range in self"):
            run(g.program, [np.array([0, bad, 0, 0, 0, 0, 0]), table])

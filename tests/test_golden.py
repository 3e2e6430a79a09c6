"""The golden programs: valid, printed as they were, meaning what torch computes in float64, and as
C giving what the interpreter gives."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

import numpy as np
import pytest
from golden_programs import BUILDERS, PROGRAMS
from native import assert_means, default_schedule, own_schedule

from sol_dynamo.interp import run
from sol_dynamo.ir import Program, show
from sol_dynamo.kernels.c.program import emit_program
from sol_dynamo.spec import check
from sol_dynamo.target import Caps

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


# -- as C ------------------------------------------------------------------------------------

SCHEDULES = pytest.mark.parametrize(
    "scheduled", [own_schedule, default_schedule], ids=["own", "default"]
)
ULPS = 8  # sums associate differently, and so do the rescalings of online softmax
SIZES = (1, 2, 3, 5, 7, 8, 9, 13, 16, 17, 24, 33)
# an AVX2 machine that never changes, so that the text does not depend on the one at hand
FAKE = Caps("cpu", vector_bytes=32, vector_registers=16, max_accumulators=12, cores=4)


@EACH
@SCHEDULES
def test_native(name: str, scheduled: Callable[[Program], Program]) -> None:
    g = PROGRAMS[name]
    assert_means(scheduled(g.program), g.inputs(np.random.default_rng(0)), ULPS)


@EACH
@SCHEDULES
@pytest.mark.parametrize("seed", range(3))
def test_native_sizes(name: str, scheduled: Callable[[Program], Program], seed: int) -> None:
    """Sizes of 1, tails of every kind, fewer points than lanes."""
    rng = np.random.default_rng(seed)
    build = BUILDERS[name]
    sizes = {p: int(rng.choice(SIZES)) for p in signature(build).parameters}
    if len(sizes) == 5:
        sizes["n_"] = int(rng.integers(1, 3))
    g = build(**sizes)
    check(g.program, f"golden_programs, {sizes}")
    assert_means(scheduled(g.program), g.inputs(rng), ULPS)


@pytest.mark.parametrize(
    ("name", "scheduled"),
    [
        ("conv_bn_residual_relu", lambda p: default_schedule(p, FAKE)),
        ("softmax", lambda p: default_schedule(p, FAKE)),
        ("cat_slices", lambda p: default_schedule(p, FAKE)),
        ("inverted_residual", own_schedule),
    ],
    ids=["conv_bn_residual_relu", "softmax", "cat_slices", "inverted_residual"],
)
def test_c_text(name: str, scheduled: Callable[[Program], Program], golden) -> None:
    """Tiles and kernels as people read them; two runs give the same text."""
    body = emit_program(scheduled(PROGRAMS[name].program)).body
    assert body == emit_program(scheduled(PROGRAMS[name].program)).body
    golden(f"c/{name}.c", body)

"""Float functions of generated C against float64 and mpmath, in ulp.

One compile serves all: every function at every lane count. The bounds are those of the exhaustive
check (benchmarks/vecmath_exhaustive.py), rounded up; here a sample of all floats, special values
and dense ranges must keep them, on whatever instruction set and compiler the machine has.
"""

from __future__ import annotations

import ctypes
import math

import mpmath
import numpy as np
import pytest
import torch

from sol_dynamo.kernels.c.vecmath import PRELUDE, definitions, function
from sol_dynamo.runtime import toolchain

LANES = (1, 2, 4, 8, 16)
# in ulp of the exact result; 0: always that float
BOUNDS = {
    "exp": 0.9,
    "expm1": 0.51,
    "sigmoid": 0.9,
    "tanh": 0.75,
    "erf": 1.1,
    "log": 0.95,
    "log1p": 0.51,
    "log2": 0.51,
    "log10": 0.51,
    "sin": 0.51,
    "cos": 0.51,
    "tan": 0.51,
    "pow": 0.51,
    "sqrt": 0.5,
    "rsqrt": 1.5,
    "floor": 0,
    "ceil": 0,
    "trunc": 0,
    "round": 0,
    "asin": 0.51,
    "acos": 0.51,
    "atan": 0.51,
    "sinh": 0.51,
    "cosh": 0.51,
    "asinh": 0.51,
    "acosh": 0.51,
    "atanh": 0.51,
    "erfc": 0.51,
    "exp2": 0.51,
    "lgamma": 0.51,
    "atan2": 0.51,
    "hypot": 0.51,
    "fmod": 0,
}
TWO = ("pow", "atan2", "hypot", "fmod")  # arguments  # fmt: skip
WITHOUT_FMA = {"sigmoid": 1.5, "tanh": 1.25, "erf": 1.3}  # machines before 2013
# other than numpy's float64 functions
REFERENCE = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "round": np.rint,
    "pow": np.power,
    "erf": lambda x: np.array([math.erf(v) for v in x.tolist()]),
    "erfc": lambda x: np.array([math.erfc(v) for v in x.tolist()]),
    "lgamma": lambda x: torch.lgamma(torch.from_numpy(x)).numpy(),
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "atan2": np.arctan2,
}
SPECIAL = np.array(
    [
        *(0.0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 1.5, -1.5, 2.5, np.inf, -np.inf, np.nan),
        *(1e-45, -1e-45, 1.1754942e-38, 1.1754944e-38, -1.1754944e-38, 3.4028235e38, -3.4028235e38),
        *(8388607.5, -8388607.5, 8388609, 16777216, 88.72284, 88.72283, -87.33655, -103.97208),
        *(-103.97209, 4194304, 4194304.5, 1e10, -1e22, 2.0**120, 0.99999994, 1.0000001),
    ],
    np.float32,
)


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    text = ["#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)\nconst int has_fma = 1;\n#endif"]
    text += [PRELUDE((2, 4, 8, 16)), definitions({(f, "f32", n) for f in BOUNDS for n in LANES})]
    for f in BOUNDS:
        for n in LANES:
            t, u = ("f32", "f32") if n == 1 else (f"f32x{n}", f"f32x{n}u")
            args = ", ".join(f"*(const {u} *)({p} + i)" for p in ("ab" if f in TWO else "a"))
            head = f"void {f}_{n}(const f32 *a, const f32 *b, f32 *y, long count)"
            loop = f"for (long i = 0; i < count; i += {n})"
            text.append(f"{head} {{ {loop} *({u} *)(y + i) = sol_{f}_{t}({args}); }}")
    return ctypes.CDLL(str(toolchain.compile_shared({"vecmath.c": "\n".join(text)})))


def call(library: ctypes.CDLL, name: str, lanes: int, *args: np.ndarray) -> np.ndarray:
    """Arguments are padded with ones to full vectors."""
    count = -(-len(args[0]) // 16) * 16
    a, b = (np.ones(count, np.float32) for _ in range(2))
    for to, values in zip((a, b), args, strict=False):
        to[: len(values)] = values
    y = np.empty(count, np.float32)
    pointers = [ctypes.c_void_p(v.ctypes.data) for v in (a, b, y)]
    library[f"{name}_{lanes}"](*pointers, ctypes.c_long(count))
    return y[: len(args[0])]


def errors(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """In ulp of the exact float64 results; infinite where NaN, infinity or zero's sign is wrong."""
    finite = np.isfinite(exact)
    e = np.frexp(np.where(finite & (exact != 0), exact, 1))[1] - 1
    ulp = np.ldexp(1.0, np.clip(e, -126, 127) - 23)
    wide = got.astype(np.float64)
    beyond = np.isinf(wide) & finite  # counts as 2^128, the next number if there were one
    wide[beyond] = np.copysign(2.0**128, wide[beyond])
    large = np.abs(exact) >= 2.0**128
    with np.errstate(invalid="ignore"):
        error = np.abs(wide - np.where(large, np.copysign(2.0**128, exact), exact)) / ulp
    error[large & np.isinf(got) & (np.sign(got) == np.sign(exact))] = 0
    error[np.isnan(got) != np.isnan(exact)] = np.inf
    error[np.isnan(got) & np.isnan(exact)] = 0
    wrong_zero = (exact == 0) & ((got != 0) | (np.signbit(got) != np.signbit(exact)))
    error[wrong_zero] = np.inf
    error[(exact == 0) & ~wrong_zero] = 0
    return error


def arguments(name: str) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(7)
    anything = rng.integers(0, 1 << 32, 400_000, np.uint64).astype(np.uint32).view(np.float32)
    spread = [np.linspace(a, b, 40_000) for a, b in ((-1, 1), (-10, 10), (-110, 110))]
    near_one = (np.arange(-2000, 2000) + 0x3F800000).astype(np.uint32).view(np.float32)
    spread = [v.astype(np.float32) for v in spread]
    x = np.concatenate([SPECIAL, -near_one, near_one, anything, *spread])
    if name not in TWO:
        return (x,)
    pairs = [v.ravel() for v in np.meshgrid(SPECIAL, SPECIAL)]
    scale = np.log2(np.clip(np.abs(x), 1e-45, 3e38), where=x == x, out=np.ones_like(x))
    y = rng.uniform(-160, 160, len(x)) / np.maximum(np.abs(scale), 1e-3)
    whole = rng.integers(-9, 9, len(x))
    y = np.where(rng.random(len(x)) < 0.5, whole, y).astype(np.float32)
    return np.concatenate([pairs[0], x]), np.concatenate([pairs[1], y])


@pytest.mark.parametrize("name", BOUNDS)
def test_error(library: ctypes.CDLL, name: str) -> None:
    args = arguments(name)
    with np.errstate(all="ignore"):
        exact = REFERENCE.get(name, getattr(np, name, None))(*(a.astype(np.float64) for a in args))
        error = errors(call(library, name, 16, *args), exact)
    worst, bound = int(error.argmax()), BOUNDS[name]
    if not hasattr(library, "has_fma"):
        bound = WITHOUT_FMA.get(name, bound)
    where = ", ".join(f"{a[worst]!r}" for a in args)
    assert error[worst] <= bound, f"{name}({where}) is off by {error[worst]} ulp"


@pytest.mark.parametrize("name", BOUNDS)
def test_every_lane_count_gives_the_same_bits(library: ctypes.CDLL, name: str) -> None:
    args = arguments(name)
    wide = call(library, name, 16, *args)
    for lanes in LANES[:-1]:
        y = call(library, name, lanes, *args)
        other = (y.view(np.uint32) != wide.view(np.uint32)) & ~(np.isnan(y) & np.isnan(wide))
        assert not other.any(), f"{lanes} lanes: {name}({[a[other][0] for a in args]})"


def test_difficult_angles(library: ctypes.CDLL) -> None:
    """Floats next to multiples of pi/2, where reduction cancels most (Muller, 2016)."""
    with mpmath.workprec(200):
        n = [k for e in range(1, 40) for k in (2**e - 1, 2**e + 1, int(1.37 * 2**e), 3 * 2**e + 5)]
        x = np.array([float(k * mpmath.pi / 2) for k in n] + [16367173.0 * 2**72], np.float32)
        for name in ("sin", "cos", "tan"):
            f = getattr(mpmath, name)
            exact = np.array([float(f(mpmath.mpf(float(v)))) for v in x])
            error = errors(call(library, name, 16, x), exact)
            assert error.max() <= BOUNDS[name], f"{name}({x[error.argmax()]!r})"


def test_rsqrt_and_sqrt_of_negative_zero(library: ctypes.CDLL) -> None:
    zero = np.array([-0.0], np.float32)
    assert np.signbit(call(library, "sqrt", 8, zero))[0]
    assert call(library, "rsqrt", 8, zero)[0] == -np.inf


def test_unknown_function() -> None:
    with pytest.raises(KeyError, match="no function frobnicate of f32"):
        function("frobnicate", "f32", 8)

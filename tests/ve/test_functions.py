"""Functions of vectors in generated code, executed by the simulator, against float64.

Arguments are drawn over all floats, with those where formulas change. Errors are in ulp of the
result; what is no number must be none, and signs of zeros agree.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sol_dynamo.ve import compiler, functions, program
from sol_dynamo.ve.sim import Machine
from sol_dynamo.ve.vector import VECTORS

pytestmark = pytest.mark.ve

# name -> ulp that it may be off, as in the comments of kernels/c/vecmath_f32.c
BOUNDS = {
    "exp": 0.51, "exp2": 0.51, "expm1": 0.51, "sigmoid": 0.52, "tanh": 0.51, "erf": 0.6,
    "log": 0.51, "log2": 0.51, "log10": 0.51, "log1p": 0.51, "sin": 0.51, "cos": 0.51,
    "tan": 0.51, "asin": 0.51, "acos": 0.51, "atan": 0.51, "sinh": 0.51, "cosh": 0.51,
    "asinh": 0.51, "acosh": 0.51, "atanh": 0.51, "sqrt": 0.5, "rsqrt": 0.51,
    "round": 0, "floor": 0, "ceil": 0, "trunc": 0,
}  # fmt: skip
DOUBLES = {
    "exp": 1.0,
    "log": 1.0,
    "sqrt": 0.5,
    "rsqrt": 1.5,
    "round": 0,
    "floor": 0,
    "ceil": 0,
    "trunc": 0,
}
TWO = {
    "pow": torch.pow, "atan2": torch.atan2, "hypot": torch.hypot, "fmod": torch.fmod,
    "mod": torch.remainder,
    "floordiv": lambda x, y: torch.floor_divide(x.float(), y.float()).double(),
}  # fmt: skip
REFERENCE = {"exp2": torch.exp2, "rsqrt": lambda x: 1 / x.sqrt(), "sigmoid": torch.sigmoid}
COUNT = 256 * 24


def arguments(dtype: torch.dtype) -> torch.Tensor:
    g = torch.Generator().manual_seed(5)
    integer, unsigned = (torch.int32, 2**32) if dtype is torch.float32 else (torch.int64, 2**63)
    bits = torch.randint(-(unsigned // 2), unsigned // 2 - 1, (COUNT // 2,), generator=g)
    anything = bits.to(integer).view(dtype)
    special = [
        0.0,
        -0.0,
        math.inf,
        -math.inf,
        math.nan,
        1.0,
        -1.0,
        0.5,
        1.5,
        2.5,
        -0.5,
        88.7,
        -87.5,
    ]
    special += [88.7, -87.5, -104.0, 1e-45, -1e-45, 4.0, -4.0, 3e38, -3e38]
    usual = torch.randn(COUNT // 2 - len(special), generator=g, dtype=dtype) * 8
    return torch.cat([anything, usual, torch.tensor(special, dtype=dtype)])


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine()


@pytest.fixture(scope="module")
def library(machine):
    uses = [(n, "f32", functions.VECTOR) for n in BOUNDS] + [
        (n, "f32", functions.VECTOR) for n in TWO
    ]
    uses += [(n, "f64", functions.VECTOR) for n in DOUBLES]
    text = program.prelude() + VECTORS + functions.definitions(uses)
    loops = []
    for name, dtype, _ in uses:
        load, size = ("vldu", 4) if dtype == "f32" else ("vld", 8)
        store = load.replace("ld", "st")
        two = name in TWO
        y = f", _vel_{load}_vssl({size}, y + k, 256)" if two else ""
        loops.append(
            f"void run_{name}_{dtype}({dtype} *x, {dtype} *y, {dtype} *z, long n) {{\n"
            f"  for (long k = 0; k < n; k += 256)\n"
            f"    _vel_{store}_vssl(sol_{name}_{dtype}v(_vel_{load}_vssl({size}, x + k, 256){y},"
            f" 256), {size}, z + k, 256);\n}}\n"
        )
    made = compiler.compile_objects({"functions.c": text + "\n".join(loops)})["functions.c"]
    assert isinstance(made, Path), made
    return machine.load(made)


def run(machine, library, name: str, x: torch.Tensor, y: torch.Tensor | None = None):
    size = x.element_size()
    places = [machine.allocate(size * COUNT) for _ in range(3)]
    for place, t in zip(places, (x, x if y is None else y), strict=False):
        machine.write(place, t.numpy().tobytes())
    library.call(f"run_{name}_f{8 * size}", *places, COUNT)
    data = machine.read(places[2], size * COUNT)
    for place in places:
        machine.release(place)
    return torch.from_numpy(np.frombuffer(data, x.numpy().dtype).copy())


def check(got: torch.Tensor, exact: torch.Tensor, bound: float) -> None:
    wanted = exact.to(got.dtype)
    assert torch.equal(got.isnan(), wanted.isnan())
    zero = wanted == 0
    assert torch.equal(got[zero].signbit(), wanted[zero].signbit()) or bound == 0.6
    numbers = wanted.isfinite() & got.isfinite()
    rest = ~(numbers | wanted.isnan())
    off = (got.double() - exact).abs()
    ulp = (torch.nextafter(wanted.abs(), torch.full_like(wanted, math.inf)) - wanted.abs()).double()
    # beyond the largest number, the exact result may be one that rounds either way
    assert bool((got[rest] == wanted[rest]).all()), (got[rest], wanted[rest])
    worst = (off / ulp)[numbers]
    assert worst.max() <= bound + 1e-3, f"{worst.max():.3f} ulp"


@pytest.mark.parametrize("name", BOUNDS)
def test_floats(machine, library, name):
    x = arguments(torch.float32)
    exact = REFERENCE.get(name, getattr(torch, name))(x.double())
    check(run(machine, library, name, x), exact, BOUNDS[name])


@pytest.mark.parametrize("name", DOUBLES)
def test_doubles(machine, library, name):
    x = arguments(torch.float64)
    wide = np.longdouble(x.numpy())
    if name in ("exp", "log", "sqrt", "rsqrt"):
        with np.errstate(all="ignore"):
            exact = 1 / np.sqrt(wide) if name == "rsqrt" else getattr(np, name)(wide)
        got = run(machine, library, name, x)
        wanted = torch.from_numpy(exact.astype(np.float64))
        assert torch.equal(got.isnan(), wanted.isnan())
        numbers = (wanted.isfinite() & got.isfinite()).numpy()
        ulp = np.spacing(np.abs(wanted.numpy()[numbers]))
        off = np.abs(np.longdouble(got.numpy()[numbers]) - exact[numbers]) / ulp
        assert off.max() <= DOUBLES[name], off.max()
        rest = ~(torch.from_numpy(numbers) | wanted.isnan())
        assert torch.equal(got[rest], wanted[rest])
        return
    check(run(machine, library, name, x), getattr(torch, name)(x), 0)


@pytest.mark.parametrize("name", TWO)
def test_two_arguments(machine, library, name):
    x = arguments(torch.float32)
    g = torch.Generator().manual_seed(6)
    y = torch.randn(COUNT, generator=g) * 6
    y[::3] = y[::3].round()
    y[1::5] = arguments(torch.float32).flip(0)[1::5]
    y[::7] = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 0.5, -1.0])[
        torch.arange(len(y[::7])) % 7
    ]
    got = run(machine, library, name, x, y)
    check(got, TWO[name](x.double(), y.double()), 0.51)

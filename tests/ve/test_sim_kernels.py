"""kernels.c on the simulator, against NumPy."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiled import ve_object

from sol_dynamo.ve import sim

SOURCE = Path(__file__).with_name("kernels.c").read_text()
f32, f64, i32, i64, u32, u64 = np.float32, np.float64, np.int32, np.int64, np.uint32, np.uint64
WRAP = 1 << 64


class Bench:
    """A machine with the kernels; arrays are put into its memory and read back from `out`."""

    def __init__(self, *flags: str) -> None:
        self.machine = sim.Machine()
        self.library = self.machine.load_bytes(ve_object(SOURCE, "-w", *flags), "kernels.o")
        self.call: Callable[..., int] = self.library.call
        self.out = self.machine.allocate(1 << 16)
        self.rng = np.random.default_rng(3)

    def put(self, values: np.ndarray) -> int:
        address = self.machine.allocate(values.nbytes)
        self.machine.write(address, values.tobytes())
        return address

    def clear(self) -> None:
        self.machine.write(self.out, bytes(1 << 16))

    def got(self, n: int, kind: type, behind: int = 0) -> np.ndarray:
        size = n * np.dtype(kind).itemsize
        return np.frombuffer(self.machine.read(self.out + behind, size), kind)


@pytest.fixture(scope="module", params=[("-O1",), ("-O3", "-fPIC")], ids=" ".join)
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(*request.param)


same = np.testing.assert_array_equal


@pytest.mark.parametrize("n", [2, 512, 1000])
def test_packed(bench: Bench, n: int) -> None:
    x = bench.rng.standard_normal(n).astype(f32)
    address = bench.put(x)
    bench.call("leaky", address, bench.out, n, f32(0.1))
    same(bench.got(n, f32), np.where(x < 0, f32(0.1) * x, x))
    bench.call("clamp", address, bench.out, n, f32(-0.5), f32(0.7))
    same(bench.got(n, f32), np.clip(x, f32(-0.5), f32(0.7)))
    y = bench.rng.standard_normal(n).astype(f32)
    bench.call("interleave", address, bench.put(y), bench.out, min(n, 256))
    pairs = np.stack([y, x], 1)[:256]
    same(bench.got(pairs.size, f32), pairs.ravel())


def test_masks(bench: Bench) -> None:
    n, bits = 1000, 0x123456789ABCDEF1
    x, y = bench.rng.standard_normal((2, n)).astype(f32)
    bench.machine.write(bench.out, y.tobytes())
    bench.call("axpy_masked", bench.put(x), bench.out, n, bits)
    words = [bits, ~bits, bits * 3, bits >> 5]
    mask = np.array([words[e % 256 // 64] >> (63 - e % 64) & 1 for e in range(n)], bool)
    same(bench.got(n, f32), np.where(mask, (y + x.astype(f64) * y).astype(f32), y))
    a = bench.rng.standard_normal(700)
    kept = bench.call("keep", bench.put(a), bench.out, 700)
    assert kept == (a > 0).sum()
    same(bench.got(kept, f64), a[a > 0])
    b = bench.rng.standard_normal(200)
    bench.call("spread", bench.put(a), bench.put(b), bench.out, 200)
    spread = b.copy()
    spread[b > 0] = a[: (b > 0).sum()]
    same(bench.got(200, f64), spread)


def test_reductions(bench: Bench) -> None:
    a, x = bench.rng.standard_normal(200), bench.rng.standard_normal(256).astype(f32)
    assert struct.pack("<Q", bench.call("maxd", bench.put(a), 200)) == a.max().tobytes()
    assert bench.call("minf", bench.put(x), 256) == int(x.min().view(u32)) << 32
    i = bench.rng.integers(-(2**31), 2**31, 700).astype(i32)
    address = bench.put(i)
    parts = [int(np.sum(i[k : k + 256], dtype=i32)) for k in range(0, 700, 256)]
    assert bench.call("sumw", address, 700) == sum(parts) % WRAP
    assert bench.call("sumwz", address, 200) == int(np.sum(i[:200].view(u32), dtype=u64)) % 2**32
    assert bench.call("maxw", address, 256) == int(i[:256].max()) % WRAP
    u = bench.rng.integers(0, WRAP, 256, u64)
    address = bench.put(u)
    assert bench.call("suml", address, 256) == int(u.sum())
    each = [int(op.reduce(u[:200])) for op in (np.bitwise_and, np.bitwise_or, np.bitwise_xor)]
    assert bench.call("bits3", address, 200) == (each[0] + 3 * each[1] + 5 * each[2]) % WRAP


def test_moves(bench: Bench) -> None:
    z = bench.rng.standard_normal(600)
    address = bench.put(z)
    bench.call("rows", address, bench.out, 20 * 8, 8)
    same(bench.got(256, f64), np.concatenate([z[20 * r :][:16] for r in range(16)]))
    bench.call("transpose", address, bench.out, 20, 30)
    same(bench.got(600, f64).reshape(30, 20), z.reshape(20, 30).T)
    x, index = bench.rng.standard_normal(1024).astype(f32), bench.rng.integers(0, 1024, 250)
    indices = bench.put(index.astype(i32))
    bench.call("embed", bench.put(x), indices, bench.out, 250)
    same(bench.got(250, f32), x[index])
    bench.clear()
    bench.call("hist", bench.out, indices, 250)  # equal indices are one, as the code says
    hits = np.zeros(1024, i64)
    hits[index] = 1
    same(bench.got(1024, i64), hits)
    u = bench.rng.integers(0, WRAP, 256, u64)
    bench.call("rotate", bench.put(u), bench.out, 77, 256)
    same(bench.got(256, u64), np.roll(u, -77))


def test_shifts_by_more_than_the_width(bench: Bench) -> None:
    u = bench.rng.integers(0, WRAP, 256, u64)
    address, words = bench.put(u), u.view(u32)
    for k in (0, 1, 31, 32, 33, 63, 64, 65, 100):
        bench.call("shifts", address, bench.out, k << 32 | k, 256)
        by, half = u64(k & 63), u32(k & 31)
        same(bench.got(256, u64), u << by ^ u >> by ^ (u.view(i64) >> i64(by)).view(u64))
        packed = words << half ^ (words.view(i32) >> i32(half)).view(u32)
        same(bench.got(512, u32, behind=2048), packed)


@pytest.mark.parametrize("perturbed", [0, 5])
def test_refined_approximations(bench: Bench, perturbed: int) -> None:
    bench.machine.core.perturb = perturbed
    a = bench.rng.standard_normal(256)
    x = np.abs(a).astype(f32)
    bench.call("recip", bench.put(a), bench.out, 256)
    np.testing.assert_allclose(bench.got(256, f64), 1 / a, rtol=2**-51)
    bench.call("rsq", bench.put(x), bench.out, 256)
    np.testing.assert_allclose(bench.got(256, f32), 1 / np.sqrt(x.astype(f64)), rtol=2**-21)
    bench.machine.core.perturb = 0
    bench.call("less_maximum", bench.put(x), bench.out, 256)
    same(bench.got(256, f32), x - x.max())


def test_conversions(bench: Bench) -> None:
    edges = [0.5, -0.5, 2.0**31, -(2.0**31), 2.0**63, -(2.0**63), np.inf, -np.inf, 1.5, np.nan]
    big = np.concatenate([bench.rng.standard_normal(90) * 10.0 ** np.repeat([3, 9, 30], 30), edges])
    out = bench.out
    bench.call("conv", bench.put(big), out, out + 4096, out + 8192, 100)

    def saturated(bits: int) -> list[int]:
        most = 2 ** (bits - 1) - 1
        return [
            most if v != v or v >= most else -most - 1 if v <= -most - 1 else int(v) for v in big
        ]

    same(bench.got(100, i64), saturated(64))
    same(bench.got(100, i32, behind=4096), saturated(32))
    with np.errstate(over="ignore"):
        same(bench.got(100, f32, behind=8192), big.astype(f32))

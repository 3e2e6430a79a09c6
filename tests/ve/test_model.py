"""The model's own arithmetic, against numpy's and against facts that its sources state.

What judges the simulator must itself be judged: exact floating point against the host's (which
rounds to nearest), fused multiply-add and directed rounding against exact fractions, and NEC's
statements on packed sequences, shuffles and compression against the model's instructions.
"""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from encoding import specs
from ieee import F32, F64, MODES, Format
from model import State, step

KINDS = {F32: (np.uint32, np.float32), F64: (np.uint64, np.float64)}


def number(fmt: Format, bits: int) -> np.floating:
    kind = KINDS[fmt]
    return np.array([bits], kind[0]).view(kind[1])[0]


def bits_of(fmt: Format, value: np.floating) -> int:
    kind = KINDS[fmt]
    return int(np.array([value], kind[1]).view(kind[0])[0])


def random_bits(fmt: Format, rng: random.Random) -> int:
    if rng.random() < 0.2:
        return rng.choice(
            [
                0,
                fmt.sign,
                fmt.infinity,
                fmt.infinity | fmt.sign,
                fmt.nan,
                1,
                fmt.infinity | 1,
                fmt.sign | 1,
                fmt.largest,
                1 << fmt.fraction,
            ]
        )
    bits = rng.getrandbits(fmt.width)  # fmt: skip
    if rng.random() < 0.7:
        exponent = (fmt.top >> 1) + rng.randrange(-60, 60)
        bits = bits & ~(fmt.top << fmt.fraction) | exponent << fmt.fraction
    return bits


@pytest.mark.parametrize("fmt", [F32, F64], ids=["f32", "f64"])
@np.errstate(all="ignore")
def test_arithmetic_is_the_hosts(fmt: Format) -> None:
    rng = random.Random(1)
    pairs = [(fmt.add, np.add), (fmt.subtract, np.subtract), (fmt.multiply, np.multiply),
             (fmt.divide, np.divide)]  # fmt: skip
    for _ in range(3000):
        a, b = random_bits(fmt, rng), random_bits(fmt, rng)
        for mine, hosts in pairs:
            check(fmt, mine(a, b), hosts(number(fmt, a), number(fmt, b)), (a, b))
        check(fmt, fmt.sqrt(a), np.sqrt(number(fmt, a)), (a,))
        order = fmt.compare(a, b)
        x, y = number(fmt, a), number(fmt, b)
        assert (order == 1, order == 0, order == -1) == (x > y, x == y, x < y)
        if abs(x) < 2.0**30:
            assert fmt.to_integer(a, 32, "rn")[0] == int(np.rint(x)) & 0xFFFFFFFF
            assert fmt.to_integer(a, 32, "rz")[0] == int(np.trunc(x)) & 0xFFFFFFFF


@np.errstate(all="ignore")
def test_conversions_are_the_hosts() -> None:
    rng = random.Random(2)
    for _ in range(3000):
        a, b = random_bits(F64, rng), random_bits(F32, rng)
        check(F32, F64.convert(a, F32), number(F64, a).astype(np.float32), (a,))
        check(F64, F32.convert(b, F64), number(F32, b).astype(np.float64), (b,))
        i = rng.getrandbits(64) - (1 << 63) >> rng.randrange(64)
        assert F64.from_integer(i)[0] == bits_of(F64, np.float64(i))


def check(fmt: Format, mine: tuple[int, int], hosts: np.floating, of: tuple[int, ...]) -> None:
    if np.isnan(hosts):
        assert mine == fmt.not_a_number(), of
    else:
        assert mine == (bits_of(fmt, hosts), fmt.all), of


def exact(fmt: Format, bits: int) -> Fraction:
    n = fmt.unpack(bits)
    return (-1) ** n.sign * n.mantissa * Fraction(2) ** n.exponent


@pytest.mark.parametrize("mode", MODES)
def test_multiply_add_is_the_nearest_in_its_direction(mode: str) -> None:
    """Between the result and its neighbour lies the exact value, on the side that the mode says."""
    rng = random.Random(3)
    for _ in range(2000):
        a, b, c = (0x3F800000 ^ rng.getrandbits(23) ^ rng.getrandbits(1) << 31 for _ in range(3))
        want = exact(F32, a) * exact(F32, b) + exact(F32, c)
        bits, care = F32.multiply_add(a, b, c, mode)
        assert care == F32.all
        got = exact(F32, bits)
        step_up = abs(exact(F32, bits + 1) - got)
        match mode:
            case "rz":
                assert abs(got) <= abs(want) < abs(got) + step_up
            case "rp":
                assert got >= want > got - step_up
            case "rm":
                assert got <= want < got + step_up
            case "rn":
                assert abs(got - want) <= step_up / 2


def run(mnemonic: str, state: State, word: int | None = None) -> State:
    step(state, specs()[mnemonic].sample if word is None else word)
    return state


def test_facts_of_necs_suite() -> None:
    state = State()
    run("pvseq", state, 0x99C0000001000000)
    assert [int(x) for x in state.v[1, :3]] == [0 << 32 | 1, 2 << 32 | 3, 4 << 32 | 5]
    run("pvseq.up", state, 0x9980000002000000)
    run("pvseq.lo", state, 0x9940000003000000)
    assert int(state.v[2, 7]) == 7 << 32 and int(state.v[3, 7]) == 7
    state.v[4], state.v[5] = 0x1111111122222222, 0x3333333344444444
    run("vshf", state, 0xBC00 << 48 | 0x0D << 40 | 0x06040500)  # 13: ZLYL
    assert int(state.v[6, 0]) == 0x4444444422222222
    state.vm[2] = False
    state.vm[2, [1, 3, 200]] = True
    state.v[7], state.v[8] = np.arange(256), 0
    run("vcp", state, 0x8D02000008000700)
    assert [int(x) for x in state.v[8, :4]] == [1, 3, 200, 0]
    state.s[1] = 1 << 63
    run("lvm", state, 0xB7000081 << 32 | 3 << 24)
    assert state.vm[3, 0] and not state.vm[3, 1:64].any()

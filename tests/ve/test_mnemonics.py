"""Every mnemonic of the vector engine, executed on the simulator and on the model.

Each test takes random words of one mnemonic and random states and compares the whole state: all S,
V and VM registers, VL, VIX and memory. What is not modelled must end in a clean fault or leave the
machine usable. The table of mnemonics and their tests is a golden file.
"""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from comparison import (
    BASE,
    DOUBLES,
    FLOATS,
    INTEGERS,
    POOLS,
    WITH_VIX,
    Bench,
    random_state,
    random_values,
)
from encoding import Spec, fields, random_word, specs
from model import State, Trapped, Unmodelled, step

SPECS = specs()
BRANCHES = ("branch", "relative")
WORDS = 60  # of each mnemonic, each in a state of its own
STATES = 24
# Not modelled, each with its reason; the simulator must refuse it or do no harm.
UNMODELLED = {
    "lhm.h": "host memory: for system code",
    "lhm.b": "host memory: for system code",
    "shm.h": "host memory: for system code",
    "shm.b": "host memory: for system code",
    "smir": "system registers and counters: no value to compare",
    "monc": "system call",
    "monc.hdb": "debugger's trap",
    "lcr": "communication registers: the operating system gives them out",
    "scr": "communication registers: the operating system gives them out",
    "tscr": "communication registers: the operating system gives them out",
    "fidcr": "communication registers: the operating system gives them out",
    "ts2am": "no source says what it does",
    "ts3am": "no source says what it does",
}
FAULTS = {"UnimplementedInstruction", "IllegalInstruction", "SystemCall", "MemoryAccess",
          "Alignment"}  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.fixture(scope="module")
def states(bench: Bench) -> list[State]:
    return [random_state(seed, bench.window) for seed in range(STATES)]


def rng_of(mnemonic: str) -> random.Random:
    return random.Random(zlib.crc32(mnemonic.encode()))


def modelled() -> list[str]:
    return [m for m in SPECS if m not in UNMODELLED and m not in branches()]


def branches() -> list[str]:
    """What concerns the instruction counter: run in small blocks."""
    return [m for m, spec in SPECS.items() if spec.form in BRANCHES or m in ("bsic", "sic")]


def without_zero_divisors(state: State, spec: Spec) -> None:
    """Integer division by zero has its own test: here divisors are made odd."""
    if spec.opcode in (0xE9, 0xEB, 0xFB):
        state.v |= 1 << 32 | 1
    elif spec.opcode not in (0x6F, 0x7B, 0x7F):
        return
    state.s = [x if r in BASE else x | 1 for r, x in enumerate(state.s)]


def fitting_scalars(state: State, spec: Spec, seed: int) -> None:
    """Fills the registers of data with numbers of the type that the mnemonic works on."""
    rng = np.random.default_rng(seed)
    types = spec.mnemonic.split(".")[1:]
    kinds = DOUBLES if "d" in types else FLOATS if "s" in types else INTEGERS
    registers = [r for r in POOLS.s_from if r < 40]
    for r, value in zip(registers, random_values(rng, len(registers), kinds), strict=True):
        state.s[r] = int(value)


def expected_value(state: State, word: int) -> None:
    """Lets `cas` find in memory what it expects there."""
    f = fields(word)
    address = (state.s[f.sz] if f.cz else 0) + f.imm
    with contextlib.suppress(Trapped):
        state.store(address, 4 if f.cx else 8, state.s[f.sy] if f.cy else f.simm_y)


def draw(spec: Spec, rng: random.Random) -> int:
    while True:
        word = random_word(spec, rng, WITH_VIX if rng.random() < 0.15 else POOLS)
        f = fields(word)
        zero_immediate = spec.opcode in (0x6F, 0x7B, 0x7F) and not f.cz and f.ones_z == 0
        zero_by_word = spec.opcode in (0x6F, 0x7B, 0x7F) and not f.cz and f.ones_z & 0xFFFFFFFF == 0
        zero_vector = spec.opcode in (0xE9, 0xEB, 0xFB) and f.cs2 and not f.cy and f.sy == 0
        if not (zero_immediate or zero_by_word or zero_vector):
            return word


@pytest.mark.parametrize("mnemonic", modelled())
def test_mnemonic(mnemonic: str, bench: Bench, states: list[State]) -> None:
    spec, rng = SPECS[mnemonic], rng_of(mnemonic)
    compared, complaints = 0, []
    for _ in range(4 * WORDS):
        if compared == WORDS:
            break
        state = rng.choice(states).copy()
        if rng.random() < 0.6:
            fitting_scalars(state, spec, rng.getrandbits(32))
        without_zero_divisors(state, spec)
        word = draw(spec, rng)
        if spec.mnemonic.startswith("cas.") and rng.random() < 0.5:
            expected_value(state, word)
        try:
            step(state.copy(), word)
        except Unmodelled:
            continue  # these operands have no published result
        except Exception:
            pass  # a trap of the model: compared below
        bench.put(state)
        outcome = bench.step(state, word)
        complaints += outcome.complaints[:2]
        compared += 1
    assert compared >= WORDS // 2, f"{compared} of {WORDS} words of {mnemonic} could be compared"
    assert not complaints, "\n".join(complaints[:6])


def run_block(bench: Bench, state: State, words: list[int]) -> None:
    """Runs a block with branches inside on both; the first word must be `sic %s56`."""
    bench.put(state)
    trap = bench.execute(words)
    assert trap is None, trap
    start = int(bench.core.s[56]) - 8
    state.ic = start
    executed = 0
    while 0 <= (index := (state.ic - start) // 8) < len(words):
        step(state, words[index])
        executed += 1
    assert executed <= len(words)


def block(spec: Spec, rng: random.Random) -> list[int]:
    """sic; the branch, two words ahead; an instruction to be skipped; nop."""
    word = random_word(spec, rng, POOLS)
    if spec.form == "relative":
        word = word & ~0xFFFFFFFF | 16
    else:  # absolute: relative to the address that sic gave
        word = word & ~(0xFF << 32 | 0xFFFFFFFF) | (0x80 | 56) << 32 | 16
    return [0x2838 << 48, word, 0x0639 << 48 | rng.randrange(1, 1000), 0x79 << 56]


@pytest.mark.parametrize("mnemonic", branches())
def test_branch(mnemonic: str, bench: Bench, states: list[State]) -> None:
    spec, rng = SPECS[mnemonic], rng_of(mnemonic)
    for _ in range(WORDS):
        state = rng.choice(states).copy()
        words = block(spec, rng)
        if mnemonic == "bsic":
            words[1] = 0x083A << 48 | (0x80 | 56) << 32 | 16
        elif mnemonic == "sic":
            words[1] = 0x283A << 48
        else:
            if rng.random() < 0.3:  # equal operands are rare otherwise
                f = fields(words[1])
                if f.cy and f.cz and spec.form == "relative":
                    state.s[f.sy] = state.s[f.sz]
        state.s[57] = 0
        run_block(bench, state, words)
        for r in (56, 57, 58):
            got, want = int(bench.core.s[r]), state.s[r]
            assert got == want, f"{words[1]:016x}: s{r} {got:#x}, expected {want:#x}"


@pytest.mark.parametrize("mnemonic", UNMODELLED)
def test_refused(mnemonic: str, bench: Bench, states: list[State]) -> None:
    spec, rng = SPECS[mnemonic], rng_of(mnemonic)
    for _ in range(4):
        state = rng.choice(states).copy()
        bench.put(state)
        trap = bench.execute([random_word(spec, rng, POOLS)])
        assert trap is None or trap in FAULTS, trap
        assert works(bench, state, rng)


def works(bench: Bench, state: State, rng: random.Random) -> bool:
    bench.put(state)
    return bench.step(state, random_word(SPECS["adds.l"], rng, POOLS)).complaints == []


ROUNDED = [m for m in SPECS if m.split(".")[0].lstrip("p") in
           ("fadd", "fsub", "fmul", "fdiv", "cvt", "vfadd", "vfsub", "vfmul", "vfdiv", "vfsqrt",
            "vfmad", "vfmsb", "vfnmad", "vfnmsb", "vcvt")]  # fmt: skip


@pytest.mark.parametrize("mode", range(3))
def test_rounding_modes(mode: int, bench: Bench, states: list[State]) -> None:
    """PSW's rounding mode (0 to zero, 1 up, 2 down) holds for all that rounds."""
    rng = random.Random(mode)
    complaints = []
    for mnemonic in ROUNDED:
        for _ in range(2):
            state = rng.choice(states).copy()
            state.psw = mode << 12
            word = random_word(SPECS[mnemonic], rng, POOLS)
            try:
                step(state.copy(), word)
            except Unmodelled:
                continue
            bench.put(state)
            complaints += bench.step(state, word).complaints[:1]
    assert not complaints, f"{len(complaints)}:\n" + "\n".join(complaints[:6])


DIVISIONS = [m for m in SPECS if m.startswith(("div", "vdiv"))]


@pytest.mark.parametrize("mnemonic", DIVISIONS)
def test_division_by_zero(mnemonic: str, bench: Bench, states: list[State]) -> None:
    """It traps where an active element's divisor is zero, and only there."""
    spec, rng = SPECS[mnemonic], rng_of(mnemonic)
    complaints, trapped, finished = [], 0, 0
    for _ in range(WORDS):
        state = rng.choice(states).copy()
        for r in POOLS.v_from:  # few zeros, so that masks and VL decide
            state.v[r, rng.randrange(256)] = 0
            if r not in BASE and rng.random() < 0.3:
                state.s[r] = 0
        word = random_word(spec, rng, POOLS)
        bench.put(state)
        outcome = bench.step(state, word)
        complaints += outcome.complaints[:1]
        trapped += outcome.trap == "DivideByZero"
        finished += outcome.trap is None
    assert not complaints, "\n".join(complaints[:6])
    assert trapped and finished


OPEN = [m for m in SPECS if m.lstrip("p").startswith(("vrcp", "vrsqrt", "vfsum"))]


@pytest.mark.parametrize("mnemonic", OPEN)
def test_open_results(mnemonic: str, bench: Bench, states: list[State]) -> None:
    """What the architecture leaves open varies with the simulator's seed, within the bounds."""
    spec, rng = SPECS[mnemonic], rng_of(mnemonic)
    complaints, results = [], set()
    try:
        for seed in range(24):
            state = states[seed % len(states)].copy()
            bench.core.perturb = seed
            word = random_word(spec, rng, POOLS)
            bench.put(state)
            complaints += bench.step(state, word).complaints[:1]
        state = next(s for s in states if s.vl == 256 and s.psw == 0x3000).copy()
        state.v[1] = random_values(np.random.default_rng(1), 256, FLOATS[:1])
        for seed in range(8):
            bench.core.perturb = seed
            bench.put(state)
            # 256 floats near 1 into %v0, whatever the type
            bench.execute([spec.sample & 0xFFF0 << 48 | 1 << 16])
            results.add(np.array(bench.core.v[0]).tobytes())
    finally:
        bench.core.perturb = 0
    assert not complaints, "\n".join(complaints[:6])
    assert len(results) > 1


def test_flags(bench: Bench, states: list[State]) -> None:
    """lpm, spm, lfr and sfr move PSW's fields as glibc's fenv functions expect."""
    state, rng = states[0].copy(), random.Random(1)
    bench.put(state)
    words = [random_word(SPECS[m], rng, POOLS) for m in ("lpm", "spm", "lfr", "sfr") * 8]
    assert [c for word in words for c in bench.step(state, word).complaints] == []


def test_table(golden: Callable[[str, str], None]) -> None:
    """Every mnemonic of opcodes.txt has a test; the table of them is golden/ve_mnemonics.txt."""
    covered = {
        **dict.fromkeys(modelled(), "test_mnemonic"),
        **dict.fromkeys(branches(), "test_branch"),
        **dict.fromkeys(UNMODELLED, "test_refused"),
    }
    assert covered.keys() == SPECS.keys()
    lines = [f"{m:<20} tests/ve/test_mnemonics.py::{covered[m]}[{m}]" for m in SPECS]
    golden("ve_mnemonics.txt", "\n".join(lines) + "\n")

"""Random straight-line programs on simulator and model; its disassembler against LLVM's.

Programs are made of valid words of all modelled mnemonics; addresses come from registers that point
into a window, sometimes over its edge, where both must trap. Each program runs one instruction at a
time next to the model, and once more in one piece, which must end in the same state.
"""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from comparison import BASE, POOLS, WINDOW, WITH_VIX, Bench, random_state
from encoding import MEMORY_FORMS, SCALAR_ACCESS, Spec, random_word, specs
from model import State, Unmodelled, step
from test_mnemonics import modelled, works

from sol_dynamo.ve import sim

SPECS = specs()
PROGRAMS, PARTS = 1000, 10
TABLE = [SPECS[m] for m in modelled()]
MEMORY = [s for s in TABLE if s.form in MEMORY_FORMS or s.opcode in SCALAR_ACCESS]
PAIRS = Path(__file__).with_name("data") / "disassembly.txt.gz"


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def program_word(rng: random.Random, state: State) -> int:
    """A word whose result in this state is published (see model.py); many access memory."""
    while True:
        spec: Spec = rng.choice(MEMORY if rng.random() < 0.15 else TABLE)
        word = random_word(spec, rng, WITH_VIX if rng.random() < 0.1 else POOLS)
        try:
            step(state.copy(), word)
        except Unmodelled:
            continue
        except Exception:
            if rng.random() < 0.7:  # a trap ends the program: not too many of them
                continue
        return word


@pytest.mark.parametrize("part", range(PARTS))
def test_programs(part: int, bench: Bench) -> None:
    complaints: list[str] = []
    trapped = finished = 0
    for seed in range(part, PROGRAMS, PARTS):
        rng = random.Random(seed)
        state = random_state(seed, bench.window)
        if rng.random() < 0.1:  # at the edge: behind the window's last byte nothing is mapped
            edge = rng.choice([bench.window + 8, bench.window + WINDOW - 8])
            for r in BASE:
                state.s[r] = edge
        if state.vl > 32 and rng.random() < 0.7:
            state.vl = rng.randrange(33)  # shorter vectors: more programs in the same time
        start = state.copy()
        bench.put(state)
        words: list[int] = []
        for _ in range(rng.randrange(5, 41)):
            words.append(word := program_word(rng, state))
            outcome = bench.step(state, word)
            if outcome.complaints or outcome.trap:
                complaints += [f"program {seed}: {c}" for c in outcome.complaints[:1]]
                if outcome.trap and not outcome.complaints:
                    trapped += 1
                    complaints += whole(bench, start, words, outcome.trap, seed)
                break
        else:
            finished += 1
            complaints += whole(bench, start, words, state, seed)
    assert not complaints, f"{len(complaints)} programs:\n" + "\n".join(complaints[:8])
    assert finished > PROGRAMS / PARTS / 2 and trapped > 0


def whole(bench: Bench, start: State, words: list[int], end: State | str, seed: int) -> list[str]:
    """The program in one piece ends where it ended step by step, or in the same trap."""
    bench.put(start)
    trap = bench.execute(words)
    if isinstance(end, str) or trap:
        return [] if trap == end else [f"program {seed}, in one piece: trap {trap}"]
    got = start.copy()
    bench.take(got)
    names = ("s", "vl", "vix", "memory")
    wrong = [name for name in names if getattr(got, name) != getattr(end, name)]
    wrong += [name for name in ("v", "vm") if (getattr(got, name) != getattr(end, name)).any()]
    return [f"program {seed}, in one piece: {', '.join(wrong)} differ"] if wrong else []


def pairs() -> list[tuple[int, str]]:
    lines = gzip.decompress(PAIRS.read_bytes()).decode().splitlines()
    return [(int(line[:16], 16), line[17:]) for line in lines]


def test_disassembler_agrees_with_llvm() -> None:
    """Also in what is no instruction: an empty text."""
    wrong = [f"{w:016x}: {sim.disassemble(w)!r}, LLVM {text!r}" for w, text in pairs()
             if sim.disassemble(w) != text]  # fmt: skip
    assert not wrong, f"{len(wrong)} of {len(pairs())}:\n" + "\n".join(wrong[:12])


def test_words_that_llvm_refuses_do_no_harm(bench: Bench) -> None:
    """Each is refused, or does something harmless: afterwards the machine works."""
    state = random_state(1, bench.window)
    for word, text in pairs():
        if text:
            continue
        bench.put(state)
        if word >> 56 in (0x08, 0x18, 0x19, 0x1B, 0x1C):
            assert isinstance(sim.disassemble(word), str)  # a branch may go anywhere
            continue
        bench.execute([word])
    assert works(bench, state, random.Random(1))

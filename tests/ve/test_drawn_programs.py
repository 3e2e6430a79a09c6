"""Drawn programs on the card, several in a graph: integers as eager, floats by the contract.

`SOL_TEST_TARGET=ve pytest tests/test_drawn.py` draws with hypothesis, which finds small examples of
what is wrong here, at some seconds for each draw.
"""

from __future__ import annotations

import random
import warnings

import pytest
import test_drawn
import torch
from drawn import DTYPES, LAYOUTS, STEPS, Drawn, Step, function, outcome, tensor
from hypothesis.errors import UnsatisfiedAssumption
from test_samples import moved

from sol_dynamo.backend import Backend

pytestmark = pytest.mark.ve
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 17, 0, 31, 257)
PROGRAMS = 10  # of a graph
Case = tuple[list[Drawn], list[Step]]


def setup_module():
    torch.ve.init()


def case(rng: random.Random) -> Case:
    inputs = []
    for _ in range(rng.randint(1, 3)):
        shape = tuple(rng.choice(SIZES) for _ in range(rng.randint(1, 4)))
        while torch.Size(shape).numel() > 2000:
            shape = shape[1:]
        dtype, layout = rng.choice(DTYPES), rng.choice(LAYOUTS)
        inputs.append(Drawn(shape, dtype, layout, rng.randint(0, 99)))
    names = sorted(STEPS)

    def step() -> Step:
        a, b, c = (rng.randint(0, 30) for _ in range(3))
        return rng.choice(names), a, b, c

    return inputs, [step() for _ in range(rng.randint(3, 12))]


def known(rng: random.Random) -> list[tuple[Case, list, list]]:
    """Cases that eager runs, with what it gives and what it gives in float64."""
    found = []
    while len(found) < PROGRAMS:
        drawn, program = case(rng)
        inputs = [tensor(d) for d in drawn]
        try:
            eager = outcome(function(program), test_drawn.copies(inputs), False)
            wide = function(program, wide=True)
            exact = outcome(wide, test_drawn.copies(inputs, wide=True), False)
        except (RuntimeError, IndexError):
            continue
        found.append(((drawn, program), eager, exact))
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_programs_side_by_side(seed, monkeypatch):
    holds_all(seed, monkeypatch)


def holds_all(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = known(random.Random(seed))
    functions = [function(program) for (_, program), _, _ in cases]

    def all_of_them(groups):
        return [f(*g) for f, g in zip(functions, groups, strict=True)]

    groups = []
    for (drawn, _), _, _ in cases:
        inputs = test_drawn.copies([tensor(d) for d in drawn])
        groups.append([moved(x, "ve") for x in inputs])
    torch._dynamo.reset()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        results = torch.compile(all_of_them, backend=Backend(), dynamic=False)(groups)
    monkeypatch.setattr(test_drawn, "DEVICE", "ve")
    for ((drawn, program), eager, exact), got, given in zip(cases, results, groups, strict=True):
        inputs = [tensor(d) for d in drawn]
        allowed = test_drawn.precision(program, test_drawn.copies(inputs))
        every = zip([*got, *given], eager, exact, strict=True)
        if any(test_drawn.wrong(moved(g, "cpu"), e, x, allowed) for g, e, x in every):
            try:  # alone: a mistake, if eager's own compiler makes none
                test_drawn.holds(drawn, program, train=False)
            except UnsatisfiedAssumption:
                continue
            raise AssertionError(f"wrong beside other programs: {drawn} {program}")

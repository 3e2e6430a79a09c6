"""The algebra of indices against plain integer arithmetic, on random expressions."""

from __future__ import annotations

import copy
import pickle
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sol_dynamo.affine import FloorDiv, Index, Mod

SYMBOLS = "xyz"
coefficients = st.integers(-12, 12)
divisors = st.integers(1, 12)

# (kind, a, b): the expression both as an Index and as Python integers
trees = st.recursive(
    st.one_of(st.sampled_from(SYMBOLS), st.integers(-20, 20)),
    lambda t: st.one_of(
        st.tuples(st.sampled_from("+-"), t, t),
        st.tuples(st.just("*"), t, coefficients),
        st.tuples(st.sampled_from(("//", "%")), t, divisors),
    ),
    max_leaves=8,
)
values = st.fixed_dictionaries({s: st.integers(-50, 50) for s in SYMBOLS})
extents = st.fixed_dictionaries({s: st.integers(1, 6) for s in SYMBOLS})


def build(tree: Any, leaf) -> Any:
    """The tree over whatever `leaf` makes of symbols and integers."""
    if not isinstance(tree, tuple):
        return leaf(tree)
    kind, a, b = tree
    x = build(a, leaf)
    if kind == "+":
        return x + build(b, leaf)
    if kind == "-":
        return x - build(b, leaf)
    return x * b if kind == "*" else x // b if kind == "//" else x % b


def evaluate(tree: Any, env: dict[str, int]) -> int:
    return build(tree, lambda v: env[v] if isinstance(v, str) else v)


@given(trees, values)
def test_evaluates_as_integers(tree: Any, env: dict[str, int]) -> None:
    index = build(tree, Index.of)
    assert index.evaluate(env) == evaluate(tree, env)
    assert index.subst(env) is Index.of(evaluate(tree, env))
    assert index.symbols <= set(SYMBOLS)


@given(trees, trees, values)
def test_subst_is_composition(tree: Any, inner: Any, env: dict[str, int]) -> None:
    index = build(tree, Index.of).subst({"x": build(inner, Index.of), "y": "z"})
    inside = {**env, "x": evaluate(inner, env), "y": env["z"]}
    assert index.evaluate(env) == evaluate(tree, inside)


@given(trees, extents, values)
def test_bounds_and_simplify_within_ranges(tree: Any, sizes: dict[str, int], start) -> None:
    index = build(tree, Index.of)
    ranges = {s: (start[s], start[s] + n - 1) for s, n in sizes.items()}
    lo, hi = index.bounds(ranges)
    simple = index.simplify(ranges)
    for point in product(*(range(a, b + 1) for a, b in ranges.values())):
        env = dict(zip(ranges, point, strict=True))
        value = evaluate(tree, env)
        assert lo <= value <= hi
        assert simple.evaluate(env) == value


@given(st.lists(coefficients, min_size=3, max_size=3), st.integers(-9, 9), extents)
def test_bounds_of_affine_indices_are_exact(cs, const: int, sizes: dict[str, int]) -> None:
    index = Index(dict(zip(SYMBOLS, cs, strict=True)), const)
    points = product(*(range(sizes[s]) for s in SYMBOLS))
    reached = [index.evaluate(dict(zip(SYMBOLS, p, strict=True))) for p in points]
    assert index.bounds({s: (0, n - 1) for s, n in sizes.items()}) == (min(reached), max(reached))


@given(trees)
def test_normal_form_is_stable(tree: Any) -> None:
    index = build(tree, Index.of)
    assert Index(index.terms, index.const) is index
    assert Index(tuple(reversed(index.terms)), index.const) is index
    assert index + 0 is index and index * 1 is index and index - index is Index()
    assert (index * -1) * -1 is index and 0 - index is index * -1
    assert pickle.loads(pickle.dumps(index)) is index and copy.deepcopy(index) is index
    assert all(c != 0 for _, c in index.terms)


@given(st.permutations(range(3)), st.integers(2, 7), st.integers(2, 7))
def test_splitting_and_joining_again(order, a: int, b: int) -> None:
    m = Index.of("x")
    parts = [(m // (a * b)) * (a * b), ((m // b) % a) * b, m % b]
    assert sum((parts[k] for k in order), Index()) is m


def test_interned() -> None:
    x, y = Index.of("x"), Index.of("y")
    assert x + y is y + x
    assert x * 2 + x is x * 3
    assert (x // 4) // 3 is x // 12
    assert (x % 12) % 4 is x % 4
    assert (x % 12) // 4 is (x // 4) % 3
    assert (x * 8 + y) // 4 is x * 2 + y // 4
    assert (x * 8 + 5) % 4 is Index.of(1)
    assert (x * 8) // 12 is (x * 2) // 3 and (x * 8) % 12 is ((x * 2) % 3) * 4
    assert (x * 6 - y * 3 - 2) // 9 is (x * 2 - y - 1) // 3
    assert (x * 6 - y * 3 - 2) % 9 is ((x * 2 - y - 1) % 3) * 3 + 1
    with pytest.raises(AttributeError):
        x.const = 1
    with pytest.raises(TypeError, match="not affine"):
        x * y


def test_questions() -> None:
    x, y = Index.of("x"), Index.of("y")
    index = x * 3 + (y // 2) * 4 + 1
    assert index.coefficient("x") == 3 and index.coefficient("y") == 0
    assert index.is_affine_in("x") and not index.is_affine_in("y")
    assert index.symbols == {"x", "y"} and not index.is_const and Index.of(7).is_const
    assert {type(a) for a, _ in (y // 2 + y % 3).terms} == {FloorDiv, Mod}
    assert str(x * 3 - y - 2) == "3*x - y - 2"
    assert str((x // 2) * 3 - (x + y) % 4) == "-((x + y)%4) + 3*(x//2)"


def test_simplify_by_ranges() -> None:
    x, y = Index.of("x"), Index.of("y")
    ranges = {"x": (0, 6), "y": (0, 3)}
    assert (x % 7).simplify(ranges) is x
    assert (x // 7).simplify(ranges) is Index()
    assert ((y * 7 + x) // 7).simplify(ranges) is y
    assert ((y * 7 + x) % 7).simplify(ranges) is x
    assert ((y * 7 + x) // 14).simplify(ranges) is y // 2
    assert (x % 6).simplify(ranges) is x % 6  # a near miss: 6 % 6 is 0

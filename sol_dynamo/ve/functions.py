"""Functions that generated code for the vector engine calls: of vectors, and of one element.

Those of vectors stand in functions.c. A function that has no text there is computed element by
element by libm's double functions, which the loader of the card has. Knows nothing of the IR.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ..kernels.c import half, vecmath

_SOURCE = Path(__file__).with_name("functions.c")
# floats that are exact through double, so that vectors of floats take the double's text
_WIDE = frozenset(("round", "floor", "ceil", "trunc", "rsqrt"))
VECTOR = 256  # `lanes` of a function of vectors; 1: of one element


def has_vector(name: str, dtype: str) -> bool:
    """Whether there is a text for vectors."""
    return f"{name}_{dtype}v" in _templates() or (dtype == "f32" and name in _WIDE)


def definitions(uses: Iterable[tuple[str, str, int]]) -> str:
    """The text of all functions used, each once, callees first."""
    done: dict[str, str] = {}

    def add(name: str, text: str) -> None:
        if name in done:
            return
        for called in dict.fromkeys(re.findall(r"\b(sol_\w+)\(", text)):
            function, _, dtype = called[4:].rpartition("_")
            if called == name:
                continue
            if called[4:] in _templates():
                add(called, _templates()[called[4:]])
            elif dtype == "f32v" and function in _WIDE:
                add(called, _vector(function, "f32"))
        done[name] = text

    for name, dtype, lanes in sorted(uses):
        if lanes > 1 or has_vector(name, dtype):
            add(f"sol_{name}_{dtype}v", _vector(name, dtype))
        elif _through_double(name, dtype):
            add(f"sol_{name}_f64", _scalar(name, "f64"))
        if lanes == 1:
            add(f"sol_{name}_{dtype}", _scalar(name, dtype))
    return "\n".join(done.values())


def _through_double(name: str, dtype: str) -> bool:
    """Whether a float goes through the double's function: right to its last bit."""
    return dtype == "f32" and name in vecmath.BY_LANE


@cache
def _scalar(name: str, dtype: str) -> str:
    """C text of `sol_<name>_<dtype>`: the function of vectors, of one lane, where there is one. It
    calls nothing, so that vectors may be live around it, and gives the bits that vectors give."""
    if name in half.NAMES:
        return half.function(name, 1)
    two = name in vecmath.TWO
    arguments, values = (f"{dtype} x, {dtype} y", "x, y") if two else (f"{dtype} x", "x")
    head = f"static inline {dtype} sol_{name}_{dtype}({arguments})"
    if has_vector(name, dtype):
        s = "s" if dtype == "f32" else "d"
        vectors = ", ".join(f"_vel_vbrd{s}_vsl({x}, 1)" for x in values.split(", "))
        return f"{head} {{ return _vel_lvs{s}_svs(sol_{name}_{dtype}v({vectors}, 1), 0); }}"
    if _through_double(name, dtype):
        return f"{head} {{ return sol_{name}_f64({values}); }}"
    return vecmath.function_of_one(name, dtype)


@cache
def _vector(name: str, dtype: str) -> str:
    """C text of `sol_<name>_<dtype>v`."""
    text = _templates().get(f"{name}_{dtype}v")
    if text is not None:
        return text
    return (
        f"static inline __vr sol_{name}_f32v(__vr x, int L)\n{{\n"
        f"  return _vel_vcvtsd_vvl(sol_{name}_f64v(_vel_vcvtds_vvl(x, L), L), L);\n}}\n"
    )


@cache
def _templates() -> dict[str, str]:
    """`exp_f32v` -> its text, with the comment above it."""
    each = re.compile(r"(?:/\*(?:[^*]|\*(?!/))*\*/\n)?static inline .*?\n}\n", re.S)
    parts = each.findall(_SOURCE.read_text())
    return {m[1]: part for part in parts if (m := re.search(r"sol_(\w+)\(", part))}

"""Expressions of float32 on packed vectors: two results in each element of 64 bits.

Operation by operation over several vectors, so that one's latency is hidden by the others. Only
what costs a few instructions: anything else is a kernel of its own, of which the general emitter
knows more. A scalar holds its value in both halves. Knows no loops and no addresses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from math import isnan
from typing import NamedTuple

from ..affine import FloorDiv, Index
from ..ir import Const, Expr, Load, Op, walk

_OPS = frozenset(("add", "sub", "mul", "neg", "abs", "max", "min"))
PRELUDE = """\
#ifndef SOL_PACKED
#define SOL_PACKED
typedef __vr V;
static inline unsigned long sol_pair(const float *low, const float *high) {
  return (unsigned long)*(const unsigned *)high << 32 | *(const unsigned *)low;
}
static inline unsigned long sol_twice(const float *x) { return sol_pair(x, x); }
#endif
"""
_SIGNS = 0x8000000080000000


class Packed(NamedTuple):
    """A C name: a vector register, or a scalar of 64 bits."""

    text: str
    scalar: bool = False


def supported(e: Expr) -> bool:
    """Whether an expression can be computed here, but for its loads."""
    return all(
        x.dtype == "f32" and (not isinstance(x, Op) or x.name in _OPS or _is_copy(x))
        for x in walk(e)
        if isinstance(x, (Op, Load, Const))
    ) and all(isinstance(x, (Op, Load, Const)) for x in walk(e))


def _is_copy(e: Op) -> bool:
    return e.name == "cast" and e.args[0].dtype == e.dtype


def word(value: float) -> str:
    """A float32 in both halves of 64 bits, as C."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return f"{bits << 32 | bits:#x}UL"


def text(index: Index) -> str:
    """C of an index none of whose dividends is negative."""
    parts = []
    for atom, c in index.terms:
        if isinstance(atom, str):
            t = f"at_{atom}"
        else:
            sign = "/" if isinstance(atom, FloorDiv) else "%"
            t = f"(({text(atom.numerator)}) {sign} {atom.divisor}L)"
        parts.append(f"{t} * {c}L")
    return f"({' + '.join([*parts, f'{index.const}L'])})"


class Writer:
    """Writes expressions for several members of a group, one operation for all of them at a time.

    `length`: C text of the vector length.
    """

    def __init__(self, lines: list[str], length: str):
        self.lines, self.length = lines, length
        self._names = 0

    def name(self, text: str, kind: str = "V") -> str:
        self._names += 1
        made = f"t{self._names}"
        self.lines.append(f"{kind} {made} = {text};")
        return made

    def group(
        self, roots: Sequence[Expr], members: int, leaf: Callable[[Load, int], Packed]
    ) -> list[list[Packed]]:
        """The values of each root for each member, scalars made vectors."""
        values: dict[int, list[Packed]] = {}
        for e in walk(*roots):
            made = []
            for m in range(members):
                if isinstance(e, Load):
                    made.append(leaf(e, m))
                elif isinstance(e, Const):
                    made.append(Packed(word(float(e.value)), True))
                else:
                    assert isinstance(e, Op)
                    args = [values[id(a)][m] for a in e.args]
                    constant = all(isinstance(a, Const) for a in e.args[1:])
                    made.append(self._op(e, args, constant))
            values[id(e)] = made
        return [[self.vector(v) for v in values[id(r)]] for r in roots]

    def vector(self, v: Packed) -> Packed:
        return Packed(self._call("vbrdl_vsl", v.text)) if v.scalar else v

    def _call(self, name: str, *args: str) -> str:
        return self.name(f"_vel_{name}({', '.join(args)}, {self.length})")

    def _op(self, e: Op, args: list[Packed], constant: bool) -> Packed:
        if e.name == "cast":
            return args[0]
        if all(a.scalar for a in args):
            args = [self.vector(args[0]), *args[1:]]
        if e.name == "neg":
            return Packed(self._call("vxor_vsvl", f"{_SIGNS:#x}UL", args[0].text))
        if e.name == "abs":
            return Packed(self._call("vand_vsvl", f"{~_SIGNS & (1 << 64) - 1:#x}UL", args[0].text))
        a, b = args
        if e.name in ("max", "min"):
            return self._extremum(e, a, b)
        kind = {"add": "pvfadd", "sub": "pvfsub", "mul": "pvfmul"}[e.name]
        if b.scalar and e.name == "sub":  # there is s - v alone
            kind, b = "pvfadd", Packed(f"({b.text} ^ {_SIGNS:#x}UL)", True)
        if b.scalar:
            a, b = b, a
        return Packed(self._call(f"{kind}_{'vsvl' if a.scalar else 'vvvl'}", a.text, b.text))

    def _extremum(self, e: Op, a: Packed, b: Packed) -> Packed:
        """NaN where one is; `pvfmax` would drop it. max(x, 0) keeps x where that is no less."""
        first, second = e.args
        if isinstance(first, Const):
            (first, a), (second, b) = (second, b), (first, a)
        if isinstance(second, Const) and not isnan(float(second.value)):
            keep = "genan" if e.name == "max" else "lenan"
            compared = a.text
            if float(second.value) != 0:
                compared = self._call("pvfcmp_vvvl", a.text, self.vector(b).text)
            mask = self.name(f"_vel_pvfmks{keep}_Mvl({compared}, {self.length})", "__vm512")
            return Packed(
                self.name(f"_vel_vmrgw_vsvMl({b.text}, {a.text}, {mask}, {self.length})")
            )
        a, b = self.vector(a), self.vector(b)
        keep = "gtnan" if e.name == "max" else "ltnan"
        compared = self._call("pvfcmp_vvvl", a.text, b.text)
        mask = self.name(f"_vel_pvfmks{keep}_Mvl({compared}, {self.length})", "__vm512")
        best = self.name(f"_vel_vmrgw_vvvMl({b.text}, {a.text}, {mask}, {self.length})")
        mask = self.name(f"_vel_pvfmksnan_Mvl({b.text}, {self.length})", "__vm512")
        return Packed(self.name(f"_vel_vmrgw_vvvMl({best}, {b.text}, {mask}, {self.length})"))

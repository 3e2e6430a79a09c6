"""Vectors of the model: 256 elements of 64 bits, a write mask, and lanes.

Bits 55 and 54 (cx, cx2) of most instructions choose the lanes: all 64 bits (00), the lower half
(01), the upper half (10) or both halves separately (11, "packed"); in the first three cases a half
that is not computed is cleared (or extended, for `.w.sx`). Elements at and past VL and masked ones
keep their value. Part of model.py, which names the sources; it must not know single instructions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from encoding import VIX, Fields
from ieee import F32, Format, Result
from model import MAX_VL, U32, U64, State, Step, Trapped

Array = np.ndarray
ELEMENTS = np.arange(MAX_VL)
HALF = np.uint64(32)
# Instructions with a scalar in place of vz (cs2)
SCALAR_Z = {0xE9, 0xEB, 0xFB, 0xDD, 0xE2, 0xE3, 0xF2, 0xF3}


class Lanes:
    """The operands of an instruction, and how its results get into registers."""

    def __init__(self, state: State, f: Fields, result: Step) -> None:
        self.state, self.f, self.result = state, f, result
        self.within = state.vl > ELEMENTS

    # --- operands --------------------------------------------------------------------------------

    def register(self, number: int) -> int:
        if number == VIX:
            return self.state.vix
        if number > 63:
            raise Trapped("IllegalInstruction")
        return number

    def vector(self, number: int) -> Array:
        return self.state.v[self.register(number)].copy()

    def scalar(self) -> int:
        """Operand y: an S register or a sign-extended immediate."""
        return self.state.s[self.f.sy] if self.f.cy else self.f.simm_y & U64

    def scalar_unsigned(self) -> int:
        return self.state.s[self.f.sy] if self.f.cy else self.f.sy

    def scalar_z(self) -> int:
        return self.state.s[self.f.sz] if self.f.cz else self.f.ones_z

    def z_or_zero(self) -> int:
        return self.state.s[self.f.sz] if self.f.cz else 0

    def y(self, immediate: str = "signed") -> Array:
        """The y operand: a vector, or with cs a scalar in every element."""
        if not self.f.cs:
            return self.vector(self.f.vy)
        if immediate == "ones" and not self.f.cy:
            sequence = self.f.sy
            ones = U64 >> (sequence & 63)
            value = ones if sequence & 64 else U64 & ~ones
        else:
            value = self.scalar_unsigned() if immediate == "unsigned" else self.scalar()
        return np.full(MAX_VL, value, np.uint64)

    def z(self) -> Array:
        """The z operand: a vector, or with cs2 a scalar in every element."""
        if self.f.cs2 and self.f.opcode in SCALAR_Z:
            return np.full(MAX_VL, self.scalar(), np.uint64)
        return self.vector(self.f.vz)

    def mask(self, number: int) -> Array:
        return np.ones(MAX_VL, bool) if number == 0 else self.state.vm[number].copy()

    def masks(self) -> tuple[Array, Array]:
        """Masks of the upper and the lower halves, for packed instructions: two VM registers."""
        if self.f.m == 0:
            return self.mask(0), self.mask(0)
        if self.f.m % 2:
            raise Trapped("IllegalInstruction")
        return self.mask(self.f.m), self.mask(self.f.m + 1)

    # --- results ---------------------------------------------------------------------------------

    def put(self, values: Array, care: Array | None = None, active: Array | None = None) -> None:
        """Writes the active elements below VL of vx."""
        active = self.within & (self.mask(self.f.m) if active is None else active)
        target = self.register(self.f.vx)
        self.state.v[target][active] = values[active]
        if care is not None and not (care[active] == np.uint64(U64)).all():
            self.result.care_v[target] = np.where(active, care, np.uint64(U64))

    def put_packed(self, high: Array, low: Array, care_high: Array, care_low: Array) -> None:
        """Writes the halves (as 32-bit arrays), each under its own mask."""
        mask_high, mask_low = self.masks()
        target = self.register(self.f.vx)
        old = self.state.v[target]
        take_high, take_low = self.within & mask_high, self.within & mask_low
        new = join(np.where(take_high, high, upper(old)), np.where(take_low, low, lower(old)))
        care = join(
            np.where(take_high, care_high, np.uint32(U32)),
            np.where(take_low, care_low, np.uint32(U32)),
        )
        self.state.v[target] = new
        if not (care == np.uint64(U64)).all():
            self.result.care_v[target] = care

    def lanes(
        self, wide: Callable[..., Array], narrow: Callable[..., Array], *arrays: Array
    ) -> None:
        """Lane-wise: `wide` on uint64 where cx = cx2 = 0, else `narrow` on uint32 halves."""
        if not (self.f.cx or self.f.cx2):
            self.put(wide(*arrays))
        else:
            self.halves(narrow, *arrays)

    def halves(self, narrow: Callable[..., Array], *arrays: Array) -> None:
        zero, every = np.zeros(MAX_VL, np.uint32), np.full(MAX_VL, U32, np.uint32)
        high = narrow(*map(upper, arrays)) if self.f.cx else zero
        low = narrow(*map(lower, arrays)) if self.f.cx2 else zero
        if self.f.cx and self.f.cx2:
            self.put_packed(high, low, every, every)
        else:
            self.put(join(high, low))

    def words(self, narrow: Callable[..., Array], *arrays: Array) -> None:
        """Instructions whose first variant is `.w.sx`: the lower half, sign-extended."""
        if not (self.f.cx or self.f.cx2):
            self.put(extend(narrow(*map(lower, arrays))))
        else:
            self.halves(narrow, *arrays)

    # --- reductions ------------------------------------------------------------------------------

    def active_elements(self) -> list[int]:
        active = self.within & self.mask(self.f.m)
        return [int(a) for a in self.vector(self.f.vy)[active]]

    def put_first(self, target: int, value: int, care: int) -> None:
        """A reduction's result: element 0."""
        self.state.v[target][0] = value
        if care != U64:
            cares = np.full(MAX_VL, U64, np.uint64)
            cares[0] = care
            self.result.care_v[target] = cares

    def put_extreme(self, target: int, value: int, care: int, best: list[int]) -> None:
        """A maximum or minimum, and in element 1 the index of its first or last place: `.fst` and
        `.lst` differ in nothing else. No source says more, so element 1 may also stay."""
        before = int(self.state.v[target, 1])
        self.put_first(target, value, care)
        cares = self.result.care_v.setdefault(target, np.full(MAX_VL, U64, np.uint64))
        cares[1] = 0
        index = (best[-1] if self.f.cs else best[0]) if best else before

        def check(actual: int) -> str | None:
            return None if actual in (before, index) else f"expected {before:#x} or {index}"

        if best:
            self.result.checks.append(("v", target << 8 | 1, 0, check))


# --- lanes ---------------------------------------------------------------------------------------


def upper(a: Array) -> Array:
    return (a >> HALF).astype(np.uint32)


def lower(a: Array) -> Array:
    return a.astype(np.uint32)


def join(high: Array, low: Array) -> Array:
    return high.astype(np.uint64) << HALF | low.astype(np.uint64)


def zero_extend(words: Array) -> Array:
    return words.astype(np.uint64)


def extend(words: Array) -> Array:
    return words.view(np.int32).astype(np.int64).view(np.uint64)


def each(
    fmt: Format, operation: Callable[..., Result], active: Array, arrays: list[Array] | tuple
) -> tuple[Array, Array]:
    kind = np.uint32 if fmt is F32 else np.uint64
    values, care = np.zeros(MAX_VL, kind), np.full(MAX_VL, fmt.all, kind)
    for e in np.flatnonzero(active):
        values[e], care[e] = operation(fmt, *(int(a[e]) for a in arrays))
    return values, care


def quiet(numbers: Array, kind: type, fmt: Format) -> tuple[Array, Array]:
    """Bits of the results, and which of them are defined: of NaN only that it is a quiet one."""
    bits: Array = numbers.view(kind)
    nan = np.isnan(numbers)
    return np.where(nan, kind(fmt.nan), bits), np.where(nan, kind(fmt.nan), kind(fmt.all))

"""Exact binary floating point on Python integers: the arithmetic of the vector engine's model.

A finite number is ``mantissa * 2**exponent``; every operation computes the exact result (or
enough bits of it and a sticky bit) and rounds once. Slow and plain, so that it can be believed.
It knows of IEEE 754 only: no registers, no instructions.

Results are pairs ``(bits, care)``: only the bits set in ``care`` are defined. A NaN result is any
quiet NaN, because which payload the machine gives is published in none of the sources used here.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

MODES = ("rz", "rp", "rm", "rn")  # by PSW's two bits; "ra" exists for conversions only
Result = tuple[int, int]


class Number(NamedTuple):
    """``kind`` is "finite", "inf" or "nan"; if finite: (-1)**sign * mantissa * 2**exponent."""

    kind: str
    sign: int
    mantissa: int = 0
    exponent: int = 0


class Format:
    """One of IEEE 754's binary interchange formats."""

    def __init__(self, width: int, exponent_bits: int) -> None:
        self.width = width
        self.precision = width - exponent_bits  # with the hidden bit
        self.fraction = self.precision - 1
        self.top = (1 << exponent_bits) - 1
        self.least = 2 - (1 << (exponent_bits - 1)) - self.fraction  # exponent of the last bit
        self.sign = 1 << (width - 1)
        self.infinity = self.top << self.fraction
        self.nan = self.infinity | 1 << (self.fraction - 1)
        self.largest = self.infinity - 1
        self.all = (1 << width) - 1

    def unpack(self, bits: int) -> Number:
        sign = bits >> (self.width - 1) & 1
        biased = bits >> self.fraction & self.top
        mantissa = bits & ((1 << self.fraction) - 1)
        if biased == self.top:
            return Number("nan" if mantissa else "inf", sign)
        if biased == 0:
            return Number("finite", sign, mantissa, self.least)
        return Number("finite", sign, mantissa | 1 << self.fraction, self.least + biased - 1)

    def round(self, sign: int, mantissa: int, exponent: int, mode: str = "rn") -> int:
        """The representable number nearest to the value in the mode's sense, as bits."""
        signed = self.sign if sign else 0
        if mantissa == 0:
            return signed
        last = max(exponent + mantissa.bit_length() - self.precision, self.least)
        mantissa, _ = shift_right(mantissa, last - exponent, mode, sign)
        if mantissa >> self.precision:
            mantissa, last = mantissa >> 1, last + 1
        if mantissa >> self.fraction == 0:
            return signed | mantissa
        biased = last - self.least + 1
        if biased >= self.top:
            away = mode in ("rn", "ra") or mode == ("rm" if sign else "rp")
            return signed | (self.infinity if away else self.largest)
        return signed | (biased << self.fraction) + mantissa - (1 << self.fraction)

    # --- operations; each returns (bits, care) ---------------------------------------------------

    def not_a_number(self) -> Result:
        return self.nan, self.nan

    def exact(self, bits: int) -> Result:
        return bits, self.all

    def is_nan(self, bits: int) -> bool:
        return self.unpack(bits).kind == "nan"

    def negate(self, result: Result) -> Result:
        bits, care = result
        return (bits, care) if self.is_nan(bits) else (bits ^ self.sign, care)

    def add(self, a: int, b: int, mode: str = "rn") -> Result:
        return self.add_numbers(self.unpack(a), self.unpack(b), mode)

    def subtract(self, a: int, b: int, mode: str = "rn") -> Result:
        return self.add(a, b ^ self.sign, mode)

    def add_numbers(self, x: Number, y: Number, mode: str) -> Result:
        if "nan" in (x.kind, y.kind):
            return self.not_a_number()
        if x.kind == y.kind == "inf" and x.sign != y.sign:
            return self.not_a_number()
        for n in (x, y):
            if n.kind == "inf":
                return self.exact(self.infinity | (self.sign if n.sign else 0))
        exponent = min(x.exponent, y.exponent)
        total = sum(
            (-n.mantissa if n.sign else n.mantissa) << (n.exponent - exponent) for n in (x, y)
        )
        if total == 0:
            negative = (x.sign and y.sign) or (x.sign != y.sign and mode == "rm")
            return self.exact(self.sign if negative else 0)
        return self.exact(self.round(int(total < 0), abs(total), exponent, mode))

    def product(self, a: int, b: int) -> Number:
        """a * b, exactly."""
        x, y = self.unpack(a), self.unpack(b)
        sign = x.sign ^ y.sign
        if "nan" in (x.kind, y.kind):
            return Number("nan", 0)
        if "inf" in (x.kind, y.kind):
            zero = any(n.kind == "finite" and n.mantissa == 0 for n in (x, y))
            return Number("nan" if zero else "inf", sign)
        return Number("finite", sign, x.mantissa * y.mantissa, x.exponent + y.exponent)

    def multiply(self, a: int, b: int, mode: str = "rn") -> Result:
        x = self.product(a, b)
        if x.kind == "nan":
            return self.not_a_number()
        if x.kind == "inf":
            return self.exact(self.infinity | (self.sign if x.sign else 0))
        return self.exact(self.round(x.sign, x.mantissa, x.exponent, mode))

    def multiply_add(self, a: int, b: int, c: int, mode: str = "rn") -> Result:
        """a * b + c, rounded once."""
        return self.add_numbers(self.product(a, b), self.unpack(c), mode)

    def divide(self, a: int, b: int, mode: str = "rn") -> Result:
        x, y = self.unpack(a), self.unpack(b)
        sign = x.sign ^ y.sign
        signed = self.sign if sign else 0
        if "nan" in (x.kind, y.kind) or x.kind == y.kind == "inf":
            return self.not_a_number()
        if x.kind == "inf":
            return self.exact(signed | self.infinity)
        if y.kind == "inf":
            return self.exact(signed)
        if y.mantissa == 0:
            return self.exact(signed | self.infinity) if x.mantissa else self.not_a_number()
        scale = max(0, self.precision + 2 + y.mantissa.bit_length() - x.mantissa.bit_length())
        quotient, rest = divmod(x.mantissa << scale, y.mantissa)
        mantissa = quotient << 1 | (rest != 0)
        return self.exact(self.round(sign, mantissa, x.exponent - y.exponent - scale - 1, mode))

    def sqrt(self, a: int, mode: str = "rn") -> Result:
        x = self.unpack(a)
        if x.kind == "nan" or (x.sign and (x.kind == "inf" or x.mantissa)):
            return self.not_a_number()
        if x.kind == "inf" or x.mantissa == 0:
            return self.exact(a)
        scale = 2 * self.precision + 4
        scale += (x.exponent - scale) & 1
        root = math.isqrt(x.mantissa << scale)
        mantissa = root << 1 | (root * root != x.mantissa << scale)
        return self.exact(self.round(0, mantissa, (x.exponent - scale) // 2 - 1, mode))

    def compare(self, a: int, b: int) -> int | None:
        """-1, 0 or 1 as a <=> b; None where they have no order."""
        x, y = self.unpack(a), self.unpack(b)
        if "nan" in (x.kind, y.kind):
            return None
        p, q = ordered(x), ordered(y)
        return (p > q) - (p < q)

    def larger(self, a: int, b: int, smallest: bool = False) -> Result:
        """Maximum (minimum) of numbers; a NaN counts as missing; zeros of both signs are equal."""
        order = self.compare(a, b)
        if order is None:
            if self.is_nan(a) and self.is_nan(b):
                return self.not_a_number()
            return self.exact(b if self.is_nan(a) else a)
        if order == 0 and a != b:
            return 0, self.all & ~self.sign
        return self.exact(a if (order < 0) == smallest else b)

    def to_integer(self, a: int, width: int, mode: str) -> Result:
        """A signed integer; NaN and what does not fit have no published result."""
        x = self.unpack(a)
        if x.kind != "finite":
            return 0, 0
        mantissa, _ = shift_right(x.mantissa, -x.exponent, mode, x.sign)
        value = -mantissa if x.sign else mantissa
        if not -(1 << (width - 1)) <= value < 1 << (width - 1):
            return 0, 0
        return value & ((1 << width) - 1), (1 << width) - 1

    def from_integer(self, value: int, mode: str = "rn") -> Result:
        return self.exact(self.round(int(value < 0), abs(value), 0, mode))

    def convert(self, a: int, target: "Format", mode: str = "rn") -> Result:
        x = self.unpack(a)
        if x.kind == "nan":
            return target.not_a_number()
        if x.kind == "inf":
            return target.exact(target.infinity | (target.sign if x.sign else 0))
        return target.exact(target.round(x.sign, x.mantissa, x.exponent, mode))


def shift_right(mantissa: int, count: int, mode: str, sign: int) -> tuple[int, bool]:
    """mantissa * 2**-count, rounded to an integer; and whether that lost something."""
    if count <= 0:
        return mantissa << -count, False
    kept, lost = mantissa >> count, mantissa & ((1 << count) - 1)
    half = 1 << (count - 1)
    up = {
        "rz": False,
        "rp": lost > 0 and not sign,
        "rm": lost > 0 and bool(sign),
        "rn": lost > half or (lost == half and kept & 1 == 1),
        "ra": lost >= half,
    }[mode]
    return kept + up, lost > 0


def ordered(x: Number) -> tuple[int, int]:
    """A key that sorts numbers (not NaN): infinities outside, then by value at one exponent."""
    if x.kind == "inf":
        return (-1 if x.sign else 1, 0)
    value = x.mantissa << (x.exponent + 20_000)
    return (0, -value if x.sign else value)


F32, F64, F128 = Format(32, 8), Format(64, 11), Format(128, 15)
Binary = Callable[[int, int, str], Result]

"""The model's floating-point vector instructions, conversions, reductions and recurrences.

Part of model.py, which names the sources.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from encoding import ROUNDING
from ieee import F32, F64, Format, Result
from lanes import HALF, Array, Lanes, each, extend, join, lower, quiet, upper, zero_extend
from model import MAX_VL, U32, U64, Trapped, Unmodelled, float_comparison_check, signed

# Accuracy of the approximations; NEC's suite bounds 1/x by about 2**-15
APPROXIMATION = 2.0**-14


def float_lanes(op: Lanes, operation: Callable[..., Result], *arrays: Array) -> None:
    """Applies an operation of one number per lane: double (00), lower, upper or both floats."""
    cx, cx2 = op.f.cx, op.f.cx2
    if op.f.opcode in ONE_FLOAT and cx2:
        raise Unmodelled
    if not (cx or cx2):
        active = op.within & op.mask(op.f.m)
        values, care = each(F64, operation, active, arrays)
        op.put(values, care)
        return
    zero, every = np.zeros(MAX_VL, np.uint32), np.full(MAX_VL, U32, np.uint32)
    if cx and cx2:
        mask_high, mask_low = op.masks()
    else:
        mask_high = mask_low = op.mask(op.f.m)
    high, care_high, low, care_low = zero, every, zero, every
    if cx:
        high, care_high = each(F32, operation, op.within & mask_high, [*map(upper, arrays)])
    if cx2:
        low, care_low = each(F32, operation, op.within & mask_low, [*map(lower, arrays)])
    if cx and cx2:
        op.put_packed(high, low, care_high, care_low)
    else:
        op.put(join(high, low), join(care_high, care_low))


def float_binary(op: Lanes) -> None:
    operation, fast = FLOAT_BINARY[op.f.opcode]
    mode = op.state.mode
    if mode == "rn":
        float_fast(op, fast, op.y(), op.z())
    else:
        float_lanes(op, lambda fmt, a, b: operation(fmt, a, b, mode), op.y(), op.z())


@np.errstate(all="ignore")
def float_fast(op: Lanes, fast: Callable[..., Array], *arrays: Array) -> None:
    """The host's IEEE arithmetic, which rounds to nearest; only its NaNs are not the machine's."""
    cx, cx2 = op.f.cx, op.f.cx2
    if not (cx or cx2):
        op.put(*quiet(fast(*(a.view(np.float64) for a in arrays)), np.uint64, F64))
        return
    zero, every = np.zeros(MAX_VL, np.uint32), np.full(MAX_VL, U32, np.uint32)
    high, care_high, low, care_low = zero, every, zero, every
    if cx:
        high, care_high = quiet(fast(*(upper(a).view(np.float32) for a in arrays)), np.uint32, F32)
    if cx2:
        low, care_low = quiet(fast(*(lower(a).view(np.float32) for a in arrays)), np.uint32, F32)
    if cx and cx2:
        op.put_packed(high, low, care_high, care_low)
    else:
        op.put(join(high, low), join(care_high, care_low))


def float_sqrt(op: Lanes) -> None:
    mode = op.state.mode
    if mode == "rn":
        float_fast(op, np.sqrt, op.vector(op.f.vy))
    else:
        float_lanes(op, lambda fmt, a: fmt.sqrt(a, mode), op.vector(op.f.vy))


def float_select(op: Lanes) -> None:
    smallest = bool(op.f.cs2)
    float_lanes(op, lambda fmt, a, b: fmt.larger(a, b, smallest), op.y(), op.vector(op.f.vz))


def float_multiply_add(op: Lanes) -> None:
    """vfmad: y + z * w; vfmsb: z * w - y; vfnmad, vfnmsb: those, negated."""
    mode, negated, minus = op.state.mode, op.f.opcode & 1, op.f.opcode & 0x10

    def operation(fmt: Format, y: int, z: int, w: int) -> Result:
        result = fmt.multiply_add(z, w, y ^ fmt.sign if minus else y, mode)
        return fmt.negate(result) if negated else result

    float_lanes(op, operation, op.y(), op.z(), op.vector(op.f.vw))


def float_compare(op: Lanes) -> None:
    y, z, target = op.y(), op.z(), op.register(op.f.vx)
    cx, cx2 = op.f.cx, op.f.cx2

    def operation(fmt: Format, a: int, b: int) -> Result:
        order = fmt.compare(a, b)
        return fmt.not_a_number() if order is None else (0, 0)

    float_lanes(op, operation, y, z)
    lanes = [(0, F64)] if not (cx or cx2) else [(32, F32)] * cx + [(0, F32)] * cx2
    high, low = op.masks() if cx and cx2 else (op.mask(op.f.m),) * 2
    for shift, fmt in lanes:
        for e in np.flatnonzero(op.within & (high if shift else low)):
            a, b = int(y[e]) >> shift & fmt.all, int(z[e]) >> shift & fmt.all
            order = fmt.compare(a, b)
            if order is not None:
                check = float_comparison_check(fmt, order)
                op.result.checks.append(("v", target << 8 | int(e), shift, check))


def approximate(op: Lanes) -> None:
    """vrcp, vrsqrt: within a relative bound; exact where the result is a zero or infinity."""
    reciprocal = op.f.opcode == 0xE1
    y, target = op.vector(op.f.vy), op.register(op.f.vx)
    cx, cx2 = op.f.cx, op.f.cx2
    one = {F32: 127 << 23, F64: 1023 << 52}

    def exact(fmt: Format, a: int) -> Result:
        if reciprocal:
            return fmt.divide(one[fmt], a)
        root = fmt.sqrt(a)
        return root if fmt.is_nan(root[0]) else fmt.divide(one[fmt], root[0])

    def operation(fmt: Format, a: int) -> Result:
        bits, care = exact(fmt, a)
        if care != fmt.all or bits & ~fmt.sign in (0, fmt.infinity):
            return bits, care
        return 0, 0

    lanes = [(0, F64)] if not (cx or cx2) else [(32, F32)] * cx + [(0, F32)] * cx2
    high, low = op.masks() if cx and cx2 else (op.mask(op.f.m),) * 2
    float_lanes(op, operation, y)
    for shift, fmt in lanes:
        for e in np.flatnonzero(op.within & (high if shift else low)):
            bits, care = exact(fmt, int(y[e]) >> shift & fmt.all)
            if care == fmt.all and bits & ~fmt.sign not in (0, fmt.infinity):
                check = relative_check(fmt, bits)
                op.result.checks.append(("v", target << 8 | int(e), shift, check))


def to_integer(op: Lanes) -> None:
    """vcvt.w.d/.s .sx/.zx, pvcvt.w.s*, vcvt.l.d"""
    f = op.f
    code = ROUNDING.get(f.vz)
    if code is None:
        raise Trapped("IllegalInstruction")
    mode = op.state.mode if code == "psw" else code
    y = op.vector(f.vy)
    if f.opcode == 0xA8:
        active = op.within & op.mask(f.m)
        op.put(*each(F64, lambda fmt, a: fmt.to_integer(a, 64, mode), active, [y]))
    elif f.cs2:
        float_lanes(op, lambda fmt, a: fmt.to_integer(a, 32, mode), y)
    else:
        fmt, source = (F32, upper(y)) if f.cx else (F64, y)
        active = op.within & op.mask(f.m)
        bits, care = each(fmt, lambda fmt, a: fmt.to_integer(a, 32, mode), active, [source])
        words = bits.astype(np.uint32)
        values = zero_extend(words) if f.cx2 else extend(words)
        full = np.where(care == 0, np.uint64(0), np.uint64(U64))
        op.put(values, full)


def from_integer(op: Lanes) -> None:
    f, mode = op.f, op.state.mode
    y = op.vector(f.vy)
    if f.opcode == 0xB8:
        active = op.within & op.mask(f.m)
        op.put(*each(F64, lambda fmt, a: fmt.from_integer(signed(a), mode), active, [y]))
    elif f.cs2:
        float_lanes(op, lambda fmt, a: fmt.from_integer(signed(a, 32), mode), y)
    else:
        fmt = F32 if f.cx else F64
        active = op.within & op.mask(f.m)
        bits, _ = each(fmt, lambda fmt, a: fmt.from_integer(signed(a, 32), mode), active,
                       [lower(y)])  # fmt: skip
        op.put(bits.astype(np.uint64) << HALF if f.cx else bits)


def change_format(op: Lanes) -> None:
    y, mode = op.vector(op.f.vy), op.state.mode
    active = op.within & op.mask(op.f.m)
    if op.f.opcode == 0x9F:
        bits, care = each(F64, lambda fmt, a: fmt.convert(a, F32, mode), active, [y])
        every = np.uint64(U32)
        op.put(bits << HALF, np.where(active, care << HALF | every, np.uint64(U64)))
    else:
        values = [F32.convert(int(a), F64, mode) if on else (0, U64)
                  for a, on in zip(upper(y), active, strict=True)]  # fmt: skip
        op.put(*(np.array(part, np.uint64) for part in zip(*values, strict=True)))


def number(fmt: Format, bits: int) -> float:
    kind = (np.uint32, np.float32) if fmt is F32 else (np.uint64, np.float64)
    return float(np.array([bits & fmt.all], kind[0]).view(kind[1])[0])


def relative_check(fmt: Format, exact: int) -> Callable[[int], str | None]:
    def check(actual: int) -> str | None:
        want, got = number(fmt, exact), number(fmt, actual)
        smallest = 2.0 ** (fmt.least + fmt.fraction)  # the least normal number
        if abs(got - want) <= APPROXIMATION * abs(want) or abs(want) < smallest:
            return None
        if abs(want) > 2.0**127 if fmt is F32 else abs(want) > 2.0**1023:
            return None  # may overflow within the bound
        return f"{got!r}, expected {want!r} within {APPROXIMATION}"

    return check


def sum_check(fmt: Format, values: list[int]) -> Callable[[int], str | None]:
    numbers = [fmt.unpack(a) for a in values]

    def check(actual: int) -> str | None:
        got = fmt.unpack(actual & fmt.all)
        infinities = {n.sign for n in numbers if n.kind == "inf"}
        if any(n.kind == "nan" for n in numbers) or len(infinities) == 2:
            return None if got.kind == "nan" else f"{actual:#x}, expected a NaN"
        if infinities:
            ok = got.kind == "inf" and {got.sign} == infinities
            return None if ok else f"{actual:#x}, expected an infinity"
        exponent = min(n.exponent for n in numbers)
        parts = [(-1) ** n.sign * (n.mantissa << (n.exponent - exponent)) for n in numbers]
        total, size = sum(parts), sum(map(abs, parts))
        if fmt.round(0, size, exponent, "rp") == fmt.infinity:
            return None  # some order of the sum overflows
        if got.kind != "finite":
            return f"{actual:#x}, expected a finite sum"
        shift = got.exponent - exponent
        mine = (-1) ** got.sign * got.mantissa
        mine = mine << shift if shift >= 0 else mine >> -shift
        # n - 1 additions, each half a unit in the last place of at most `size`, and the least bits
        bound = (len(values) + 1) * (size >> (fmt.precision - 1)) + len(values) + 2
        return None if abs(mine - total) <= bound else f"{actual:#x}: off the bound of a sum"

    return check


def iterate_two(operation: Callable[..., Result], reverse: bool = False) -> Callable[..., Result]:
    def run(fmt: Format, x: int, y: int, z: int, mode: str) -> Result:
        return operation(fmt, y, x, mode) if reverse else operation(fmt, x, y, mode)

    return run


def chain(first: Callable[..., Result], second: Callable[..., Result]) -> Callable[..., Result]:
    """Two operations, each rounded (assumed): second(first(y, x), z)."""

    def run(fmt: Format, x: int, y: int, z: int, mode: str) -> Result:
        inner, _ = first(fmt, y, x, mode)
        return second(fmt, inner, z, mode)

    return run


def product_to(second: Callable[..., Result]) -> Callable[..., Result]:
    """y plus or minus the previous element's product with z, y first as in vfmad and vfis."""

    def run(fmt: Format, x: int, y: int, z: int, mode: str) -> Result:
        inner, _ = fmt.multiply(x, z, mode)
        return second(fmt, y, inner, mode)

    return run


ADD, SUB, MUL, DIV = Format.add, Format.subtract, Format.multiply, Format.divide
# x is the element before (the first time: operand y of the word). Assumed from the names
ITERATIONS: dict[int, Callable[..., Result]] = {
    0xCE: iterate_two(ADD), 0xDE: iterate_two(SUB, reverse=True), 0xCF: iterate_two(MUL),
    0xEE: chain(ADD, MUL), 0xFE: chain(SUB, MUL), 0xEF: product_to(ADD), 0xFF: product_to(SUB),
}  # fmt: skip
FLOAT_BINARY = {
    0xCC: (ADD, np.add), 0xDC: (SUB, np.subtract), 0xCD: (MUL, np.multiply), 0xDD: (DIV, np.divide),
}  # fmt: skip
ONE_FLOAT = {0xDD, 0xED}  # no packed variant: cx alone chooses between double and upper float


def extreme_float(op: Lanes) -> None:
    fmt, shift = (F32, 32) if op.f.cx else (F64, 0)
    values = [a >> shift for a in op.active_elements()]
    numbers = [a for a in values if not fmt.is_nan(a)]
    care = fmt.all
    if not numbers:
        bits, care = fmt.infinity, fmt.infinity if values else 0  # some NaN, not said to be quiet
    else:
        bits = numbers[0]
        for a in numbers[1:]:
            bits, some = fmt.larger(bits, a, bool(op.f.cs2))
            care = some if some != fmt.all else care
        if bits & ~fmt.sign:
            care = fmt.all
        if len(numbers) < len(values):
            care = 0  # a NaN among numbers: assumed missing, as in vfmax; no source
    low = U32 if shift and values else 0
    active = np.flatnonzero(op.within & op.mask(op.f.m))
    places = [int(e) for e, a in zip(active, values, strict=True)
              if not fmt.is_nan(a) and fmt.compare(a, bits) == 0]  # fmt: skip
    op.put_extreme(op.register(op.f.vx), bits << shift, care << shift | low,
                   places if care == fmt.all else [])  # fmt: skip


def sum_float(op: Lanes) -> None:
    """The order of the sum is open: any result within the bound of one."""
    fmt, shift = (F32, 32) if op.f.cx else (F64, 0)
    values = [a >> shift for a in op.active_elements()]
    target = op.register(op.f.vx)
    op.put_first(target, 0, U32 if shift and values else 0)
    if values:
        check = sum_check(fmt, values)
        op.result.checks.append(("v", target << 8, shift, check))


def iterate(op: Lanes) -> None:
    """Recurrences over the vector: each element uses the one before, the first one y."""
    fmt, shift = (F32, 32) if op.f.cx else (F64, 0)
    mode = op.state.mode
    y, z = op.vector(op.f.vy), op.vector(op.f.vz)
    previous = op.scalar() >> shift
    values, cares = np.zeros(MAX_VL, np.uint64), np.full(MAX_VL, U64, np.uint64)
    for e in range(op.state.vl):
        a, b = int(y[e]) >> shift, int(z[e]) >> shift
        previous, care = ITERATIONS[op.f.opcode](fmt, previous, a, b, mode)
        values[e] = previous << shift
        cares[e] = care << shift | (U32 if shift else 0)
    op.put(values, cares, active=op.mask(0))


DISPATCH: dict[int, Callable[[Lanes], None]] = {
    **dict.fromkeys(FLOAT_BINARY, float_binary),
    0xED: float_sqrt,
    0xFC: float_compare,
    0xBD: float_select,
    **dict.fromkeys((0xE2, 0xE3, 0xF2, 0xF3), float_multiply_add),
    0xE1: approximate,
    0xF1: approximate,
    0xE8: to_integer,
    0xA8: to_integer,
    0xF8: from_integer,
    0xB8: from_integer,
    0x9F: change_format,
    0x8F: change_format,
    0xEC: sum_float,
    0xAD: extreme_float,
    **dict.fromkeys(ITERATIONS, iterate),
}

"""The model's integer and logical vector instructions and their reductions.

Part of model.py, which names the sources.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from lanes import ELEMENTS, HALF, Array, Lanes, extend, lower, upper, zero_extend
from model import MAX_VL, U32, U64, Trapped, comparison_check, signed


def add(op: Lanes) -> None:
    op.lanes(np.add, np.add, op.y(), op.z())


def subtract(op: Lanes) -> None:
    op.lanes(np.subtract, np.subtract, op.y(), op.z())


def add_words(op: Lanes) -> None:
    op.words(np.add, op.y(), op.z())


def subtract_words(op: Lanes) -> None:
    op.words(np.subtract, op.y(), op.z())


def add_long(op: Lanes) -> None:
    op.put(op.y() + op.z())


def subtract_long(op: Lanes) -> None:
    op.put(op.y() - op.z())


def multiply_long(op: Lanes) -> None:
    op.put(op.y() * op.z())


def multiply_unsigned(op: Lanes) -> None:
    y, z = op.y(), op.z()
    op.put(zero_extend(lower(y) * lower(z)) if op.f.cx2 else y * z)


def multiply_words(op: Lanes) -> None:
    product = lower(op.y()) * lower(op.z())
    op.put(zero_extend(product) if op.f.cx2 else extend(product))


def multiply_word_long(op: Lanes) -> None:
    op.put(extend(lower(op.y())) * extend(lower(op.z())))


def divide(op: Lanes) -> None:
    """All kinds of integer division; by Python's integers."""
    kind = op.f.opcode
    words = kind == 0xEB or (kind == 0xE9 and op.f.cx2)
    width = 32 if words else 64
    y, z = op.y(), op.z()
    active = op.within & op.mask(op.f.m)
    values = np.zeros(MAX_VL, np.uint64)
    for e in np.flatnonzero(active):
        a, b = int(y[e]), int(z[e])
        if words:
            a, b = a & U32, b & U32
        if b == 0:
            raise Trapped("DivideByZero")
        if kind != 0xE9:
            a, b = signed(a, width), signed(b, width)
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        if words:
            keep = kind == 0xE9 or op.f.cx2
            quotient = quotient & U32 if keep else signed(quotient, 32)
        values[e] = quotient & U64
    op.put(values)


def compare(op: Lanes, order: Callable[[Array, Array], Array], words: bool) -> None:
    """Comparisons: each lane gets a number of the sign of y <=> z."""
    y, z = op.y(), op.z()
    target = op.register(op.f.vx)
    cx, cx2 = op.f.cx, op.f.cx2
    long = op.f.opcode == 0xBA or (not words and not (cx or cx2))
    if long:
        lanes = [(0, 64, order(y, z), op.mask(op.f.m))]
    else:
        both = bool(cx and cx2)
        high, low = op.masks() if both else (op.mask(op.f.m),) * 2
        lanes = []
        if cx:
            lanes.append((32, 32, order(upper(y), upper(z)), high))
        if cx2 or not cx:
            lanes.append((0, 32, order(lower(y), lower(z)), low))
    care = np.full(MAX_VL, U64, np.uint64)
    extends = not long and not (cx or cx2)
    for shift, width, orders, mask in lanes:
        bits = U64 if width == 64 or extends else U32 << shift
        clears = width == 32 and not extends and not (cx and cx2)
        for e in np.flatnonzero(op.within & mask):
            value = 0 if clears else int(op.state.v[target][e]) & ~bits & U64
            op.state.v[target][e] = value
            if orders[e]:
                care[e] &= np.uint64(~bits & U64)
                check = comparison_check(int(orders[e]), 64 if extends else width)
                op.result.checks.append(("v", target << 8 | int(e), shift, check))
    if not (care == np.uint64(U64)).all():
        op.result.care_v[target] = care


def select_words(op: Lanes) -> None:
    pick = np.minimum if op.f.cs2 else np.maximum
    op.words(
        lambda a, b: pick(a.view(np.int32), b.view(np.int32)).view(np.uint32),
        op.y(), op.vector(op.f.vz),
    )  # fmt: skip


def select_long(op: Lanes) -> None:
    pick = np.minimum if op.f.cs2 else np.maximum
    y, z = op.y().view(np.int64), op.vector(op.f.vz).view(np.int64)
    op.put(pick(y, z).view(np.uint64))


def logical(op: Lanes) -> None:
    operation = LOGICAL[op.f.opcode]
    op.lanes(operation, operation, op.y("ones"), op.z())


def unary(op: Lanes) -> None:
    operation = UNARY[op.f.opcode]

    def each(width: int) -> Callable[[Array], Array]:
        return lambda a: np.array([operation(int(x), width) for x in a], a.dtype)

    op.lanes(each(64), each(32), op.vector(op.f.vz))


def sequence(op: Lanes) -> None:
    e = ELEMENTS.astype(np.uint64)
    if op.f.cx and op.f.cx2:  # NEC's suite: upper 2i, lower 2i + 1
        op.halves(lambda a: a, e * np.uint64(2 << 32 | 2) + np.uint64(1))
    else:
        op.lanes(lambda a: a, lambda a: a, e << HALF | e if op.f.cx or op.f.cx2 else e)


def shift(op: Lanes) -> None:
    left = op.f.opcode == 0xE5
    operation = np.left_shift if left else np.right_shift
    op.lanes(
        lambda a, n: operation(a, n & np.uint64(63)),
        lambda a, n: operation(a, n & np.uint32(31)),
        op.vector(op.f.vz), shift_count(op),
    )  # fmt: skip


def shift_count(op: Lanes) -> Array:
    return op.y("unsigned")


def shift_words(op: Lanes) -> None:
    if op.f.opcode == 0xE6:
        operation = lambda a, n: np.left_shift(a, n & np.uint32(31))  # noqa: E731
    else:
        operation = lambda a, n: np.right_shift(  # noqa: E731
            a.view(np.int32), (n & np.uint32(31)).view(np.int32)
        ).view(np.uint32)
    op.words(operation, op.vector(op.f.vz), shift_count(op))


def shift_long(op: Lanes) -> None:
    z, count = op.vector(op.f.vz), shift_count(op) & np.uint64(63)
    if op.f.opcode == 0xD4:
        op.put(z << count)
    else:
        op.put((z.view(np.int64) >> count.view(np.int64)).view(np.uint64))


def shift_double(op: Lanes) -> None:
    y, z = op.vector(op.f.vy), op.vector(op.f.vz)
    count = op.scalar_unsigned() & 127
    values = []
    for a, b in zip(y, z, strict=True):
        pair = int(a) << 64 | int(b)
        values.append((pair << count) >> 64 & U64 if op.f.opcode == 0xE4
                      else (pair >> count) & U64)  # fmt: skip
    op.put(np.array(values, np.uint64))


def shift_add(op: Lanes) -> None:  # vsfa
    count = np.uint64(op.scalar_unsigned() & 7)
    op.put((op.vector(op.f.vz) << count) + np.uint64(op.scalar_z()))


def order_of(a: Array, b: Array, kind: type) -> Array:
    p: Array = a.view(kind)
    q: Array = b.view(kind)
    return (p > q).astype(int) - (p < q).astype(int)


def unsigned_order(a: Array, b: Array) -> Array:
    return order_of(a, b, a.dtype.type)


def signed_order(a: Array, b: Array) -> Array:
    return order_of(a, b, np.int32 if a.dtype == np.uint32 else np.int64)


def reduce(op: Lanes, values: list[int], start: int, step: Callable[[int, int], int]) -> None:
    """The reduction of the active elements goes to element 0; without any, it is not known."""
    target = op.register(op.f.vx)
    total = start
    for value in values:
        total = step(total, value)
    op.put_first(target, total & U64, U64 if values else 0)


def sum_words(op: Lanes) -> None:
    def add(a: int, b: int) -> int:
        total = (a + b) & U32
        return total if op.f.cx2 else signed(total, 32) & U64

    reduce(op, [a & U32 for a in op.active_elements()], 0, add)


def sum_long(op: Lanes) -> None:
    reduce(op, op.active_elements(), 0, lambda a, b: a + b)


def reduce_bits(op: Lanes) -> None:
    operation = {
        0x88: (U64, lambda a, b: a & b),
        0x98: (0, lambda a, b: a | b),
        0x89: (0, lambda a, b: a ^ b),
    }[op.f.opcode]
    reduce(op, op.active_elements(), *operation)


def extreme(op: Lanes, key: Callable[[int], int], shape: Callable[[int], int]) -> None:
    """Maxima and minima."""
    values = op.active_elements()
    pick = min if op.f.cs2 else max
    best = pick(values, key=key) if values else 0
    active = np.flatnonzero(op.within & op.mask(op.f.m))
    places = [int(e) for e, a in zip(active, values, strict=True) if key(a) == key(best)]
    op.put_extreme(op.register(op.f.vx), shape(best) & U64, U64 if values else 0, places)


def extreme_words(op: Lanes) -> None:
    extreme(op, lambda a: signed(a, 32), lambda a: a & U32 if op.f.cx2 else signed(a, 32))


def extreme_long(op: Lanes) -> None:
    extreme(op, signed, lambda a: a)


LOGICAL: dict[int, Callable[..., Array]] = {
    0xC4: np.bitwise_and, 0xC5: np.bitwise_or, 0xC6: np.bitwise_xor,
    0xC7: lambda a, b: ~(a ^ b),
}  # fmt: skip
UNARY: dict[int, Callable[[int, int], int]] = {
    0xE7: lambda a, width: width - a.bit_length(),
    0xAC: lambda a, width: a.bit_count(),
    0xF7: lambda a, width: int(f"{a:0{width}b}"[::-1], 2),
}
DISPATCH: dict[int, Callable[[Lanes], None]] = {
    0xC8: add,
    0xD8: subtract,
    0xCA: add_words,
    0xDA: subtract_words,
    0x8B: add_long,
    0x9B: subtract_long,
    0xC9: multiply_unsigned,
    0xCB: multiply_words,
    0xDB: multiply_long,
    0xD9: multiply_word_long,
    0xE9: divide,
    0xEB: divide,
    0xFB: divide,
    0xB9: lambda op: compare(op, unsigned_order, words=False),
    0xFA: lambda op: compare(op, signed_order, words=True),
    0xBA: lambda op: compare(op, signed_order, words=False),
    0x8A: select_words,
    0x9A: select_long,
    **dict.fromkeys(LOGICAL, logical),
    **dict.fromkeys(UNARY, unary),
    0x99: sequence,
    0xE5: shift,
    0xF5: shift,
    0xE6: shift_words,
    0xF6: shift_words,
    0xD4: shift_long,
    0xD5: shift_long,
    0xE4: shift_double,
    0xF4: shift_double,
    0xD7: shift_add,
    0xEA: sum_words,
    0xAA: sum_long,
    0xBB: extreme_words,
    0xAB: extreme_long,
    **dict.fromkeys((0x88, 0x98, 0x89), reduce_bits),
}

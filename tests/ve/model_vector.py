"""The model's vector instructions: arrays of 256 elements, a write mask, and lanes.

An element is 64 bits. Bits 55 and 54 (cx, cx2) of most instructions choose the lanes: all 64 bits
(00), the lower half (01), the upper half (10) or both halves separately (11, "packed"); in the first
three cases a half that is not computed is cleared (or extended, for `.w.sx`). Elements at and past VL
and masked ones keep their value. Part of model.py, which names the sources.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from encoding import ROUNDING, VIX, Fields
from ieee import F32, F64, Format, Result
from model import (
    MAX_VL,
    U32,
    U64,
    State,
    Step,
    Trapped,
    Unmodelled,
    comparison_check,
    float_comparison_check,
    holds,
    signed,
)

ELEMENTS = np.arange(MAX_VL)
Array = np.ndarray
HALF = np.uint64(32)
# Accuracy of the approximations, as the simulator documents it; NEC's suite bounds 1/x by 2**-15
APPROXIMATION = 2.0**-14


def execute(state: State, f: Fields, result: Step) -> None:
    op = _Vector(state, f, result)
    table = DISPATCH.get(f.opcode)
    if table is None:
        raise Unmodelled
    table(op)


class _Vector:
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
        """Masks of the upper and the lower halves of packed instructions: an even VM and the next."""
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

    # --- moves and memory ------------------------------------------------------------------------

    def access(self) -> Array:
        """Addresses of the elements of strided loads and stores."""
        if self.f.opcode >> 4 in (0xC, 0xD):
            # NEC's suite: low 16 bits a stride within rows of 16 elements, above it that of rows
            inner = signed(self.scalar(), 16)
            outer = signed(self.scalar() >> 16, 48)
            offsets = ELEMENTS % 16 * inner + ELEMENTS // 16 * outer
        else:
            offsets = ELEMENTS * signed(self.scalar())
        return (offsets + self.z_or_zero()).astype(np.int64).astype(np.uint64)

    def check_aligned(self, addresses: Array, active: Array, size: int) -> None:
        for e in np.flatnonzero(active):
            if int(addresses[e]) % size:
                raise Trapped("Alignment")
            self.state.region(int(addresses[e]), size)

    def load(self) -> None:
        self.read_memory(self.access(), self.within)

    def read_memory(self, addresses: Array, active: Array) -> None:
        kind = self.f.opcode & 3  # 1: 8 bytes, 2: 4 into the upper half, 3: 4 into the lower half
        size = 8 if kind == 1 else 4
        self.check_aligned(addresses, active, size)
        values = np.zeros(MAX_VL, np.uint64)
        for e in np.flatnonzero(active):
            value = self.state.load(int(addresses[e]), size)
            if kind == 2:
                value <<= 32
            elif kind == 3 and not self.f.cx:
                value = signed(value, 32) & U64
            values[e] = value
        self.put(values, active=active)

    def store(self) -> None:
        self.write_memory(self.access(), self.within & self.mask(self.f.m))

    def write_memory(self, addresses: Array, active: Array) -> None:
        kind = self.f.opcode & 3
        size = 8 if kind == 1 else 4
        self.check_aligned(addresses, active, size)
        values = self.vector(self.f.vx)
        for e in np.flatnonzero(active):
            value = int(values[e])
            self.state.store(int(addresses[e]), size, value >> 32 if kind == 2 else value)

    def element_addresses(self) -> Array:
        """Of gathers and scatters: y and z only bound the range for the hardware."""
        if self.f.cs:
            return np.full(MAX_VL, self.state.s[self.f.vw & 127], np.uint64)
        return self.vector(self.f.vy)

    def gather(self) -> None:
        self.read_memory(self.element_addresses(), self.within & self.mask(self.f.m))

    def scatter(self) -> None:
        self.write_memory(self.element_addresses(), self.within & self.mask(self.f.m))

    def broadcast(self) -> None:
        value = np.full(MAX_VL, self.scalar(), np.uint64)
        self.lanes(lambda a: a, lambda a: a, value)

    def set_element(self) -> None:  # lsv
        element = self.scalar_unsigned()
        if element >= MAX_VL:
            raise Unmodelled
        self.state.v[self.register(self.f.vx)][element] = self.scalar_z()

    def get_element(self) -> None:  # lvs
        element = self.scalar_unsigned()
        if element >= MAX_VL:
            raise Unmodelled
        self.state.s[self.f.sx] = int(self.vector(self.f.vx)[element])

    def set_mask(self) -> None:  # lvm: bit 63 of a part is its first element
        part = self.scalar_unsigned() & 3
        bits = [self.scalar_z() >> (63 - i) & 1 for i in range(64)]
        if self.f.vx:
            self.state.vm[self.f.vx][64 * part : 64 * part + 64] = bits

    def get_mask(self) -> None:  # svm
        part = self.scalar_unsigned() & 3
        bits = self.mask(self.f.vz)[64 * part : 64 * part + 64]
        self.state.s[self.f.sx] = sum(1 << (63 - i) for i in range(64) if bits[i])

    def move(self) -> None:
        """vmv: element (i + y) mod 256 of vz; NEC's suite: the mask is that of the source."""
        source = (ELEMENTS + (self.scalar_unsigned() & 255)) % MAX_VL
        self.put(self.vector(self.f.vz)[source], active=self.mask(self.f.m)[source])

    def compress(self) -> None:
        kept = self.vector(self.f.vz)[self.within & self.mask(self.f.m)]
        self.state.v[self.register(self.f.vx)][: len(kept)] = kept

    def expand(self) -> None:
        places = np.flatnonzero(self.within & self.mask(self.f.m))
        self.state.v[self.register(self.f.vx)][places] = self.vector(self.f.vz)[: len(places)]

    def merge(self) -> None:
        y, z = self.y(), self.z()
        if self.f.cx:  # vmrg.w
            mask_high, mask_low = self.masks()
            values = join(
                np.where(mask_high, upper(z), upper(y)), np.where(mask_low, lower(z), lower(y))
            )
        else:
            values = np.where(self.mask(self.f.m), z, y)
        self.put(values, active=self.mask(0))

    def shuffle(self) -> None:
        y, z, code = self.vector(self.f.vy), self.vector(self.f.vz), self.scalar_unsigned()
        parts = (upper(y), lower(y), upper(z), lower(z))
        self.put(join(parts[code >> 2 & 3], parts[code & 3]), active=self.mask(0))

    # --- integers --------------------------------------------------------------------------------

    def add(self) -> None:
        self.lanes(np.add, np.add, self.y(), self.z())

    def subtract(self) -> None:
        self.lanes(np.subtract, np.subtract, self.y(), self.z())

    def add_words(self) -> None:
        self.words(np.add, self.y(), self.z())

    def subtract_words(self) -> None:
        self.words(np.subtract, self.y(), self.z())

    def add_long(self) -> None:
        self.put(self.y() + self.z())

    def subtract_long(self) -> None:
        self.put(self.y() - self.z())

    def multiply_long(self) -> None:
        self.put(self.y() * self.z())

    def multiply_unsigned(self) -> None:
        y, z = self.y(), self.z()
        self.put(zero_extend(lower(y) * lower(z)) if self.f.cx2 else y * z)

    def multiply_words(self) -> None:
        product = lower(self.y()) * lower(self.z())
        self.put(zero_extend(product) if self.f.cx2 else extend(product))

    def multiply_word_long(self) -> None:
        self.put(extend(lower(self.y())) * extend(lower(self.z())))

    def divide(self) -> None:
        """All kinds of integer division; by Python's integers."""
        kind = self.f.opcode
        words = kind == 0xEB or (kind == 0xE9 and self.f.cx2)
        width = 32 if words else 64
        y, z = self.y(), self.z()
        active = self.within & self.mask(self.f.m)
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
                keep = kind == 0xE9 or self.f.cx2
                quotient = quotient & U32 if keep else signed(quotient, 32)
            values[e] = quotient & U64
        self.put(values)

    def compare(self, order: Callable[[Array, Array], Array], words: bool) -> None:
        """Comparisons: each lane gets a number of the sign of y <=> z."""
        y, z = self.y(), self.z()
        target = self.register(self.f.vx)
        cx, cx2 = self.f.cx, self.f.cx2
        long = self.f.opcode == 0xBA or (not words and not (cx or cx2))
        if long:
            lanes = [(0, 64, order(y, z), self.mask(self.f.m))]
        else:
            both = bool(cx and cx2)
            high, low = self.masks() if both else (self.mask(self.f.m),) * 2
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
            for e in np.flatnonzero(self.within & mask):
                value = 0 if clears else int(self.state.v[target][e]) & ~bits & U64
                self.state.v[target][e] = value
                if orders[e]:
                    care[e] &= np.uint64(~bits & U64)
                    check = comparison_check(int(orders[e]), 64 if extends else width)
                    self.result.checks.append(("v", target << 8 | int(e), shift, check))
        if not (care == np.uint64(U64)).all():
            self.result.care_v[target] = care

    def select_words(self) -> None:
        pick = np.minimum if self.f.cs2 else np.maximum
        self.words(
            lambda a, b: pick(a.view(np.int32), b.view(np.int32)).view(np.uint32),
            self.y(), self.vector(self.f.vz),
        )  # fmt: skip

    def select_long(self) -> None:
        pick = np.minimum if self.f.cs2 else np.maximum
        y, z = self.y().view(np.int64), self.vector(self.f.vz).view(np.int64)
        self.put(pick(y, z).view(np.uint64))

    def logical(self) -> None:
        operation = LOGICAL[self.f.opcode]
        self.lanes(operation, operation, self.y("ones"), self.z())

    def unary(self) -> None:
        operation = UNARY[self.f.opcode]

        def each(width: int) -> Callable[[Array], Array]:
            return lambda a: np.array([operation(int(x), width) for x in a], a.dtype)

        self.lanes(each(64), each(32), self.vector(self.f.vz))

    def sequence(self) -> None:
        e = ELEMENTS.astype(np.uint64)
        if self.f.cx and self.f.cx2:  # NEC's suite: upper 2i, lower 2i + 1
            self.halves(lambda a: a, e * np.uint64(2 << 32 | 2) + np.uint64(1))
        else:
            self.lanes(lambda a: a, lambda a: a, e << HALF | e if self.f.cx or self.f.cx2 else e)

    def shift(self) -> None:
        left = self.f.opcode == 0xE5
        operation = np.left_shift if left else np.right_shift
        self.lanes(
            lambda a, n: operation(a, n & np.uint64(63)),
            lambda a, n: operation(a, n & np.uint32(31)),
            self.vector(self.f.vz), self.shift_count(),
        )  # fmt: skip

    def shift_count(self) -> Array:
        return self.y("unsigned")

    def shift_words(self) -> None:
        if self.f.opcode == 0xE6:
            operation = lambda a, n: np.left_shift(a, n & np.uint32(31))  # noqa: E731
        else:
            operation = lambda a, n: np.right_shift(  # noqa: E731
                a.view(np.int32), (n & np.uint32(31)).view(np.int32)
            ).view(np.uint32)
        self.words(operation, self.vector(self.f.vz), self.shift_count())

    def shift_long(self) -> None:
        z, count = self.vector(self.f.vz), self.shift_count() & np.uint64(63)
        if self.f.opcode == 0xD4:
            self.put(z << count)
        else:
            self.put((z.view(np.int64) >> count.view(np.int64)).view(np.uint64))

    def shift_double(self) -> None:
        y, z = self.vector(self.f.vy), self.vector(self.f.vz)
        count = self.scalar_unsigned() & 127
        values = []
        for a, b in zip(y, z, strict=True):
            pair = int(a) << 64 | int(b)
            values.append((pair << count) >> 64 & U64 if self.f.opcode == 0xE4
                          else (pair >> count) & U64)  # fmt: skip
        self.put(np.array(values, np.uint64))

    def shift_add(self) -> None:  # vsfa
        count = np.uint64(self.scalar_unsigned() & 7)
        self.put((self.vector(self.f.vz) << count) + np.uint64(self.scalar_z()))

    # --- floating point --------------------------------------------------------------------------

    def float_lanes(self, operation: Callable[..., Result], *arrays: Array) -> None:
        """Applies an operation of one number per lane: double (00), lower, upper or both floats."""
        cx, cx2 = self.f.cx, self.f.cx2
        if self.f.opcode in ONE_FLOAT and cx2:
            raise Unmodelled
        if not (cx or cx2):
            active = self.within & self.mask(self.f.m)
            values, care = each(F64, operation, active, arrays)
            self.put(values, care)
            return
        zero, every = np.zeros(MAX_VL, np.uint32), np.full(MAX_VL, U32, np.uint32)
        if cx and cx2:
            mask_high, mask_low = self.masks()
        else:
            mask_high = mask_low = self.mask(self.f.m)
        high, care_high, low, care_low = zero, every, zero, every
        if cx:
            high, care_high = each(F32, operation, self.within & mask_high, [*map(upper, arrays)])
        if cx2:
            low, care_low = each(F32, operation, self.within & mask_low, [*map(lower, arrays)])
        if cx and cx2:
            self.put_packed(high, low, care_high, care_low)
        else:
            self.put(join(high, low), join(care_high, care_low))

    def float_binary(self) -> None:
        operation, fast = FLOAT_BINARY[self.f.opcode]
        mode = self.state.mode
        if mode == "rn":
            self.float_fast(fast, self.y(), self.z())
        else:
            self.float_lanes(lambda fmt, a, b: operation(fmt, a, b, mode), self.y(), self.z())

    @np.errstate(all="ignore")
    def float_fast(self, fast: Callable[..., Array], *arrays: Array) -> None:
        """The host's IEEE arithmetic, which rounds to nearest; only its NaNs are not the machine's."""
        cx, cx2 = self.f.cx, self.f.cx2
        if not (cx or cx2):
            self.put(*quiet(fast(*(a.view(np.float64) for a in arrays)), np.uint64, F64))
            return
        zero, every = np.zeros(MAX_VL, np.uint32), np.full(MAX_VL, U32, np.uint32)
        high, care_high, low, care_low = zero, every, zero, every
        if cx:
            high, care_high = quiet(
                fast(*(upper(a).view(np.float32) for a in arrays)), np.uint32, F32
            )
        if cx2:
            low, care_low = quiet(
                fast(*(lower(a).view(np.float32) for a in arrays)), np.uint32, F32
            )
        if cx and cx2:
            self.put_packed(high, low, care_high, care_low)
        else:
            self.put(join(high, low), join(care_high, care_low))

    def float_sqrt(self) -> None:
        mode = self.state.mode
        if mode == "rn":
            self.float_fast(np.sqrt, self.vector(self.f.vy))
        else:
            self.float_lanes(lambda fmt, a: fmt.sqrt(a, mode), self.vector(self.f.vy))

    def float_select(self) -> None:
        smallest = bool(self.f.cs2)
        self.float_lanes(
            lambda fmt, a, b: fmt.larger(a, b, smallest), self.y(), self.vector(self.f.vz)
        )

    def float_multiply_add(self) -> None:
        """vfmad: y + z * w; vfmsb: z * w - y; vfnmad, vfnmsb: those, negated."""
        mode, negated, minus = self.state.mode, self.f.opcode & 1, self.f.opcode & 0x10

        def operation(fmt: Format, y: int, z: int, w: int) -> Result:
            result = fmt.multiply_add(z, w, y ^ fmt.sign if minus else y, mode)
            return fmt.negate(result) if negated else result

        self.float_lanes(operation, self.y(), self.z(), self.vector(self.f.vw))

    def float_compare(self) -> None:
        y, z, target = self.y(), self.z(), self.register(self.f.vx)
        cx, cx2 = self.f.cx, self.f.cx2

        def operation(fmt: Format, a: int, b: int) -> Result:
            order = fmt.compare(a, b)
            return fmt.not_a_number() if order is None else (0, 0)

        self.float_lanes(operation, y, z)
        lanes = [(0, F64)] if not (cx or cx2) else [(32, F32)] * cx + [(0, F32)] * cx2
        high, low = self.masks() if cx and cx2 else (self.mask(self.f.m),) * 2
        for shift, fmt in lanes:
            for e in np.flatnonzero(self.within & (high if shift else low)):
                a, b = int(y[e]) >> shift & fmt.all, int(z[e]) >> shift & fmt.all
                order = fmt.compare(a, b)
                if order is not None:
                    check = float_comparison_check(fmt, order)
                    self.result.checks.append(("v", target << 8 | int(e), shift, check))

    def approximate(self) -> None:
        """vrcp, vrsqrt: within a relative bound; exact where the result is a zero or infinity."""
        reciprocal = self.f.opcode == 0xE1
        y, target = self.vector(self.f.vy), self.register(self.f.vx)
        cx, cx2 = self.f.cx, self.f.cx2
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
        high, low = self.masks() if cx and cx2 else (self.mask(self.f.m),) * 2
        self.float_lanes(operation, y)
        for shift, fmt in lanes:
            for e in np.flatnonzero(self.within & (high if shift else low)):
                bits, care = exact(fmt, int(y[e]) >> shift & fmt.all)
                if care == fmt.all and bits & ~fmt.sign not in (0, fmt.infinity):
                    check = relative_check(fmt, bits)
                    self.result.checks.append(("v", target << 8 | int(e), shift, check))

    def to_integer(self) -> None:
        """vcvt.w.d/.s .sx/.zx, pvcvt.w.s*, vcvt.l.d"""
        f = self.f
        code = ROUNDING.get(f.vz)
        if code is None:
            raise Trapped("IllegalInstruction")
        mode = self.state.mode if code == "psw" else code
        y = self.vector(f.vy)
        if f.opcode == 0xA8:
            active = self.within & self.mask(f.m)
            self.put(*each(F64, lambda fmt, a: fmt.to_integer(a, 64, mode), active, [y]))
        elif f.cs2:
            self.float_lanes(lambda fmt, a: fmt.to_integer(a, 32, mode), y)
        else:
            fmt, source = (F32, upper(y)) if f.cx else (F64, y)
            active = self.within & self.mask(f.m)
            bits, care = each(fmt, lambda fmt, a: fmt.to_integer(a, 32, mode), active, [source])
            words = bits.astype(np.uint32)
            values = zero_extend(words) if f.cx2 else extend(words)
            full = np.where(care == 0, np.uint64(0), np.uint64(U64))
            self.put(values, full)

    def from_integer(self) -> None:
        f, mode = self.f, self.state.mode
        y = self.vector(f.vy)
        if f.opcode == 0xB8:
            active = self.within & self.mask(f.m)
            self.put(*each(F64, lambda fmt, a: fmt.from_integer(signed(a), mode), active, [y]))
        elif f.cs2:
            self.float_lanes(lambda fmt, a: fmt.from_integer(signed(a, 32), mode), y)
        else:
            fmt = F32 if f.cx else F64
            active = self.within & self.mask(f.m)
            bits, _ = each(fmt, lambda fmt, a: fmt.from_integer(signed(a, 32), mode), active,
                           [lower(y)])  # fmt: skip
            self.put(bits.astype(np.uint64) << HALF if f.cx else bits)

    def change_format(self) -> None:
        y, mode = self.vector(self.f.vy), self.state.mode
        active = self.within & self.mask(self.f.m)
        if self.f.opcode == 0x9F:
            bits, care = each(F64, lambda fmt, a: fmt.convert(a, F32, mode), active, [y])
            every = np.uint64(U32)
            self.put(bits << HALF, np.where(active, care << HALF | every, np.uint64(U64)))
        else:
            values = [F32.convert(int(a), F64, mode) if on else (0, U64)
                      for a, on in zip(upper(y), active, strict=True)]  # fmt: skip
            self.put(*(np.array(part, np.uint64) for part in zip(*values, strict=True)))

    # --- reductions and recurrences --------------------------------------------------------------

    def reduce(self, values: list[int], start: int, step: Callable[[int, int], int]) -> None:
        """The reduction of the active elements goes to element 0; without any, it is not known."""
        target = self.register(self.f.vx)
        total = start
        for value in values:
            total = step(total, value)
        self.put_first(target, total & U64, U64 if values else 0)

    def put_first(self, target: int, value: int, care: int) -> None:
        self.state.v[target][0] = value
        if care != U64:
            cares = np.full(MAX_VL, U64, np.uint64)
            cares[0] = care
            self.result.care_v[target] = cares

    def active_elements(self) -> list[int]:
        active = self.within & self.mask(self.f.m)
        return [int(a) for a in self.vector(self.f.vy)[active]]

    def sum_words(self) -> None:
        def add(a: int, b: int) -> int:
            total = (a + b) & U32
            return total if self.f.cx2 else signed(total, 32) & U64

        self.reduce([a & U32 for a in self.active_elements()], 0, add)

    def sum_long(self) -> None:
        self.reduce(self.active_elements(), 0, lambda a, b: a + b)

    def reduce_bits(self) -> None:
        operation = {
            0x88: (U64, lambda a, b: a & b),
            0x98: (0, lambda a, b: a | b),
            0x89: (0, lambda a, b: a ^ b),
        }[self.f.opcode]
        self.reduce(self.active_elements(), *operation)

    def extreme(self, key: Callable[[int], int], shape: Callable[[int], int]) -> None:
        """Maxima and minima. First or last only matters for an index, which no source places."""
        values = self.active_elements()
        pick = min if self.f.cs2 else max
        best = pick(values, key=key) if values else 0
        self.put_first(self.register(self.f.vx), shape(best) & U64, U64 if values else 0)

    def extreme_words(self) -> None:
        self.extreme(lambda a: signed(a, 32), lambda a: a & U32 if self.f.cx2 else signed(a, 32))

    def extreme_long(self) -> None:
        self.extreme(signed, lambda a: a)

    def extreme_float(self) -> None:
        fmt, shift = (F32, 32) if self.f.cx else (F64, 0)
        values = [a >> shift for a in self.active_elements()]
        numbers = [a for a in values if not fmt.is_nan(a)]
        care = fmt.all
        if not numbers:
            bits, care = fmt.not_a_number() if values else (0, 0)
        else:
            bits = numbers[0]
            for a in numbers[1:]:
                bits, some = fmt.larger(bits, a, bool(self.f.cs2))
                care = some if some != fmt.all else care
            if bits & ~fmt.sign:
                care = fmt.all
            if len(numbers) < len(values):
                care = 0  # a NaN among numbers: assumed missing, as in vfmax; no source
        self.put_first(
            self.register(self.f.vx), bits << shift, care << shift | (U32 if shift else 0)
        )

    def sum_float(self) -> None:
        """The order of the sum is open: any result within the bound of one."""
        fmt, shift = (F32, 32) if self.f.cx else (F64, 0)
        values = [a >> shift for a in self.active_elements()]
        target = self.register(self.f.vx)
        self.put_first(target, 0, U32 if shift else 0)
        if values:
            check = sum_check(fmt, values)
            self.result.checks.append(("v", target << 8, shift, check))

    def iterate(self) -> None:
        """Recurrences over the vector: each element uses the one before, the first one y."""
        fmt, shift = (F32, 32) if self.f.cx else (F64, 0)
        mode = self.state.mode
        y, z = self.vector(self.f.vy), self.vector(self.f.vz)
        previous = self.scalar() >> shift
        values, cares = np.zeros(MAX_VL, np.uint64), np.full(MAX_VL, U64, np.uint64)
        for e in range(self.state.vl):
            a, b = int(y[e]) >> shift, int(z[e]) >> shift
            previous, care = ITERATIONS[self.f.opcode](fmt, previous, a, b, mode)
            values[e] = previous << shift
            cares[e] = care << shift | (U32 if shift else 0)
        self.put(values, cares, active=self.mask(0))

    # --- masks -----------------------------------------------------------------------------------

    def form_mask(self) -> None:
        f = self.f
        z, condition = self.vector(f.vz), f.vy & 15
        if f.opcode == 0xB6:
            if f.cx or f.cx2:
                fmt, lane = F32, upper(z) if f.cx else lower(z)
            else:
                fmt, lane = F64, z
            true = [holds(condition, fmt.compare(int(a), 0)) for a in lane]
        else:
            width = 64 if f.opcode == 0xB4 else 32
            lane = z if width == 64 else upper(z) if f.cx else lower(z)
            orders = [signed(int(a), width) for a in lane]
            true = [holds(condition, (a > 0) - (a < 0)) for a in orders]
        if f.vx == 0:
            return
        # a masked element's bit becomes 0 (NEC's suite); bits past VL keep (assumed)
        new = np.array(true) & self.mask(f.m)
        self.state.vm[f.vx][self.within] = new[self.within]

    def mask_logic(self) -> None:
        y, z = self.mask(self.f.vy), self.mask(self.f.vz)
        result = {
            0x84: y & z, 0x85: y | z, 0x86: y ^ z, 0x87: y == z, 0x94: ~y & z, 0x95: ~y,
        }[self.f.opcode]  # fmt: skip
        if self.f.vx:
            self.state.vm[self.f.vx] = result

    def count_mask(self) -> None:
        bits = self.mask(self.f.vy)[: self.state.vl]
        ones = np.flatnonzero(bits)
        if self.f.opcode == 0xA4:
            value = len(ones)
        elif self.f.opcode == 0xA5:  # leading zeros
            value = int(ones[0]) if len(ones) else self.state.vl
        else:  # tovm: one past the last one
            value = int(ones[-1]) + 1 if len(ones) else 0
        self.state.s[self.f.sx] = value

    def set_index(self) -> None:  # lvix
        self.state.vix = self.scalar_unsigned() & 63


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
    bits, nan = numbers.view(kind), np.isnan(numbers)
    return np.where(nan, kind(fmt.nan), bits), np.where(nan, kind(fmt.nan), kind(fmt.all))


def order_of(a: Array, b: Array, kind: type) -> Array:
    p, q = a.view(kind), b.view(kind)
    return (p > q).astype(int) - (p < q).astype(int)


def unsigned_order(a: Array, b: Array) -> Array:
    return order_of(a, b, a.dtype.type)


def signed_order(a: Array, b: Array) -> Array:
    return order_of(a, b, np.int32 if a.dtype == np.uint32 else np.int64)


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


def minus(fmt: Format, product: int, z: int, mode: str) -> Result:
    return fmt.subtract(z, product, mode)


ADD, SUB, MUL, DIV = Format.add, Format.subtract, Format.multiply, Format.divide
# x is the element before (the first time: operand y of the word). Assumed from the names
ITERATIONS: dict[int, Callable[..., Result]] = {
    0xCE: iterate_two(ADD), 0xDE: iterate_two(SUB, reverse=True), 0xCF: iterate_two(MUL),
    0xEE: chain(ADD, MUL), 0xFE: chain(SUB, MUL), 0xEF: chain(MUL, ADD), 0xFF: chain(MUL, minus),
}  # fmt: skip
FLOAT_BINARY = {
    0xCC: (ADD, np.add), 0xDC: (SUB, np.subtract), 0xCD: (MUL, np.multiply), 0xDD: (DIV, np.divide),
}  # fmt: skip
ONE_FLOAT = {0xDD, 0xED}  # no packed variant: cx alone chooses between double and upper float
SCALAR_Z = {0xE9, 0xEB, 0xFB, 0xDD, 0xE2, 0xE3, 0xF2, 0xF3}
LOGICAL = {
    0xC4: np.bitwise_and, 0xC5: np.bitwise_or, 0xC6: np.bitwise_xor,
    0xC7: lambda a, b: ~(a ^ b),
}  # fmt: skip
UNARY: dict[int, Callable[[int, int], int]] = {
    0xE7: lambda a, width: width - a.bit_length(),
    0xAC: lambda a, width: a.bit_count(),
    0xF7: lambda a, width: int(f"{a:0{width}b}"[::-1], 2),
}
DISPATCH: dict[int, Callable[[_Vector], None]] = {
    0x80: lambda op: None,  # prefetch
    0x8E: _Vector.set_element, 0x9E: _Vector.get_element,
    0xB7: _Vector.set_mask, 0xA7: _Vector.get_mask,
    0x8C: _Vector.broadcast, 0x9C: _Vector.move,
    0x8D: _Vector.compress, 0x9D: _Vector.expand, 0xD6: _Vector.merge, 0xBC: _Vector.shuffle,
    0xC8: _Vector.add, 0xD8: _Vector.subtract, 0xCA: _Vector.add_words,
    0xDA: _Vector.subtract_words, 0x8B: _Vector.add_long, 0x9B: _Vector.subtract_long,
    0xC9: _Vector.multiply_unsigned, 0xCB: _Vector.multiply_words, 0xDB: _Vector.multiply_long,
    0xD9: _Vector.multiply_word_long,
    0xE9: _Vector.divide, 0xEB: _Vector.divide, 0xFB: _Vector.divide,
    0xB9: lambda op: op.compare(unsigned_order, words=False),
    0xFA: lambda op: op.compare(signed_order, words=True),
    0xBA: lambda op: op.compare(signed_order, words=False),
    0x8A: _Vector.select_words, 0x9A: _Vector.select_long,
    **dict.fromkeys(LOGICAL, _Vector.logical), **dict.fromkeys(UNARY, _Vector.unary),
    0x99: _Vector.sequence, 0xE5: _Vector.shift, 0xF5: _Vector.shift,
    0xE6: _Vector.shift_words, 0xF6: _Vector.shift_words,
    0xD4: _Vector.shift_long, 0xD5: _Vector.shift_long,
    0xE4: _Vector.shift_double, 0xF4: _Vector.shift_double, 0xD7: _Vector.shift_add,
    **dict.fromkeys(FLOAT_BINARY, _Vector.float_binary), 0xED: _Vector.float_sqrt,
    0xFC: _Vector.float_compare, 0xBD: _Vector.float_select,
    **dict.fromkeys((0xE2, 0xE3, 0xF2, 0xF3), _Vector.float_multiply_add),
    0xE1: _Vector.approximate, 0xF1: _Vector.approximate,
    0xE8: _Vector.to_integer, 0xA8: _Vector.to_integer,
    0xF8: _Vector.from_integer, 0xB8: _Vector.from_integer,
    0x9F: _Vector.change_format, 0x8F: _Vector.change_format,
    0xEA: _Vector.sum_words, 0xAA: _Vector.sum_long, 0xEC: _Vector.sum_float,
    0xBB: _Vector.extreme_words, 0xAB: _Vector.extreme_long, 0xAD: _Vector.extreme_float,
    **dict.fromkeys((0x88, 0x98, 0x89), _Vector.reduce_bits),
    **dict.fromkeys(ITERATIONS, _Vector.iterate),
    **dict.fromkeys((0xB4, 0xB5, 0xB6), _Vector.form_mask),
    **dict.fromkeys((0x84, 0x85, 0x86, 0x87, 0x94, 0x95), _Vector.mask_logic),
    **dict.fromkeys((0xA4, 0xA5, 0xA6), _Vector.count_mask), 0xAF: _Vector.set_index,
    **dict.fromkeys((0x81, 0x82, 0x83, 0xC1, 0xC2, 0xC3), _Vector.load),
    **dict.fromkeys((0x91, 0x92, 0x93, 0xD1, 0xD2, 0xD3), _Vector.store),
    **dict.fromkeys((0xA1, 0xA2, 0xA3), _Vector.gather),
    **dict.fromkeys((0xB1, 0xB2, 0xB3), _Vector.scatter),
}  # fmt: skip

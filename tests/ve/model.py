"""A reference model of the vector engine's user-mode instructions, independent of the simulator.

It executes one word at a time on a ``State`` and says with each step which bits of the results the
sources of record define (``Step.care_*``): a NaN's payload, the size of a comparison's result or
the last bits of an approximate reciprocal are not published, so no test may ask for them; for
those ``Step.checks`` gives a condition instead. Facts come from LLVM's VE back end (encodings, and
code that relies on an instruction), NEC's own test suite of intrinsics (run by NEC on the machine:
shifts, masks, vmv, vshf, vcp, vex, vseq, 2D accesses, reductions), and glibc's port (PSW, atomics).
What is assumed without a source is marked "assumed". It must not know the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from encoding import ROUNDING, Fields, fields
from ieee import F32, F64, F128, MODES, Format, Result

U64 = (1 << 64) - 1
U32 = (1 << 32) - 1
MAX_VL = 256


class Trapped(Exception):
    """The instruction ends in an exception of the machine; ``kind`` is a name of vesim's Trap."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Unmodelled(Exception):
    """No source says what the instruction does (or it concerns the system): nothing to compare."""


@dataclass
class Step:
    """What a step leaves open: bits of S and V registers that are defined where not all are, and
    conditions on values, each a function of (actual bits) that gives None or a complaint."""

    care_s: dict[int, int] = field(default_factory=dict)
    care_v: dict[int, np.ndarray] = field(default_factory=dict)
    checks: list[tuple[str, int, int, Callable[[int], str | None]]] = field(default_factory=list)


class State:
    """Registers and memory. Memory is a few regions of bytes: nothing else is mapped."""

    def __init__(self) -> None:
        self.s = [0] * 64
        self.v = np.zeros((64, MAX_VL), np.uint64)
        self.vm = np.zeros((16, MAX_VL), bool)
        self.vm[0] = True
        self.vl = MAX_VL
        self.vix = 0
        self.psw = 0x3000  # glibc-ve, fpu_control.h: round to nearest, no exception enabled
        self.ic = 0
        self.memory: dict[int, bytearray] = {}

    def copy(self) -> State:
        other = State()
        other.s = list(self.s)
        other.v, other.vm = self.v.copy(), self.vm.copy()
        other.vl, other.vix, other.psw, other.ic = self.vl, self.vix, self.psw, self.ic
        other.memory = {base: bytearray(data) for base, data in self.memory.items()}
        return other

    @property
    def mode(self) -> str:
        return MODES[self.psw >> 12 & 3]

    def region(self, address: int, size: int) -> tuple[bytearray, int]:
        for base, data in self.memory.items():
            if base <= address and address + size <= base + len(data):
                return data, address - base
        raise Trapped("MemoryAccess")

    def load(self, address: int, size: int) -> int:
        data, offset = self.region(address & U64, size)
        return int.from_bytes(data[offset : offset + size], "little")

    def store(self, address: int, size: int, value: int) -> None:
        data, offset = self.region(address & U64, size)
        data[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def signed(value: int, width: int = 64) -> int:
    value &= (1 << width) - 1
    return value - (1 << width) if value >> (width - 1) else value


def sign_extend(value: int, width: int) -> int:
    return signed(value, width) & U64


def step(state: State, word: int) -> Step:
    """Executes one instruction; the instruction counter moves on by eight or by a branch."""
    f = fields(word)
    state.ic = (state.ic + 8) & U64
    result = Step()
    if f.opcode >= 0x80 and f.opcode != 0xBF:
        import model_vector

        model_vector.execute(state, f, result)
    else:
        _Scalar(state, f, result).execute()
    return result


def holds(condition: int, order: int | None) -> bool:
    """Whether a condition code holds for a comparison: -1, 0, 1, or None where there is a NaN."""
    if order is None:
        return condition >= 8
    table = {
        0: False, 1: order > 0, 2: order < 0, 3: order != 0, 4: order == 0, 5: order >= 0,
        6: order <= 0, 7: True, 8: False, 15: True,
    }  # fmt: skip
    return table[condition] if condition in table else table[condition - 8]


def comparison_check(order: int, width: int, extension: str = "") -> Callable[[int], str | None]:
    """A comparison's result is positive, zero or negative; its size is not published. (NEC's test
    suite expects exactly y - z where that does not overflow; LLVM uses the sign alone.)"""

    def check(actual: int) -> str | None:
        value = signed(actual, width)
        got = (value > 0) - (value < 0)
        if got != order:
            return f"sign {got} of {value}, expected {order}"
        extended = {"": actual, "sx": value & U64, "zx": value & ((1 << width) - 1)}[extension]
        return None if actual == extended else f"{actual:#x} is not extended as {extension}"

    return check


def float_comparison_check(fmt: Format, order: int | None) -> Callable[[int], str | None]:
    def check(actual: int) -> str | None:
        got = fmt.compare(actual, 0)
        return None if got == order else f"order {got} of {actual:#x}, expected {order}"

    return check


class _Scalar:
    def __init__(self, state: State, f: Fields, result: Step) -> None:
        self.state, self.f, self.result = state, f, result

    # --- operands --------------------------------------------------------------------------------

    def y(self) -> int:
        """Operand y as 64 bits: a register or a sign-extended immediate."""
        return self.state.s[self.f.sy] if self.f.cy else self.f.simm_y & U64

    def y_unsigned(self) -> int:
        return self.state.s[self.f.sy] if self.f.cy else self.f.sy

    def z(self) -> int:
        return self.state.s[self.f.sz] if self.f.cz else self.f.ones_z

    def z_or_zero(self) -> int:
        return self.state.s[self.f.sz] if self.f.cz else 0

    def address(self) -> int:
        return (self.z_or_zero() + self.y() + self.f.imm) & U64

    def put(self, value: int, care: int = U64) -> None:
        self.state.s[self.f.sx] = value & U64
        if care != U64:
            self.result.care_s[self.f.sx] = care

    def put_float(self, fmt: Format, result: Result) -> None:
        bits, care = result
        if fmt is F32:  # a float lies in the upper half; the lower half is cleared
            self.put(bits << 32, care << 32 | U32)
        elif fmt is F64:
            self.put(bits, care)
        else:
            self.put_quad(bits, care)

    def put_quad(self, bits: int, care: int) -> None:
        for register, shift in ((self.f.sx, 64), (self.f.sx + 1, 0)):
            self.state.s[register] = bits >> shift & U64
            if care >> shift & U64 != U64:
                self.result.care_s[register] = care >> shift & U64

    def quad(self, register: bool, number: int, immediate: int) -> int:
        if register:
            return self.state.s[number] << 64 | self.state.s[number + 1]
        if immediate:
            raise Unmodelled  # an immediate in place of a pair of registers
        return 0

    # --- execution -------------------------------------------------------------------------------

    def execute(self) -> None:
        f, s = self.f, self.state
        op = f.opcode
        if op in INTEGER:
            self.integer(*INTEGER[op])
        elif op in LOADS:
            size, kind = LOADS[op]
            value = s.load(self.address(), size)
            if kind == "upper":
                value <<= 32
            elif kind == "extend" and not f.cx:
                value = sign_extend(value, 8 * size)
            self.put(value)
        elif op in STORES:
            size, shift = STORES[op]
            s.store(self.address(), size, s.s[f.sx] >> shift)
        elif op == 0x06:  # lea, lea.sl
            imm = f.imm << 32 if f.cx else f.imm
            self.put(self.z_or_zero() + self.y() + imm)
        elif op == 0x08:  # bsic
            target = self.address()
            self.put(s.ic)
            s.ic = target
        elif op in (0x0C, 0x20, 0x30, 0x79):  # prefetch, fence, svob, nop
            pass
        elif op in (0x18, 0x19, 0x1B, 0x1C):
            self.branch()
        elif op in FLOAT:
            fmt = F32 if f.cx else F64
            self.put_float(fmt, FLOAT[op](fmt, *self.floats(fmt), s.mode))
        elif op == 0x3E:
            fmt = F32 if f.cx else F64
            a, b = self.floats(fmt)
            self.put_float(fmt, fmt.larger(a, b, bool(f.cw)))
        elif op == 0x7E:
            fmt = F32 if f.cx else F64
            self.float_compare(fmt, *self.floats(fmt))
        elif op in (0x6C, 0x7C, 0x6D, 0x7D):
            a = self.quad(bool(f.cy), f.sy, f.sy)
            b = self.quad(bool(f.cz), f.sz, f.sz)
            if op == 0x7D:
                self.float_compare(F128, a, b)
            else:
                self.put_float(F128, QUAD[op](F128, a, b, s.mode))
        elif op in (0x0F, 0x1F, 0x2D, 0x4E, 0x4F, 0x5E, 0x5F):
            self.convert()
        elif op in (0x38, 0x39, 0x67, 0x2B):
            self.put(self.unary(op))
        elif op in SHIFTS:
            self.put(self.shift(op))
        elif op == 0x56:  # mrg: bits of y where z has ones. Assumed: LLVM has no use of it
            self.put(self.y() & self.z() | s.s[f.sx] & ~self.z())
        elif op == 0x3B:
            self.conditional_move()
        elif op in (0x42, 0x53, 0x62):
            self.atomic()
        elif op == 0x28:
            self.put(s.ic)
        elif op == 0x2E:
            self.put(MAX_VL)
        elif op == 0x2F:
            self.put(s.vl)
        elif op == 0xBF:
            if self.y() > MAX_VL:
                raise Unmodelled  # assumed an exception; no source
            s.vl = self.y()
        elif op == 0x3A:  # lpm: rounding mode and enabled exceptions; glibc: spm, change, lpm
            s.psw = self.y() & 0x3FC0 | s.psw & 0x3F
        elif op == 0x2A:
            self.put(s.psw)
        elif op == 0x69:  # lfr, sfr: the six exception flags
            s.psw = s.psw & ~0x3F | self.y_unsigned() & 0x3F
        elif op == 0x29:
            self.put(s.psw & 0x3F)
        else:
            raise Unmodelled

    def floats(self, fmt: Format) -> tuple[int, int]:
        if fmt is F32:
            return self.y() >> 32, self.z() >> 32
        return self.y(), self.z()

    def integer(self, name: str, kind: str) -> None:
        """kind: "l"; "uw": words, result zero-extended; "sw": result extended as cx says."""
        f = self.f
        words = kind == "sw" or (kind == "u" and f.cx)
        width = 32 if words else 64
        mask = (1 << width) - 1
        unsigned_y, unsigned_z = self.y() & mask, self.z() & mask
        y, z = signed(unsigned_y, width), signed(unsigned_z, width)

        def put(value: int, care: int = U64) -> None:
            value &= mask
            self.put(sign_extend(value, 32) if kind == "sw" and not f.cx else value, care)

        match name:
            case "add":
                put(y + z)
            case "subtract":
                put(y - z)
            case "multiply":
                put(y * z)
            case "multiply_long":
                self.put(signed(self.y(), 32) * signed(self.z(), 32))
            case "divide":
                if unsigned_z == 0:
                    raise Trapped("DivideByZero")
                if kind == "u":
                    put(unsigned_y // unsigned_z)
                else:  # the most negative number by -1: wraps (assumed)
                    put(abs(y) // abs(z) * (1 if (y < 0) == (z < 0) else -1))
            case "compare":
                a, b = (unsigned_y, unsigned_z) if kind == "u" else (y, z)
                order = (a > b) - (a < b)
                put(order, 0 if order else U64)
                extension = "" if not words else "sx" if kind == "sw" and not f.cx else "zx"
                check = comparison_check(order, width, extension)
                self.result.checks.append(("s", f.sx, 0, check))
            case "select":
                put(min(y, z) if f.cw else max(y, z))
            case "and":
                put(y & z)
            case "or":
                put(y | z)
            case "xor":
                put(y ^ z)
            case "equivalence":
                put(~(y ^ z))
            case "negate_and":
                put(~y & z)

    def float_compare(self, fmt: Format, a: int, b: int) -> None:
        order = fmt.compare(a, b)
        target = F64 if fmt is F128 else fmt
        if order is None:
            self.put_float(target, target.not_a_number())
        else:
            shift = 32 if fmt is F32 else 0
            check = float_comparison_check(target, order)
            self.put(0, U32 if fmt is F32 else 0)
            self.result.checks.append(("s", self.f.sx, shift, check))

    def unary(self, op: int) -> int:
        z = self.z()
        if op == 0x67:
            return 64 - z.bit_length()
        if op == 0x38:
            return z.bit_count()
        if op == 0x39:
            return int(f"{z:064b}"[::-1], 2)
        size = 4 if self.y() & 1 else 8  # bswp 1: within words. LLVM uses it for i32
        data = z.to_bytes(8, "little")
        return int.from_bytes(
            b"".join(data[i : i + size][::-1] for i in range(0, 8, size)), "little"
        )

    def shift(self, op: int) -> int:
        x, z, count = self.state.s[self.f.sx], self.z(), self.y_unsigned()
        match SHIFTS[op]:
            case "sll":
                return z << (count & 63)
            case "srl":
                return z >> (count & 63)
            case "sra":
                return signed(z) >> (count & 63)
            case "sld":
                return ((x << 64 | z) << (count & 127)) >> 64
            case "srd":
                return (z << 64 | x) >> (count & 127)
        word = signed(z, 32)
        word = word << (count & 31) if SHIFTS[op] == "sla.w" else word >> (count & 31)
        return word & U32 if self.f.cx else sign_extend(word, 32)

    def order_with_zero(self, value: int) -> int | None:
        """The order of a value and zero, of the type that bits cw2 and cw choose."""
        if self.f.cw2:
            return F32.compare(value >> 32, 0) if self.f.cw else F64.compare(value, 0)
        number = signed(value, 32) if self.f.cw else signed(value)
        return (number > 0) - (number < 0)

    def conditional_move(self) -> None:
        if holds(self.f.condition, self.order_with_zero(self.y())):
            self.put(self.z())

    def branch(self) -> None:
        f, s = self.f, self.state
        y = self.y()
        op, z = f.opcode, 0
        if op == 0x18:
            kind = "lwds"[f.cx | f.cx2 << 1]
            z = self.z_or_zero()
            target = s.ic - 8 + f.imm
        else:
            kind = {0x19: "l", 0x1B: "w"}.get(op, "s" if f.cx else "d")
            target = self.z_or_zero() + f.imm
        order: int | None
        if kind == "d":
            order = F64.compare(y, z)
        elif kind == "s":
            order = F32.compare(y >> 32, z >> 32)
        else:
            width = 64 if kind == "l" else 32
            a, b = signed(y, width), signed(z, width)
            order = (a > b) - (a < b)
        if holds(f.m, order):
            s.ic = target & U64

    def convert(self) -> None:
        f, mode = self.f, self.state.mode
        y = self.y()
        match f.opcode:
            case 0x4E:  # to words
                bits, care = (F32 if f.cx else F64).to_integer(
                    y >> 32 if f.cx else y, 32, self.rounding(f.sz)
                )
                self.put(bits if f.cw else sign_extend(bits, 32), U64 if care else 0)
            case 0x4F:
                self.put(*F64.to_integer(y, 64, self.rounding(f.sz)))
            case 0x5E:
                fmt = F32 if f.cx else F64
                self.put_float(fmt, fmt.from_integer(signed(y, 32), mode))
            case 0x5F:
                self.put_float(F64, F64.from_integer(signed(y), mode))
            case 0x1F:
                if f.cx:
                    wide = self.quad(bool(f.cy), f.sy, f.sy)
                    self.put_float(F32, F128.convert(wide, F32, mode))
                else:
                    self.put_float(F32, F64.convert(y, F32, mode))
            case 0x0F:
                if f.cx:
                    wide = self.quad(bool(f.cy), f.sy, f.sy)
                    self.put_float(F64, F128.convert(wide, F64, mode))
                else:
                    self.put_float(F64, F32.convert(y >> 32, F64, mode))
            case 0x2D:
                if f.cx:
                    self.put_float(F128, F32.convert(y >> 32, F128, mode))
                else:
                    self.put_float(F128, F64.convert(y, F128, mode))

    def rounding(self, code: int) -> str:
        mode = ROUNDING[code]
        return self.state.mode if mode == "psw" else mode

    def atomic(self) -> None:
        f, s = self.f, self.state
        address = (self.z_or_zero() + f.imm) & U64
        size = 4 if f.cx and f.opcode != 0x53 else 8
        if address % size:
            raise Trapped("Alignment")
        old, x = s.load(address, size), s.s[f.sx]
        if f.opcode == 0x62:  # cas: sx is the new value, y the expected one; sx gets the old one
            new = x if self.y() & ((1 << 8 * size) - 1) == old else old
        elif f.opcode == 0x42:  # ts1am: swaps the bytes that y's bits choose
            chosen = sum(255 << 8 * i for i in range(size) if self.y_unsigned() >> i & 1)
            new = old & ~chosen | x & chosen
        else:  # atmam: glibc uses 0 for and, 1 for or, 2 for add
            operation = self.y_unsigned()
            if operation > 2:
                raise Unmodelled
            new = (old & x, old | x, old + x)[operation]
        s.store(address, size, new)
        self.put(old, U64 if size == 8 else U32)  # a word's extension is not published


# opcode: bytes, and what becomes of the rest of the register
LOADS = {
    0x01: (8, ""), 0x02: (4, "upper"), 0x03: (4, "extend"), 0x04: (2, "extend"),
    0x05: (1, "extend"), 0x09: (8, ""), 0x0A: (4, "upper"), 0x0B: (4, "extend"),
}  # fmt: skip
STORES = {0x11: (8, 0), 0x12: (4, 32), 0x13: (4, 0), 0x14: (2, 0), 0x15: (1, 0)}
INTEGER = {
    0x48: ("add", "u"), 0x4A: ("add", "sw"), 0x59: ("add", "l"),
    0x58: ("subtract", "u"), 0x5A: ("subtract", "sw"), 0x5B: ("subtract", "l"),
    0x49: ("multiply", "u"), 0x4B: ("multiply", "sw"), 0x6E: ("multiply", "l"),
    0x6B: ("multiply_long", "l"),
    0x6F: ("divide", "u"), 0x7B: ("divide", "sw"), 0x7F: ("divide", "l"),
    0x55: ("compare", "u"), 0x7A: ("compare", "sw"), 0x6A: ("compare", "l"),
    0x78: ("select", "sw"), 0x68: ("select", "l"),
    0x44: ("and", "l"), 0x45: ("or", "l"), 0x46: ("xor", "l"), 0x47: ("equivalence", "l"),
    0x54: ("negate_and", "l"),
}  # fmt: skip
FLOAT = {0x4C: Format.add, 0x5C: Format.subtract, 0x4D: Format.multiply, 0x5D: Format.divide}
QUAD = {0x6C: Format.add, 0x7C: Format.subtract, 0x6D: Format.multiply}
SHIFTS = {
    0x65: "sll", 0x64: "sld", 0x75: "srl", 0x74: "srd", 0x66: "sla.w", 0x57: "sll", 0x76: "sra.w",
    0x77: "sra",
}  # fmt: skip

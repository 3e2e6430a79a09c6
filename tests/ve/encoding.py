"""Instruction words of the vector engine: fields, the table of mnemonics and random words.

The table is ``opcodes.txt`` (each mnemonic that LLVM's disassembler knows, with the values of bits
55-52 and a sample word) joined with ``FORMS``, which says for each opcode what its operand fields
mean. Written from LLVM's VEInstrFormats.td, VEInstrInfo.td and VEInstrVec.td as sources of facts,
and independent of the simulator's own decoder, which is what these tests judge.
"""

import functools
import random
from dataclasses import dataclass
from pathlib import Path

OPCODES = Path(__file__).with_name("opcodes.txt")
VIX = 255  # the V register that the register %vix names

# Operands of a form, in the order of the fields from the top of the word down:
#   sx     S register, bits 54-48            m      mask register, bits 51-48
#   y      S register or signed 7-bit immediate (cy), bits 47-40; yN: unsigned, below N
#   vyz... bits 53, 52 (cs, cs2) choose a scalar y in place of vy (vyz, vyzw) or of vz (cs2)
#   z      S register or zero (cz), bits 39-32; zm: S register or sequence of ones; zN: below N
#   imm    bits 31-0                          vx vy vz vw   V registers
#   w      S register in bits 6-0 in place of vy where cs is set
#   mx my mz   mask registers in the places of vx, vy, vz
#   cond   a condition in bits 51-48; cfw: in 3-0; icond, fcond: in vy, of integers, of floats
#   qx qy qz  pairs of S registers: an even number is the upper half, the next one the lower
#   rd     rounding mode: of scalars in sz, of vectors in vz
FORMS: dict[str, tuple[str, str]] = {
    "load": ("01 02 03 04 05 06 08 09 0a 0b 11 12 13 14 15", "sx y z imm"),
    "prefetch": ("0c", "y z imm"),
    "atomic": ("42 43 62", "sx y z imm"),
    "ts3am": ("52", "sx y2 z imm"),
    "atmam": ("53", "sx y3 z imm"),
    "host": ("21 31", "sx z imm"),
    "branch": ("19 1b 1c", "cond y z imm"),
    "relative": ("18", "cond y z imm"),
    "none": ("30 3f 79 20", ""),
    "sx": ("28 29 2a 2e 2f", "sx"),
    "misc": ("22", "sx misc"),
    "sy": ("bf", "y"),
    "lpm": ("3a", "yr"),
    "sy64": ("69 af", "y64"),
    "communication": ("40 41 50", "sx y z"),
    "fidcr": ("51", "sx y z8"),
    "binary": (
        "3e 44 45 46 47 48 49 4a 4b 4c 4d 54 55 56 58 59 5a 5b 5c 5d 68 6a 6b 6e 6f 78 7a 7b 7e 7f",
        "sx y zm",
    ),
    "quad": ("6c 6d 7c", "qx qy qz"),
    "quad_compare": ("7d", "sx qy qz"),
    "shift": ("57 64 65 66 74 75 76 77", "sx y128 zm"),
    "unary": ("38 39 67", "sx zm"),
    "swap": ("2b", "sx yi2 zm"),
    "cmov": ("3b", "sx y zm cfw"),
    "convert": ("5e 5f", "sx y"),
    "convert_round": ("4e 4f", "sx y rd"),
    "v_load": ("81 82 83 c1 c2 c3", "y z vx"),
    "v_store": ("91 92 93 d1 d2 d3", "m y z vx"),
    "v_gather": ("a1 a2 a3 b1 b2 b3", "m y z vx vyw"),
    "v_prefetch": ("80", "y z"),
    "lsv": ("8e", "y128 zm vx"),
    "lvs": ("9e", "sx y128 vx"),
    "lvm": ("b7", "y4 zm mx"),
    "svm": ("a7", "sx y4 mz"),
    "v_broadcast": ("8c", "m y vx"),
    "v_move": ("9c", "m y128 vx vz"),
    "v_binary": (
        "c8 ca 8b d8 da 9b c9 cb db d9 b9 fa ba 8a 9a cc dc cd fc bd d6",
        "m vx vyz",
    ),
    "v_logical": ("c4 c5 c6 c7", "m vx vyzm"),
    "v_divide": ("e9 eb fb dd", "m vx vyz2"),
    "v_shift": ("e5 f5 e6 d4 f6 d5", "m vx vyz128"),
    "v_shift_double": ("e4 f4", "m y128 vx vy vz"),
    "vsfa": ("d7", "m y8 zm vx vz"),
    "v_unary_z": ("e7 ac f7 8d 9d", "m vx vz"),
    "v_unary_y": (
        "ed e1 f1 f8 b8 9f 8f ea aa ec bb ab ad 88 98 89",
        "m vx vy",
    ),
    "vseq": ("99", "m vx"),
    "v_multiply_add": ("e2 f2 e3 f3", "m vx vyzw"),
    "v_convert_round": ("e8 a8", "m vx vy rdv"),
    "v_iterate2": ("ce de cf", "y vx vy"),
    "v_iterate3": ("ee fe ef ff", "y vx vy vz"),
    "vshf": ("bc", "y16 vx vy vz"),
    "vfmk": ("b4 b5", "m mx icond vz"),
    "vfmf": ("b6", "m mx fcond vz"),
    "mask2": ("84 85 86 87 94", "mx my mz"),
    "mask1": ("95", "mx my"),
    "mask_count": ("a4 a5 a6", "sx my"),
}
FORM_OF = {
    int(op, 16): (form, fields) for form, (ops, fields) in FORMS.items() for op in ops.split()
}
# cvt.{s,d,q} between floats: opcode and bit 55 say which of the registers are pairs
CONVERT_FLOAT = {
    "cvt.s.d": "sx y",
    "cvt.d.s": "sx y",
    "cvt.s.q": "sx qy",
    "cvt.d.q": "sx qy",
    "cvt.q.d": "qx y",
    "cvt.q.s": "qx y",
}
FENCES = {"fencei": "", "fencem": "fence2", "fencec": "fence3"}
CONDITIONS = [
    *("af", "gt", "lt", "ne", "eq", "ge", "le", "num", "nan"),
    *("gtnan", "ltnan", "nenan", "eqnan", "genan", "lenan", "at"),
]
INTEGER_CONDITIONS = (0, 1, 2, 3, 4, 5, 6, 15)
ROUNDING = {0: "psw", 8: "rz", 9: "rp", 10: "rm", 11: "rn", 12: "ra"}
MISC_REGISTERS = (0, 1, 2, 7, 8, 9, 10, 11, *range(16, 31))


@dataclass(frozen=True)
class Spec:
    """A mnemonic: its opcode, what tells it from the others of that opcode, its operands."""

    mnemonic: str
    opcode: int
    form: str
    operands: tuple[str, ...]
    sample: int
    flags: frozenset[int]  # values of bits 55-52 that LLVM's disassembler takes for it

    @property
    def vector(self) -> bool:
        return self.opcode >= 0x80


@dataclass(frozen=True)
class Fields:
    """All fields of all formats: which of them mean something depends on the opcode."""

    word: int
    opcode: int
    cx: int
    cx2: int
    cs: int
    cs2: int
    m: int
    sx: int
    cy: int
    sy: int
    cz: int
    sz: int
    imm: int
    vx: int
    vy: int
    vz: int
    vw: int

    @property
    def cw(self) -> int:
        return self.word >> 7 & 1

    @property
    def cw2(self) -> int:
        return self.word >> 6 & 1

    @property
    def condition(self) -> int:
        return self.word & 15

    @property
    def simm_y(self) -> int:
        return self.sy - 128 if self.sy & 64 else self.sy

    @property
    def ones_z(self) -> int:
        """(m)0: m zeros, then ones; (m)1: m ones, then zeros."""
        count, every = self.sz & 63, (1 << 64) - 1
        return every >> count if self.sz & 64 else every & ~(every >> count)


def fields(word: int) -> Fields:
    imm = word & 0xFFFFFFFF
    return Fields(
        word=word, opcode=word >> 56,
        cx=word >> 55 & 1, cx2=word >> 54 & 1, cs=word >> 53 & 1, cs2=word >> 52 & 1,
        m=word >> 48 & 15, sx=word >> 48 & 127,
        cy=word >> 47 & 1, sy=word >> 40 & 127, cz=word >> 39 & 1, sz=word >> 32 & 127,
        imm=imm - (1 << 32) if imm >> 31 else imm,
        vx=word >> 24 & 255, vy=word >> 16 & 255, vz=word >> 8 & 255, vw=word & 255,
    )  # fmt: skip


@functools.cache
def specs() -> dict[str, Spec]:
    """Each mnemonic of the table."""
    table = {}
    for line in OPCODES.read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        head, _, rest = line.partition("{")
        flags, _, tail = rest.partition("}")
        opcode, mnemonic = int(head[:2], 16), head[2:].strip()
        sample = int(tail.split()[-1], 16)
        if mnemonic in CONVERT_FLOAT:
            form, operands = "convert_float", CONVERT_FLOAT[mnemonic]
        elif mnemonic in FENCES:
            form, operands = "fence", FENCES[mnemonic]
        else:
            form, operands = FORM_OF[opcode]
        values = frozenset(int(f, 16) for f in flags.split(","))
        spec = Spec(mnemonic, opcode, form, tuple(operands.split()), sample, values)
        assert mnemonic not in table, mnemonic
        table[mnemonic] = spec
    return table


# --- random words --------------------------------------------------------------------------------


# What the fields of an addressing form may name, so that most accesses fall into mapped memory.
@dataclass
class Pools:
    """Register numbers to draw from. ``base`` holds addresses, ``index`` small numbers, ``stride``
    strides, ``stride2`` pairs of strides; ``address`` lists V registers of addresses."""

    s_to: list[int]
    s_from: list[int]
    v_to: list[int]
    v_from: list[int]
    m_to: list[int]
    m_from: list[int]
    base: list[int]
    index: list[int]
    stride: list[int]
    stride2: list[int]
    address: list[int]


MEMORY_FORMS = {"atomic", "ts3am", "atmam", "v_load", "v_store", "v_gather"}
SCALAR_ACCESS = frozenset({0x01, 0x02, 0x03, 0x04, 0x05, 0x09, 0x0A, 0x0B,
                           0x11, 0x12, 0x13, 0x14, 0x15})  # fmt: skip
# cs, cs2 of the forms that may have a scalar in place of a vector
SCALAR_CHOICES = {
    "vyz": ("vv", "rv"), "vyzm": ("vv", "rv"), "vyz128": ("vv", "rv"),
    "vyz2": ("vv", "rv", "vr"), "vyzw": ("vv", "rv", "vr"), "vyw": ("vv", "rv"),
}  # fmt: skip


def packed(spec: Spec) -> bool:
    """Whether its mask is a pair of mask registers: the even one for the upper halves."""
    if spec.mnemonic == "vmrg.w":
        return True
    has_mask = "m" in spec.operands and not spec.form.startswith("vfm")
    return (
        has_mask
        and spec.mnemonic.startswith("pv")
        and not spec.mnemonic.endswith((".lo", ".up", ".lo.nex", ".up.nex"))
    )


def random_word(spec: Spec, rng: random.Random, pools: Pools) -> int:
    """A word of this mnemonic that LLVM's disassembler takes, with random operands."""
    put: dict[str, int] = {}
    flags = spec.sample >> 52 & 15
    operands = set(spec.operands)
    memory = spec.form in MEMORY_FORMS or spec.opcode in SCALAR_ACCESS

    def y_operand(low: int, high: int, registers: list[int]) -> None:
        put["cy"] = rng.random() < 0.6
        if put["cy"]:
            put["sy"] = rng.choice(registers)
        else:
            put["sy"] = rng.randrange(low, high) & 127

    def z_register(registers: list[int]) -> None:
        put["cz"], put["sz"] = 1, rng.choice(registers)

    for operand in spec.operands:
        match operand:
            case "sx":
                put["sx"] = rng.choice(
                    pools.s_to if spec.opcode >> 4 != 1 or spec.opcode == 0x1F else pools.s_from
                )
            case "qx" | "qy" | "qz":
                pool = pools.s_to if operand == "qx" else pools.s_from
                number = rng.choice([r for r in pool if r % 2 == 0])
                if operand == "qz" and rng.random() < 0.3:
                    put["cz"], put["sz"] = 0, 0
                elif operand == "qx":
                    put["sx"] = number
                else:
                    put["c" + operand[1]], put["s" + operand[1]] = 1, number
            case "y":
                if spec.form in ("v_load", "v_store") or spec.opcode == 0x80:
                    two = spec.opcode >> 4 in (0xC, 0xD)
                    if two:
                        put["cy"], put["sy"] = 1, rng.choice(pools.stride2)
                    elif rng.random() < 0.5:
                        put["cy"], put["sy"] = 1, rng.choice(pools.stride)
                    else:
                        put["cy"], put["sy"] = 0, rng.choice((0, 4, 8, 16, 24, -8, -4)) & 127
                elif spec.opcode in SCALAR_ACCESS:
                    y_operand(-64, 64, pools.index)
                elif spec.opcode == 0xBF:
                    put["cy"], put["sy"] = 1, rng.choice(pools.index)
                else:
                    y_operand(-64, 64, pools.s_from)
            case "yr":
                put["cy"], put["sy"] = 1, rng.choice(pools.s_from)
            case "yi2":
                put["cy"], put["sy"] = 0, rng.randrange(2)
            case "y2" | "y3" | "y4" | "y8" | "y16" | "y64" | "y128":
                y_operand(
                    0,
                    int(operand[1:]),
                    pools.index if operand in ("y2", "y3", "y4", "y64") else pools.s_from,
                )
            case "z":
                z_register(pools.base if memory or spec.vector else pools.s_from)
                if spec.form == "v_gather" or (not memory and rng.random() < 0.2):
                    put["cz"], put["sz"] = 0, 0
            case "zm":
                if rng.random() < 0.6:
                    z_register(pools.s_from)
                else:
                    put["cz"], put["sz"] = 0, rng.randrange(128)
            case "z8":
                put["cz"], put["sz"] = 0, rng.randrange(8)
            case "imm":
                put["imm"] = rng.randrange(-512, 512) if memory else rng.randrange(1 << 32)
                if spec.form in ("atomic", "ts3am", "atmam"):
                    put["imm"] &= ~7
                put["imm"] &= (1 << 32) - 1
            case "m":
                numbers = [0, *pools.m_from] if rng.random() < 0.8 else [0]
                number = rng.choice(numbers)
                put["m"] = number & ~1 if packed(spec) else number
            case "vx":
                store = spec.form == "v_store" or (spec.opcode >> 4 == 0xB and memory)
                put["vx"] = rng.choice(pools.v_from if store or spec.opcode == 0x9E else pools.v_to)
            case "vy" | "vz":
                put[operand] = rng.choice(pools.v_from)
            case "mx":
                put["vx"] = rng.choice(pools.m_to)
            case "my" | "mz":
                put["v" + operand[1]] = rng.choice([0, *pools.m_from])
            case "cond":
                integers = spec.mnemonic.split(".")[1] in ("l", "w")
                codes = [c for c in (INTEGER_CONDITIONS if integers else range(16)) if c]
                put["m"] = 0 if "af." in spec.mnemonic else rng.choice(codes)
            case "cfw":
                integers = spec.mnemonic.split(".")[1] in ("l", "w")
                put["cfw"] = rng.choice(INTEGER_CONDITIONS if integers else range(16))
            case "icond" | "fcond":
                code = CONDITIONS.index(spec.mnemonic.rsplit(".", 1)[1])
                put["vy"] = code or 0
                if code == CONDITIONS.index("eq"):
                    rest = INTEGER_CONDITIONS if operand == "icond" else range(16)
                    put["vy"] = rng.choice([c for c in rest if c not in (0, 5)])
            case "rd":
                put["cz"], put["sz"] = 0, rng.choice(list(ROUNDING))
            case "rdv":
                put["vz"] = rng.choice(list(ROUNDING))
            case "misc":
                put["cy"], put["sy"] = 0, rng.choice(MISC_REGISTERS)
            case "fence2":
                put["sx"] = rng.randrange(4)
            case "fence3":
                put["sy"] = rng.randrange(1, 8)
            case _:
                choice = rng.choice(SCALAR_CHOICES[operand])
                put["cs"], put["cs2"] = choice == "rv", choice == "vr"
                if operand == "vyw":
                    flags &= ~2
                    if choice == "vv":
                        put["vy"] = rng.choice(pools.address)
                    else:
                        put["w"] = rng.choice(pools.base)
                    continue
                flags &= ~3 if operand in ("vyz2", "vyzw") else ~2
                vectors = {"vv": "vy vz", "rv": "vz", "vr": "vy"}[choice].split()
                for name in vectors + ["vw"] * (operand == "vyzw"):
                    put[name] = rng.choice(pools.v_from)
                if choice != "vv":
                    if operand == "vyzm" and rng.random() < 0.4:
                        put["cy"], put["sy"] = 0, rng.randrange(128)
                    elif operand == "vyzm":
                        put["cy"], put["sy"] = 1, rng.choice(pools.s_from)
                    elif operand == "vyz128":
                        y_operand(0, 128, pools.s_from)
                    else:
                        y_operand(-64, 64, pools.s_from)
    if spec.opcode in (0x21, 0x31):
        put["sy"] = spec.sample >> 40 & 3
    word = spec.opcode << 56
    scalar = not spec.vector
    word |= (flags & 8 if scalar and spec.form not in ("branch", "relative") else flags) << 52
    if spec.vector and "sx" in operands:
        word &= ~(7 << 52)
    if spec.form in ("binary", "cmov", "convert_round"):
        word |= spec.sample & 0xC0
    shifts = {"sx": 48, "m": 48, "cy": 47, "sy": 40, "cz": 39, "sz": 32, "imm": 0, "vx": 24,
              "vy": 16, "vz": 8, "vw": 0, "w": 0, "cfw": 0, "cs": 53, "cs2": 52}  # fmt: skip
    for name, value in put.items():
        word |= int(value) << shifts[name]
    return word

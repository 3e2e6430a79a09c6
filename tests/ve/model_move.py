"""The model's vector moves, memory accesses and masks.

Part of model.py, which names the sources.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ieee import F32, F64
from lanes import ELEMENTS, Array, Lanes, join, lower, upper
from model import MAX_VL, U64, Trapped, Unmodelled, holds, signed


def access(op: Lanes) -> Array:
    """Addresses of the elements of strided loads and stores."""
    if op.f.opcode >> 4 in (0xC, 0xD):
        # NEC's suite: low 16 bits a stride within rows of 16 elements, above it that of rows
        inner = signed(op.scalar(), 16)
        outer = signed(op.scalar() >> 16, 48)
        offsets = ELEMENTS % 16 * inner + ELEMENTS // 16 * outer
    else:
        offsets = ELEMENTS * signed(op.scalar())
    return (offsets + op.z_or_zero()).astype(np.int64).astype(np.uint64)


def check_aligned(op: Lanes, addresses: Array, active: Array, size: int) -> None:
    for e in np.flatnonzero(active):
        if int(addresses[e]) % size:
            raise Trapped("Alignment")
        op.state.region(int(addresses[e]), size)


def load(op: Lanes) -> None:
    read_memory(op, access(op), op.within)


def read_memory(op: Lanes, addresses: Array, active: Array) -> None:
    kind = op.f.opcode & 3  # 1: 8 bytes, 2: 4 into the upper half, 3: 4 into the lower half
    size = 8 if kind == 1 else 4
    check_aligned(op, addresses, active, size)
    values = np.zeros(MAX_VL, np.uint64)
    for e in np.flatnonzero(active):
        value = op.state.load(int(addresses[e]), size)
        if kind == 2:
            value <<= 32
        elif kind == 3 and not op.f.cx:
            value = signed(value, 32) & U64
        values[e] = value
    op.put(values, active=active)


def store(op: Lanes) -> None:
    write_memory(op, access(op), op.within & op.mask(op.f.m))


def write_memory(op: Lanes, addresses: Array, active: Array) -> None:
    kind = op.f.opcode & 3
    size = 8 if kind == 1 else 4
    check_aligned(op, addresses, active, size)
    values = op.vector(op.f.vx)
    for e in np.flatnonzero(active):
        value = int(values[e])
        op.state.store(int(addresses[e]), size, value >> 32 if kind == 2 else value)


def element_addresses(op: Lanes) -> Array:
    """Of gathers and scatters: y and z only bound the range for the hardware."""
    if op.f.cs:
        return np.full(MAX_VL, op.state.s[op.f.vw & 127], np.uint64)
    return op.vector(op.f.vy)


def gather(op: Lanes) -> None:
    read_memory(op, element_addresses(op), op.within & op.mask(op.f.m))


def scatter(op: Lanes) -> None:
    write_memory(op, element_addresses(op), op.within & op.mask(op.f.m))


def broadcast(op: Lanes) -> None:
    value = np.full(MAX_VL, op.scalar(), np.uint64)
    op.lanes(lambda a: a, lambda a: a, value)


def set_element(op: Lanes) -> None:  # lsv
    element = op.scalar_unsigned()
    if element >= MAX_VL:
        raise Unmodelled
    op.state.v[op.register(op.f.vx)][element] = op.scalar_z()


def get_element(op: Lanes) -> None:  # lvs
    element = op.scalar_unsigned()
    if element >= MAX_VL:
        raise Unmodelled
    op.state.s[op.f.sx] = int(op.vector(op.f.vx)[element])


def set_mask(op: Lanes) -> None:  # lvm: bit 63 of a part is its first element
    part = op.scalar_unsigned()
    if part > 3:
        raise Unmodelled
    bits = [op.scalar_z() >> (63 - i) & 1 for i in range(64)]
    if op.f.vx:
        op.state.vm[op.f.vx][64 * part : 64 * part + 64] = bits


def get_mask(op: Lanes) -> None:  # svm
    part = op.scalar_unsigned()
    if part > 3:
        raise Unmodelled
    bits = op.mask(op.f.vz)[64 * part : 64 * part + 64]
    op.state.s[op.f.sx] = sum(1 << (63 - i) for i in range(64) if bits[i])


def move(op: Lanes) -> None:
    """vmv: element (i + y) mod 256 of vz; NEC's suite: the mask is that of the source."""
    source = (ELEMENTS + (op.scalar_unsigned() & 255)) % MAX_VL
    op.put(op.vector(op.f.vz)[source], active=op.mask(op.f.m)[source])


def compress(op: Lanes) -> None:
    kept = op.vector(op.f.vz)[op.within & op.mask(op.f.m)]
    op.state.v[op.register(op.f.vx)][: len(kept)] = kept


def expand(op: Lanes) -> None:
    places = np.flatnonzero(op.within & op.mask(op.f.m))
    op.state.v[op.register(op.f.vx)][places] = op.vector(op.f.vz)[: len(places)]


def merge(op: Lanes) -> None:
    y, z = op.y(), op.z()
    if op.f.cx:  # vmrg.w
        mask_high, mask_low = op.masks()
        values = join(
            np.where(mask_high, upper(z), upper(y)), np.where(mask_low, lower(z), lower(y))
        )
    else:
        values = np.where(op.mask(op.f.m), z, y)
    op.put(values, active=op.mask(0))


def shuffle(op: Lanes) -> None:
    y, z, code = op.vector(op.f.vy), op.vector(op.f.vz), op.scalar_unsigned()
    parts = (upper(y), lower(y), upper(z), lower(z))
    op.put(join(parts[code >> 2 & 3], parts[code & 3]), active=op.mask(0))


def form_mask(op: Lanes) -> None:
    f = op.f
    z, condition = op.vector(f.vz), f.vy & 15
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
    new = np.array(true) & op.mask(f.m)
    op.state.vm[f.vx][op.within] = new[op.within]


def mask_logic(op: Lanes) -> None:
    y, z = op.mask(op.f.vy), op.mask(op.f.vz)
    result = {
        0x84: y & z, 0x85: y | z, 0x86: y ^ z, 0x87: y == z, 0x94: ~y & z, 0x95: ~y,
    }[op.f.opcode]  # fmt: skip
    if op.f.vx:
        op.state.vm[op.f.vx] = result


def count_mask(op: Lanes) -> None:
    bits = op.mask(op.f.vy)[: op.state.vl]
    ones = np.flatnonzero(bits)
    if op.f.opcode == 0xA4:
        value = len(ones)
    elif op.f.opcode == 0xA5:  # leading zeros
        value = int(ones[0]) if len(ones) else op.state.vl
    else:  # tovm: one past the last one
        value = int(ones[-1]) + 1 if len(ones) else 0
    op.state.s[op.f.sx] = value


def set_index(op: Lanes) -> None:  # lvix
    if op.scalar_unsigned() > 63:
        raise Unmodelled
    op.state.vix = op.scalar_unsigned()


DISPATCH: dict[int, Callable[[Lanes], None]] = {
    0x80: lambda op: None,
    0x8E: set_element,
    0x9E: get_element,
    0xB7: set_mask,
    0xA7: get_mask,
    0x8C: broadcast,
    0x9C: move,
    0x8D: compress,
    0x9D: expand,
    0xD6: merge,
    0xBC: shuffle,
    **dict.fromkeys((0xB4, 0xB5, 0xB6), form_mask),
    **dict.fromkeys((0x84, 0x85, 0x86, 0x87, 0x94, 0x95), mask_logic),
    **dict.fromkeys((0xA4, 0xA5, 0xA6), count_mask),
    0xAF: set_index,
    **dict.fromkeys((0x81, 0x82, 0x83, 0xC1, 0xC2, 0xC3), load),
    **dict.fromkeys((0x91, 0x92, 0x93, 0xD1, 0xD2, 0xD3), store),
    **dict.fromkeys((0xA1, 0xA2, 0xA3), gather),
    **dict.fromkeys((0xB1, 0xB2, 0xB3), scatter),
}

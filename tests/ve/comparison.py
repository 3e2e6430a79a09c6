"""Runs the same instructions on the simulator and on the model and says where they differ.

States are random, with special values (NaN with payloads, infinities, denormals, extremes, zeros)
in registers; a few registers hold addresses into a window of mapped memory. After each step the
model takes over the simulator's state, so that what the architecture leaves open (see model.py) is
judged once, where it arises, and does not count again in what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from encoding import Pools
from model import U64, State, Step, Trapped, step

from sol_dynamo.ve import sim

WINDOW = 4 * 4096  # whole pages: just behind it nothing is mapped
BASE, INDEX = [40, 41, 42, 43], [44, 45, 46, 47]
STRIDE, STRIDE2 = [48, 49, 50], [52, 53]
ADDRESS = [60, 61]
POOLS = Pools(
    s_to=[r for r in range(40) if not 8 <= r <= 17],  # the rest: the ABI's own registers
    s_from=[*range(8), *range(18, 56)],
    v_to=list(range(56)),
    v_from=list(range(64)),
    m_to=list(range(1, 16)),
    m_from=list(range(1, 16)),
    base=BASE,
    index=INDEX,
    stride=STRIDE,
    stride2=STRIDE2,
    address=ADDRESS,
)
WITH_VIX = Pools(**{**POOLS.__dict__, "v_to": [*POOLS.v_to, 255], "v_from": [*POOLS.v_from, 255]})

SPECIAL64 = np.array(
    [0, 1 << 63, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, 0xFFF8000000001234, 0x7FF0000000000001,
     0x7FF4DEADBEEF0000, 1, (1 << 63) + 1, (1 << 52) - 1, 1 << 52, 0x7FEFFFFFFFFFFFFF,
     0xFFEFFFFFFFFFFFFF, 0x3FF << 52, 0xBFF << 52, U64, 1 << 31, (1 << 31) - 1, 0xFFFFFFFF80000000,
     (1 << 63) - 1, 0x41DFFFFFFFC00000, 0xC1E0000000000000, 0x43E0000000000000,
     0x3FE0000000000000, 0x3FF8000000000000, 0x4004000000000000, 0xC004000000000000],
    np.uint64,
)  # fmt: skip
SPECIAL32 = np.array(
    [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC01234, 0x7F800001, 0x7FA0BEEF, 1,
     0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F800000, 0xBF800000,
     0xFFFFFFFF, 0x7FFFFFFF, 0x4EFFFFFF, 0xCF000000, 0x4F000000, 0x3F000000, 0x3FC00000,
     0x40200000, 0xC0200000],
    np.uint32,
)  # fmt: skip


DOUBLES, FLOATS, INTEGERS = (1, 2, 5), (3, 4, 6), (0, 5, 7)  # kinds of random values


def random_values(
    rng: np.random.Generator, size: int, kinds: tuple[int, ...] = tuple(range(8))
) -> np.ndarray:
    """Numbers of one kind: bits, floats of near size, special values or small integers."""
    kind = rng.choice(kinds)
    bits = rng.integers(0, 1 << 64, size, np.uint64)
    halves = bits.view(np.uint32)
    if kind == 0:
        return bits
    if kind in (1, 2):  # doubles near 1: their sums cancel, their products stay finite
        most = 20 if kind == 1 else 64  # and up to where integers of 64 bits end
        exponent = rng.integers(1023 - 20, 1023 + most, size).astype(np.uint64)
        return bits & np.uint64(0x800FFFFFFFFFFFFF) | exponent << np.uint64(52)
    if kind in (3, 4):  # pairs of floats near 1
        most = 8 if kind == 3 else 32
        exponent = rng.integers(127 - 8, 127 + most, 2 * size).astype(np.uint32)
        return (halves & np.uint32(0x807FFFFF) | exponent << np.uint32(23)).view(np.uint64)
    if kind == 5:
        return rng.choice(SPECIAL64, size)
    if kind == 6:
        return rng.choice(SPECIAL32, 2 * size).view(np.uint64)
    return rng.integers(-300, 300, size).astype(np.uint64)


def random_state(seed: int, window: int, size: int = WINDOW) -> State:
    rng = np.random.default_rng(seed)
    state = State()
    state.s = [int(x) for x in np.concatenate([random_values(rng, 16) for _ in range(4)])]
    middle = window + WINDOW // 2
    for r in BASE:
        state.s[r] = middle + 8 * int(rng.integers(-64, 64))
    for r in INDEX:
        state.s[r] = 8 * int(rng.integers(0, 9))
    for r in STRIDE:
        state.s[r] = int(rng.choice([0, 4, 8, 16, 20, 24]))
    for r in STRIDE2:
        state.s[r] = int(rng.choice([0, 64, 128, 256])) << 16 | int(rng.choice([0, 4, 8, 12]))
    for r in range(64):
        state.v[r] = random_values(rng, 256)
    for r in ADDRESS:
        state.v[r] = window + 8 * rng.permutation(WINDOW // 8)[:256].astype(np.uint64)
    state.vm[1:] = rng.integers(0, 2, (15, 256)).astype(bool)
    state.vm[1 + rng.integers(0, 15)] = bool(rng.integers(0, 2))
    state.vl = int(rng.choice([0, 1, 2, 255, 256, 256, int(rng.integers(0, 257))]))
    # addresses that trap, in elements that half of the masks, or VL, leave out
    wrong = window + 4 if rng.integers(0, 2) else 8
    left_out = rng.integers(0, 256, 3)
    state.vm[8:, left_out] = False
    state.v[ADDRESS[1], left_out] = wrong
    state.v[ADDRESS[1], state.vl :] = wrong
    state.vix = int(rng.integers(0, 56))
    state.memory[window] = bytearray(rng.bytes(size))
    return state


@dataclass
class Outcome:
    """Of one instruction: how the simulator differs from the model, and whether it trapped."""

    complaints: list[str]
    trap: str | None = None


class Bench:
    """A simulated machine whose core is set to states of the model and compared with it."""

    def __init__(self, pages: int = WINDOW // 4096) -> None:
        self.machine = sim.Machine()
        self.core = self.machine.core
        self.size = 4096 * pages
        self.window = self.machine.allocate(self.size)

    def put(self, state: State) -> None:
        core = self.core
        core.s[:] = np.array(state.s, np.uint64)
        core.v[:] = state.v
        core.vm[1:] = pack_masks(state.vm[1:])
        core.vl, core.vix, core.psw = state.vl, state.vix, state.psw
        for base, data in state.memory.items():
            self.machine.write(base, bytes(data))

    def take(self, into: State) -> None:
        core = self.core
        into.s = [int(x) for x in core.s]
        into.v[:] = core.v
        into.vm[1:] = unpack_masks(np.array(core.vm[1:], np.uint64))
        into.vl, into.vix, into.psw = int(core.vl), int(core.vix), int(core.psw)
        for base, data in into.memory.items():
            data[:] = self.machine.read(base, len(data))

    def step(self, state: State, word: int) -> Outcome:
        """Executes the word on both, from `state`, which becomes the simulator's."""
        before = state.copy()
        try:
            result, expected = step(state, word), None
        except Trapped as trapped:
            result, expected = Step(), trapped.kind
        actual = self.execute([word])
        if expected or actual:
            same = expected == actual
            return Outcome([] if same else [f"trap {actual}, expected {expected}"], actual)
        complaints = self.differences(state, result)
        self.take(state)
        return Outcome([f"{describe(word)}: {c}; {inputs(before, word)}" for c in complaints])

    def branch(self, state: State, word: int) -> None:
        """A branch moves the model alone: its operands are the same on both."""
        step(state, word)

    def execute(self, words: list[int]) -> str | None:
        """The kind of the trap that it ended in, if any, by its name in vesim's Trap."""
        try:
            self.core.execute(words)
        except sim.Fault as fault:
            return str(fault.kind)
        return None

    def differences(self, state: State, result: Step) -> list[str]:
        core, found = self.core, []
        s, v = np.array(core.s, np.uint64), np.array(core.v, np.uint64)
        want = np.array(state.s, np.uint64)
        care = np.full(64, U64, np.uint64)
        for r, bits in result.care_s.items():
            care[r] = bits
        for r in map(int, np.flatnonzero((s ^ want) & care)):
            found.append(f"s{r} = {int(s[r]):#018x}, expected {int(want[r]):#018x}")
        wrong = v ^ state.v
        for r, elements in result.care_v.items():
            wrong[r] &= elements
        for r, e in zip(*map(np.ndarray.tolist, np.nonzero(wrong)), strict=True):
            found.append(f"v{r}[{e}] = {int(v[r, e]):#018x}, expected {int(state.v[r, e]):#018x}")
        for kind, place, shift, check in result.checks:
            actual = int(s[place]) if kind == "s" else int(v[place >> 8, place & 255])
            if complaint := check(actual >> shift):
                name = f"s{place}" if kind == "s" else f"v{place >> 8}[{place & 255}]"
                found.append(f"{name} = {actual:#018x}: {complaint}")
        masks = unpack_masks(np.array(core.vm[1:], np.uint64))
        for r, e in zip(*map(np.ndarray.tolist, np.nonzero(masks != state.vm[1:])), strict=True):
            found.append(f"vm{r + 1}[{e}] = {int(masks[r, e])}, expected {int(not masks[r, e])}")
        for name in ("vl", "vix"):
            if getattr(core, name) != getattr(state, name):
                found.append(f"{name} = {getattr(core, name)}, expected {getattr(state, name)}")
        if (core.psw ^ state.psw) & 0x3FC0:  # the six exception flags are not modelled
            found.append(f"psw = {core.psw:#x}, expected {state.psw:#x}")
        for base, data in state.memory.items():
            actual_bytes = self.machine.read(base, len(data))
            if actual_bytes != data:
                at = next(i for i in range(len(data)) if actual_bytes[i] != data[i])
                found.append(f"memory at window + {at}: {actual_bytes[at]:#x}, not {data[at]:#x}")
        return found


def describe(word: int) -> str:
    return f"{word:016x} {sim.disassemble(word)}"


def inputs(state: State, word: int) -> str:
    """The operands that the word's fields may name, for a message."""
    sy, sz, vy, vz = word >> 40 & 63, word >> 32 & 63, word >> 16 & 255, word >> 8 & 255
    text = f"vl {state.vl}, s{sy} {state.s[sy]:#x}, s{sz} {state.s[sz]:#x}"
    for r in (vy, vz):
        if word >> 63 and r < 64:
            text += f", v{r} {int(state.v[r, 0]):#x} ..."
    return text


def pack_masks(masks: np.ndarray) -> np.ndarray:
    """Bit 63 of a word is the mask of its first element."""
    return np.packbits(masks, axis=1).view(">u8").astype(np.uint64)


def unpack_masks(words: np.ndarray) -> np.ndarray:
    return np.unpackbits(words.astype(">u8").view(np.uint8), axis=1).astype(bool)

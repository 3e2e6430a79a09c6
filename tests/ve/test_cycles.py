"""The cycle model against sequences whose time is computed by hand from its parameters.

A loop is run for two different numbers of iterations: the difference is what an iteration takes
once caches hold what they will hold. The parameters appear here as numbers, so that a change of one
of them is a change of this file, with its reason.
"""

from __future__ import annotations

import random
import re
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from offload import Process, arguments, compile_ve

from sol_dynamo.ve import driver as ve
from sol_dynamo.ve import sim

pytestmark = pytest.mark.ve

# VE20B: bytes per cycle of one core alone, and of one of eight
SUSTAINED = 0.8  # of the memory's bandwidth
PORT, CHANNEL = 400 / 1.6, SUSTAINED * 400 / 1.6
CHANNEL_OF_8 = SUSTAINED * 1530 / 8 / 1.6
LANES, LINE, WINDOW = 32, 128, 32
FMA, ALU, COMPLEX = 16, 16, 64  # latencies
TO_SCALAR, TO_VECTOR = 32, 8
LLC, MEMORY = 200, 400
TAKEN, MISPREDICTED = 3, 20
BARRIER_CYCLES = 2000
# of `loop`: the counter changes, can be compared two cycles later, and the branch is taken
LOOP = 3 + TAKEN


@pytest.fixture(scope="module", autouse=True)
def simulator() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOL_VE_DRIVER", "sim")
        for name in ("SOL_VE_CARDS", "SOL_VE_MODEL"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def process() -> Iterator[Process]:
    p = Process()
    assert p.lib.vesim_cycles_enable(p.handle, 1) == 0
    yield p
    p.destroy()


Assemble = Callable[[str], int]


@pytest.fixture
def assemble(process: Process, tmp_path: Path) -> Assemble:
    """The address of a function `kernel` with the given body."""
    count = iter(range(1000))

    def make(body: str) -> int:
        text = f"\t.text\n\t.globl kernel\n\t.type kernel,@function\nkernel:\n{body}\n"
        path = compile_ve(tmp_path, f"kernel{next(count)}.s", text + "\tb.l.t (, %s10)\n")
        return process.symbol(process.load(path), "kernel")

    return make


def loop(body: str, length: int = 256, before: str = "") -> str:
    """s0 iterations of a body, with vector length `length`; s1, s2, s3 are the call's others."""
    return (
        f"\tlea %s16, {length}\n\tlvl %s16\n{before}\n1:\n{body}\n"
        "\tadds.l %s0, -1, %s0\n\tbrne.l.t 0, %s0, 1b"
    )


def measure(p: Process, function: int, *values: int, context: int = 0) -> ve.Kernel:
    """One call's report."""
    context = context or p.main
    assert p.lib.vesim_report_clear(context) == 0
    assert p.wait(context, p.start(context, function, *values))[0] == ve.OK, p.fault(context)
    (kernel,) = p.driver.report(context)
    return kernel


def steady(p: Process, function: int, *values: int, low: int = 50, high: int = 250) -> float:
    """Cycles of an iteration."""
    few, many = measure(p, function, low, *values), measure(p, function, high, *values)
    return (many.cycles - few.cycles) / (high - low)


def independent(count: int, instruction: str = "vfmad.d %v{0}, %v{0}, %v60, %v61") -> str:
    return "\n".join("\t" + instruction.format(i) for i in range(count))


# -- the vector pipes -----------------------------------------------------------------------------


@pytest.mark.parametrize("instruction", ["vfmad.d", "pvfmad"])
@pytest.mark.parametrize("length", [256, 200, 33, 32])
def test_independent_fma(
    process: Process, assemble: Assemble, instruction: str, length: int
) -> None:
    """24 accumulators on three pipes, each for as many cycles as 32 lanes need."""
    turns = -(-length // LANES)
    body = independent(24, instruction + " %v{0}, %v{0}, %v60, %v61")
    issue = 24 + LOOP  # one instruction per cycle
    expected = max(24 * turns / 3, issue, turns + FMA)
    function = assemble(loop(body, length))
    assert steady(process, function) == pytest.approx(expected, abs=0.02)
    kernel = measure(process, function, 100)
    flop = 100 * 24 * length * 2
    if instruction == "pvfmad":
        assert (kernel.flop_f32, kernel.flop_f64) == (2 * flop, 0)
        assert kernel.peak_f32 == pytest.approx(2 * flop / (384 * kernel.cycles))
    else:
        assert (kernel.flop_f32, kernel.flop_f64) == (0, flop)
        assert kernel.peak_f64 == pytest.approx(flop / (192 * kernel.cycles))
    assert kernel.average_length == length
    assert kernel.vector_instructions == 2400
    assert kernel.vector_elements == 2400 * length
    scalar = kernel.instructions - kernel.vector_instructions
    assert kernel.vector_ratio == pytest.approx(2400 * length / (2400 * length + scalar))
    if length == 256:
        assert kernel.fma_busy > 0.8


@pytest.mark.parametrize("length", [256, 64, 1])
def test_dependent_chain(process: Process, assemble: Assemble, length: int) -> None:
    """No chaining: an instruction begins when the one before has all its elements."""
    function = assemble(loop("\tvfmad.d %v0, %v0, %v1, %v2", length))
    assert steady(process, function) == pytest.approx(-(-length // LANES) + FMA)
    two = assemble(loop("\tvfmad.d %v0, %v0, %v1, %v2\n\tvor %v0, (0)1, %v0", length))
    assert steady(process, two) == pytest.approx(2 * -(-length // LANES) + FMA + ALU)


def test_masks_and_short_vectors_keep_old_elements(process: Process, assemble: Assemble) -> None:
    """What an instruction leaves unchanged is an operand of it."""
    whole = assemble(loop("\tvfadd.d %v0, %v1, %v2"))
    masked = assemble(loop("\tvfadd.d %v0, %v1, %v2, %vm1"))
    short = assemble(loop("\tvfadd.d %v0, %v1, %v2", 255))
    assert steady(process, whole) == pytest.approx(1 + LOOP)  # issue: 8 / 3 is less
    assert steady(process, masked) == pytest.approx(8 + FMA)
    assert steady(process, short) == pytest.approx(8 + FMA)
    # a merge writes all elements, whatever its mask; a sum only one
    merge = assemble(loop("\tvmrg %v0, %v1, %v2, %vm1\n\tvmrg.w %v3, %v1, %v2, %vm2"))
    assert steady(process, merge) == pytest.approx(2 + LOOP)
    total = assemble(loop("\tvfsum.d %v0, %v1"))
    assert steady(process, total) == pytest.approx(2 * 8 + COMPLEX)


def test_masked_elements_are_no_flop(process: Process, assemble: Assemble) -> None:
    mask = "\tlvm %vm1, 0, %s1\n\tlvm %vm1, 3, %s1"
    function = assemble(loop("\tvfmul.d %v0, %v1, %v2, %vm1", before=mask))
    kernel = measure(process, function, 10, 0xF0F0_0000_0000_0001)
    assert kernel.flop_f64 == 10 * 2 * 9
    assert kernel.vector_elements == (10 + 2) * 256
    # packed: an even register masks the upper floats, the next one the lower floats
    mask = "\tlvm %vm2, 0, %s1\n\tlvm %vm3, 1, %s2"
    function = assemble(loop("\tpvfmad %v0, %v1, %v2, %v3, %vm2", before=mask))
    assert measure(process, function, 10, 0b1011, 1).flop_f32 == 10 * 2 * (3 + 1)


@pytest.mark.parametrize(
    "instruction, cycles",
    [
        ("vfdiv.d %v{0}, %v60, %v61", 8 * 16),
        ("vfsqrt.d %v{0}, %v60", 8 * 16),
        ("pvrcp %v{0}, %v60", 8 * 2),
        ("vfsum.d %v{0}, %v60", 8 * 2),
        ("vfim.d %v{0}, %v60, %s16", 256 * 16),
    ],
)
def test_complex_pipe(process: Process, assemble: Assemble, instruction: str, cycles: int) -> None:
    function = assemble(loop(independent(8, instruction)))
    assert steady(process, function, low=20, high=40) == pytest.approx(8 * cycles)


def test_integer_pipes(process: Process, assemble: Assemble) -> None:
    """Two pipes of integers, at the same time as the three of floats."""
    add = "vadds.w.sx %v{0}, %v60, %v61"
    assert steady(process, assemble(loop(independent(16, add)))) == pytest.approx(16 * 8 / 2)
    both = independent(16, add) + "\n" + independent(24, "vfadd.d %v{0}, %v60, %v61")
    assert steady(process, assemble(loop(both))) == pytest.approx(24 * 8 / 3, abs=0.1)


def test_to_scalar_registers(process: Process, assemble: Assemble) -> None:
    """vfadd -> lvs -> vfadd: the scalar unit waits for the vector unit and back."""
    body = "\tvfadd.d %v0, %s3, %v1\n\tlvs %s3, %v0(0)"
    turn = TO_VECTOR + (8 + FMA) + (8 + ALU) + TO_SCALAR
    assert steady(process, assemble(loop(body))) == pytest.approx(turn, abs=1)


@pytest.mark.parametrize("register", [16, 17, 18, 31])
def test_a_scalar_result_waits_for_no_mask(
    process: Process, assemble: Assemble, register: int
) -> None:
    """The bits that name a mask elsewhere are the scalar register's: 17 is not %vm1."""
    slow = f"\tvfdiv.d %v8, %v8, %v9\n\tvfmk.d.gt %vm{register % 16 or 1}, %v8"
    body = f"{slow}\n\tlvs %s{register}, %v0(0)\n\tor %s20, 0, %s{register}"
    turn = max(8 * 16 + COMPLEX, TO_VECTOR + 8 + ALU + TO_SCALAR)
    assert steady(process, assemble(loop(body))) == pytest.approx(turn, abs=1)


# -- memory ---------------------------------------------------------------------------------------

STREAM = """
	vld %v0, 8, %s1
	lea %s4, 2048(, %s1)
	vld %v1, 8, %s4
	lea %s4, 4096(, %s1)
	vld %v2, 8, %s4
	lea %s4, 6144(, %s1)
	vld %v3, 8, %s4
	lea %s1, 8192(, %s1)
"""


def test_streaming_loads_take_the_memory_bandwidth(process: Process, assemble: Assemble) -> None:
    address = process.alloc(4 << 20)
    function = assemble(loop(STREAM))
    assert steady(process, function, address, low=100, high=400) == pytest.approx(
        8192 / CHANNEL, rel=0.01
    )
    kernel = measure(process, function, 400, address)
    assert kernel.bytes_loaded == 400 * 8192
    assert 0 <= kernel.memory_bytes - 400 * 8192 <= 20 * LINE  # and the code
    assert kernel.memory_busy > 0.9
    assert kernel.bytes_loaded / kernel.seconds < SUSTAINED * 400e9
    # an eighth of the card
    assert process.lib.vesim_cycles_share(process.handle, 8) == 0
    assert steady(process, function, address, low=100, high=400) == pytest.approx(
        8192 / CHANNEL_OF_8, rel=0.01
    )
    assert process.lib.vesim_cycles_share(process.handle, 9) < 0
    # as many as are open
    assert process.lib.vesim_cycles_share(process.handle, 0) == 0
    for _ in range(7):
        process.open()
    assert steady(process, function, address, low=100, high=400) == pytest.approx(
        8192 / CHANNEL_OF_8, rel=0.01
    )


@pytest.mark.parametrize(
    "load, cycles",
    [
        ("vld %v{0}, 8, %s1", 2048 / PORT),  # a little slower than 32 elements per cycle
        ("vldu %v{0}, 4, %s1", 8),  # half the lines, but as many elements
        ("vld %v{0}, 16, %s1", 2 * 2048 / PORT),
        ("vld %v{0}, 0, %s1", 8),
    ],
)
def test_loads_from_the_cache(
    process: Process, assemble: Assemble, load: str, cycles: float
) -> None:
    address = process.alloc(8192)
    function = assemble(loop(independent(8, load)))
    assert steady(process, function, address) == pytest.approx(8 * cycles, rel=1e-3)


def test_gather_by_lines(process: Process, assemble: Assemble) -> None:
    """Neighbouring elements in one line are one access; else each element is one."""
    address = process.alloc(256 * 1024)
    body = independent(4, "vgt %v{0}, %v60, 0, 0")
    indices = "\tvseq %v60\n\tvmulu.l %v60, %s2, %v60\n\tvaddu.l %v60, %s1, %v60"
    function = assemble(loop(body, before=indices))
    spread = steady(process, function, address, 1024)
    assert spread == pytest.approx(4 * 256 * LINE / PORT, rel=1e-3)
    assert steady(process, function, address, 8) == pytest.approx(4 * 2048 / PORT, rel=1e-3)
    assert measure(process, function, 10, address, 1024).bytes_loaded == 10 * 4 * 2048


@pytest.mark.parametrize("stride", [1920, 2048, 2176, 4096, 6144])
def test_banks(process: Process, assemble: Assemble, stride: int) -> None:
    """Sixteen banks serve a line each in four cycles: strides of 2 KB always meet the same one."""
    address = process.alloc(2 << 20)
    function = assemble(loop(independent(2, "vld %v{0}, %s2, %s1")))
    conflict = stride % (16 * LINE) == 0
    line = 4 if conflict else LINE / PORT
    first = 2 * (LINE / PORT - line)  # of each load: the port was elsewhere before
    assert steady(process, function, address, stride) == pytest.approx(
        2 * 256 * line + first, rel=1e-3
    )


def test_rows_of_16(process: Process, assemble: Assemble) -> None:
    """Two-dimensional access: rows that follow each other are a stream, others are lines apart."""
    address = process.alloc(64 << 10)
    function = assemble(loop(independent(4, "vld2d %v{0}, %s2, %s1")))
    assert steady(process, function, address, 128 << 16 | 8) == pytest.approx(
        4 * 2048 / PORT, rel=1e-3
    )
    # every row begins in the middle of a line
    apart = steady(process, function, address + 64, 256 << 16 | 8)
    assert apart == pytest.approx(4 * 2 * 2048 / PORT, rel=1e-3)
    # backward, from the last element of the last row
    back = steady(process, function, address + 32 * 1024, (-128 << 16 | 0xFFF8) & 2**64 - 1)
    assert back == pytest.approx(4 * 17 * LINE / PORT, rel=0.02)
    assert measure(process, function, 10, address, 256 << 16 | 8).memory_bytes < 8192


def test_the_cache_is_finite(process: Process, assemble: Assemble) -> None:
    """16 MiB of LLC: 8 MiB read again and again stay there, 32 MiB do not."""
    body = """
	or %s5, 0, %s1
	or %s6, 0, %s2
2:
	vld %v0, 8, %s5
	lea %s5, 2048(, %s5)
	adds.l %s6, -1, %s6
	brne.l.t 0, %s6, 2b"""
    function = assemble(loop(body))
    for size, sharing, resident in ((8, 1, True), (32, 1, False), (4, 8, False), (1, 8, True)):
        address = process.alloc(size << 20)
        assert process.lib.vesim_cycles_share(process.handle, sharing) == 0
        two = measure(process, function, 2, address, size << 9)
        three = measure(process, function, 3, address, size << 9)
        moved = three.memory_bytes - two.memory_bytes
        assert moved == 0 if resident else moved == size << 20


def test_copies(process: Process, assemble: Assemble) -> None:
    """A store that loads may not overtake waits for its data, and the next load for it."""
    source, target = process.alloc(2 << 20), process.alloc(2 << 20)
    step = "\tlea %s1, 2048(, %s1)\n\tlea %s2, 2048(, %s2)"
    copy = "\tvld %v0, 8, %s1\n\t{} %v0, 8, %s2\n" + step
    plain = assemble(loop(copy.format("vst")))
    overtaken = assemble(loop(copy.format("vst.ot")))
    ordered = steady(process, plain, source, target)
    # request of the last line, its way, then the store's turn
    assert ordered == pytest.approx(2048 / PORT + MEMORY + 2048 / PORT, rel=0.03)
    free = steady(process, overtaken, source, target)
    # 32 waiting instructions are 16 copies on their way, and the memory that both take
    in_flight = (2048 / PORT + MEMORY + 2048 / PORT + TO_VECTOR) / (WINDOW / 2)
    assert 2048 / CHANNEL < free < 1.3 * in_flight
    kernel = measure(process, overtaken, 200, source, target)
    assert kernel.bytes_stored == kernel.bytes_loaded == 200 * 2048


def test_a_load_sees_the_store_before_it(process: Process, assemble: Assemble) -> None:
    """Through the LLC, vector and scalar loads alike, also where they may overtake the store."""
    address = process.alloc(4096)
    chain = assemble(loop("\tvst.ot %v0, 8, %s1\n\tvld %v0, 8, %s1"))
    assert steady(process, chain, address) == pytest.approx(2048 / PORT + LLC, abs=1)
    # and the next store is on its way 224 cycles later, when the scalar unit goes on
    scalar = assemble(loop("\tvst.ot %v0, 8, %s1\n\tld %s4, 0(, %s1)\n\tor %s5, 0, %s4"))
    turn = steady(process, scalar, address)
    assert LLC + 24 <= turn <= TO_VECTOR + 2 * LLC + 24


def test_loads_under_way(process: Process, assemble: Assemble) -> None:
    """64 vector loads and 8 lines of scalar loads at a time wait for memory."""
    address = process.alloc(4 << 20)
    short = "".join(f"\tvld %v{i}, 8, %s1\n\tlea %s1, 256(, %s1)\n" for i in range(64))
    turn = steady(process, assemble(loop(short, 32)), address)
    assert turn == pytest.approx(MEMORY + 2 * LINE / CHANNEL, rel=0.02)
    lines = "".join(f"\tld %s{20 + i}, {LINE * i}(, %s1)\n" for i in range(16))
    function = assemble(loop(lines + f"\tlea %s1, {16 * LINE}(, %s1)"))
    turn = steady(process, function, address)
    assert turn == pytest.approx(16 * (MEMORY + LINE / CHANNEL + 24) / 8, rel=0.01)


def test_partial_lines_are_completed(process: Process, assemble: Assemble) -> None:
    """Stores of whole lines read nothing; every second double reads its line first."""
    step = "\tlea %s1, 4096(, %s1)"
    address = process.alloc(2 << 20)
    whole = assemble(loop("\tvst.ot %v0, 8, %s1\n" + step))
    half = assemble(loop("\tvst.ot %v0, 16, %s1\n" + step))
    few, many = (measure(process, whole, n, address).memory_bytes for n in (10, 110))
    assert many == few
    few, many = (measure(process, half, n, address).memory_bytes for n in (10, 110))
    assert many - few == 100 * 4096


@pytest.mark.parametrize(
    "store, read",
    [
        ("vst.ot %v0, 8, %s1", 0),
        ("vst.ot %v0, -8, %s3", 0),  # whole lines, from their ends
        ("vst.ot %v0, 0, %s1", 1),  # 256 times the same 8 bytes
        ("vsc.ot %v0, %v1, 0, 0", 1),  # likewise
    ],
)
def test_whole_lines_are_those_whose_bytes_are_all_written(
    process: Process, assemble: Assemble, store: str, read: int
) -> None:
    step = "\n\tlea %s1, 2048(, %s1)\n\tlea %s3, 2040(, %s1)\n\tvbrd %v1, %s1"
    address = process.alloc(2 << 20)
    function = assemble(loop("\t" + store + step, before="\tlea %s3, 2040(, %s1)\n\tvbrd %v1, %s1"))
    few, many = (measure(process, function, n, address).memory_bytes for n in (10, 110))
    assert many - few == 100 * LINE * read


def test_mixed(process: Process, assemble: Assemble) -> None:
    """Loads three iterations ahead, 24 products: bound by the FMA pipes; with only 6, by loads."""
    address = process.alloc(8192)

    def body(products: int) -> str:
        lines = []
        for stage in range(4):
            for i in range(2):
                lines.append(f"\tvld %v{40 + 2 * ((stage + 3) % 4) + i}, 8, %s1")
            for i in range(products):
                lines.append(f"\tvfmad.d %v{i}, %v{i}, %s16, %v{40 + 2 * stage + i % 2}")
        return "\n".join(lines)

    bound = 4 * max(24 * 8 / 3, 2 * 2048 / PORT)
    time = steady(process, assemble(loop(body(24))), address)
    assert bound <= time <= 1.3 * bound
    bound = 4 * max(6 * 8 / 3, 2 * 2048 / PORT, 8 + FMA)
    assert steady(process, assemble(loop(body(6))), address) >= bound


# -- the scalar unit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body, cycles",
    [
        ("\tadds.l %s2, 1, %s2", 1 + LOOP),  # issue
        (6 * "\tadds.l %s2, 1, %s2\n", 5 * 2 + 1 + LOOP),  # a result is read two cycles later
        ("\tfadd.d %s2, %s2, %s3\n\tfadd.d %s2, %s2, %s3", 16),
        ("\tdivs.l %s2, %s2, %s3", 48),
        ("\tld %s1, 0(, %s1)\n\tld %s1, 0(, %s1)", 6 + 1 + LOOP),
        ("\tbrne.l.nt 0, %s0, 2f\n\tnop\n2:", 1 + MISPREDICTED + LOOP),
        ("\tbreq.l.nt 1, %s3, 2f\n\tnop\n2:", 2 + LOOP),
    ],
)
def test_scalar_code(process: Process, assemble: Assemble, body: str, cycles: float) -> None:
    address = process.alloc(64)
    process.write(address, struct.pack("Q", address))  # points to itself
    function = assemble(loop(body))
    assert steady(process, function, address, 10, 3) == pytest.approx(cycles)


def test_scalar_caches(process: Process, assemble: Assemble) -> None:
    """A walk over lines, each holding the next one's address: the smallest cache that holds it."""
    function = assemble(loop(4 * "\tld %s1, 0(, %s1)\n"))
    address = process.alloc(8 << 20)
    for size, cycles in ((16 << 10, 6), (128 << 10, 24), (2 << 20, 200 + 24)):
        lines = size // LINE
        data = bytearray(size)
        for i in range(lines):
            struct.pack_into("Q", data, LINE * i, address + LINE * ((i + 1) % lines))
        process.write(address, bytes(data))
        two, four = (measure(process, function, n * lines // 4, address) for n in (2, 4))
        iteration = max(4 * cycles, 3 * cycles + 1 + LOOP)
        assert 4 * (four.cycles - two.cycles) / (2 * lines) == pytest.approx(iteration, rel=0.02)


def test_prefetched_code_is_there_when_its_data_is(process: Process, assemble: Assemble) -> None:
    """64 lines of code, each a jump to the next: eight at a time are on their way. Divisions follow
    the last one, so that the time is not just that of the prefetches."""
    lines, divisions = 64, 50
    chain = "".join("\t.p2align 7\n1:\n\tbr.l.t 1f\n" for _ in range(lines))
    divide = "\tdivs.l %s4, %s4, %s5\n" * divisions
    function = assemble(f"""
	lea %s3, {LINE}(, %s12)
2:
	pfch 0(, %s3)
	lea %s3, {LINE}(, %s3)
	adds.l %s0, -1, %s0
	brne.l.t 0, %s0, 2b
	br.l.t 1f
{chain}	.p2align 7
1:
	lea %s4, 1
	lea %s5, 1
{divide}""")
    cold, end = MEMORY + LINE / CHANNEL + 24, 48 * divisions
    # of the divisions' lines too: a line of code that has to be fetched waits for all before it
    cycles = measure(process, function, lines + 8).cycles - end
    assert lines / 8 * cold <= cycles <= (lines / 8 + 3) * cold
    assert measure(process, function, 1).cycles - end >= lines * cold


# -- every instruction ----------------------------------------------------------------------------

# operand of the simulator's table -> what it means in the model's
OPERANDS = {
    **{"w": "Y", "x": "Z", "t": "W", "v": "D", "n": "M", "o": "P", "p": "P", "d": "d", "q": "d"},
    **{"Y": "y", "Q": "y", "U": "y", "W": "y", "1": "y", "2": "y"},
    **{"Z": "z", "R": "z", "z": "z", "A": "yz", "B": "z", "a": "z", "H": "z"},
}
# what the model takes for an operand beside those: registers that are read before they are written,
# and unused fields, which hold constants
MORE = {
    **dict.fromkeys((0x42, 0x43, 0x52, 0x53, 0x62, 0x56, 0x3B, 0x64, 0x74), "e"),
    **dict.fromkeys((0x8D, 0x8E, 0x9D), "E"),
    **dict.fromkeys((0xEA, 0xAA, 0xEC, 0x88, 0x89, 0x98, 0xAB, 0xAD, 0xBB), "E"),
    **dict.fromkeys((0xB4, 0xB5, 0xB6), "Z"),
    **{0x19: "y", 0x1B: "y", 0x1C: "y", 0x18: "yz", 0x3A: "y", 0x51: "z"},
}
READ_FIRST = (*range(0x11, 0x16), 0x31, 0x50)  # scalar stores
READ_FIRST_VECTOR = (*range(0x91, 0x94), *range(0xB1, 0xB4), *range(0xD1, 0xD4), 0x9E)


def test_operands_of_every_instruction(process: Process) -> None:
    """The model's table against the simulator's, which is driven by encodings."""
    found = {}
    for syntax, fixed, _ in sim.rows():
        opcode, flags = fixed >> 56, fixed >> 52 & 15
        rule = process.lib.vesim_cycle_rule(opcode)
        assert rule is not None, syntax
        used = set(rule.decode()) - {"L", "S"}
        meant = set("".join(OPERANDS.get(o, "") for o in re.findall(r"\$(.)", syntax)))
        if opcode in READ_FIRST:
            meant = meant - {"d"} | {"e"}
        if opcode in READ_FIRST_VECTOR:
            meant = meant - {"D"} | {"E"}
        if "Q" in used:
            used = used - {"Q"} | (meant & {"Y", "Z"})
        elif opcode >= 0x80 and flags & 2:
            used -= {"Y"}  # cs: a scalar register instead
        if "V" in used:
            used = used - {"V"} | (set() if flags & 1 else {"Z"})
        if opcode >= 0x80 and "y" not in meant:
            used -= {"y"}
        if not meant <= used or not used - meant <= set(MORE.get(opcode, "")):
            found[syntax] = (sorted(used), sorted(meant))
    assert found == {}


# -- reports --------------------------------------------------------------------------------------


def test_off_by_default_and_per_symbol(process: Process, tmp_path: Path) -> None:
    source = "long one(void) { return 1; }\nlong two(long n) { return n > 0 ? two(n - 1) : 2; }"
    library = process.load(compile_ve(tmp_path, "both.c", source, "-O0"))
    one, two = process.symbol(library, "one"), process.symbol(library, "two")
    lib, other = process.lib, process.open()
    for _ in range(3):
        process.call(one)
    process.call(two, 5)
    assert lib.vesim_cycles_enable(process.handle, 0) == 0
    process.call(two, 5)
    rows = {k.name: k for k in process.driver.report(process.main)}
    assert {n: k.calls for n, k in rows.items()} == {"one": 3, "two": 1}
    assert rows["two"].instructions > 5 * rows["one"].instructions / 3 > 0
    assert process.driver.report(other) == []
    text = ve.format_report(rows.values())
    assert "simulated" in text and len(text.splitlines()) == 3
    assert lib.vesim_report_clear(process.main) == 0
    assert process.driver.report(process.main) == []
    assert lib.vesim_cycles_enable(process.handle, 3) < 0


def test_the_same_in_every_run(process: Process, assemble: Assemble) -> None:
    """Neither other contexts at work nor what ran before changes a time; warm caches do."""
    address = process.alloc(1 << 20)
    function = assemble(loop(STREAM))
    contexts = [process.main, *(process.open() for _ in range(3))]
    alone = measure(process, function, 100, address)
    found: list[ve.Kernel] = []

    def work(context: int) -> None:
        with arguments(process, [100, address]) as args:
            for _ in range(3):
                request = process.lib.veo_call_async(context, function, args)
                assert process.wait(context, request)[0] == ve.OK
        found.extend(process.driver.report(context))

    process.lib.vesim_report_clear(process.main)
    threads = [threading.Thread(target=work, args=(c,)) for c in contexts]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [(k.calls, k.cycles) for k in found] == [(3, 3 * alone.cycles)] * 4
    assert process.lib.vesim_cycles_enable(process.handle, 2) == 0
    warm = [measure(process, function, 100, address) for _ in range(3)]
    assert alone.cycles > warm[0].cycles == warm[1].cycles == warm[2].cycles
    assert warm[0].memory_bytes == 0


def test_models_of_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code on each card: cycles of arithmetic are equal, seconds and bandwidth are not."""
    text = f"\t.text\n\t.globl kernel\nkernel:\n{loop(STREAM)}\n\tb.l.t (, %s10)\n"
    path = compile_ve(tmp_path, "kernel.s", text)
    rates = {}
    for model, cores, ghz, card in (
        ("VE10", 8, 1.4, 1220),
        ("VE20B", 8, 1.6, 1530),
        ("VE30", 16, 1.6, 2450),
    ):
        monkeypatch.setenv("SOL_VE_MODEL", model)
        p = Process()
        assert p.lib.vesim_cycles_enable(p.handle, 1) == 0
        function, address = p.symbol(p.load(path), "kernel"), p.alloc(4 << 20)
        assert p.lib.vesim_cycles_share(p.handle, cores) == 0
        few, many = (measure(p, function, n, address) for n in (100, 400))
        assert many.seconds == pytest.approx(many.cycles / (ghz * 1e9))
        rates[model] = 300 * 8192 / (many.seconds - few.seconds) / 1e9
        assert rates[model] == pytest.approx(SUSTAINED * card / cores, rel=0.01)
        p.destroy()
    assert rates["VE10"] < rates["VE30"] < rates["VE20B"]


# -- cores together -------------------------------------------------------------------------------

BARRIER = """
typedef unsigned long u64;
struct barrier { u64 count, generation; };
static void wait(struct barrier *b, u64 cores) {
  const u64 generation = __atomic_load_n(&b->generation, __ATOMIC_ACQUIRE);
  if (__atomic_fetch_add(&b->count, 1, __ATOMIC_ACQ_REL) + 1 == cores) {
    b->count = 0;
    __atomic_store_n(&b->generation, generation + 1, __ATOMIC_RELEASE);
  } else {
    while (__atomic_load_n(&b->generation, __ATOMIC_ACQUIRE) == generation) {}
  }
}
u64 together(struct barrier *b, u64 cores, u64 me, u64 phases, double *x) {
  for (u64 p = 0; p < phases; ++p) {
    for (u64 i = 0; i < (me == p % cores ? 4000 : 100 * me); ++i) *x = *x * 1.5 + 1;
    wait(b, cores);
  }
  return phases;
}
"""


def test_barriers_between_cores(process: Process, tmp_path: Path) -> None:
    """Each phase lasts as long as its slowest core, in every run, whoever the host ran first."""
    together = process.symbol(process.load(compile_ve(tmp_path, "b.c", BARRIER, "-O2")), "together")
    contexts = [process.main, *(process.open() for _ in range(3))]
    barrier = process.alloc(256)
    barrier += -barrier % 128  # counter and generation lie in one line
    own = process.alloc(4 * 128)

    def run(phases: int, cores: int = 4) -> list[int]:
        process.write(barrier, bytes(16))
        requests = []
        order = list(range(cores))
        random.shuffle(order)
        for c in order:
            process.lib.vesim_report_clear(contexts[c])
            requests.append(
                (c, process.start(contexts[c], together, barrier, cores, c, phases, own + 128 * c))
            )
        for c, request in requests:
            assert process.wait(contexts[c], request) == (ve.OK, phases)
        return [process.driver.report(contexts[c])[0].cycles for c in range(cores)]

    run(1)  # until an atomic instruction is seen there, a line is not known to be a barrier's
    first = run(4)
    assert [run(4) for _ in range(10)] == [first] * 10
    assert max(first) == min(first)  # they leave the last barrier together
    reports = [process.driver.report(c) for c in contexts]
    (all_cores,) = ve.together(reports)
    assert all_cores.cycles == first[0] and all_cores.calls == 1
    assert all_cores.flop_f64 == sum(r[0].flop_f64 for r in reports) > 4 * 2 * 4000
    flop = all_cores.flop_f64 / (4 * 192 * all_cores.cycles)
    assert all_cores.peak_f64 == pytest.approx(flop)
    eight = run(8)
    phase = (eight[0] - first[0]) / 4
    alone = [run(p, 1)[0] for p in (4, 8)]
    work = 4000 * (8 + 8)  # the slowest core's product and sum
    assert work + BARRIER_CYCLES <= phase < work + 2 * BARRIER_CYCLES
    assert phase == pytest.approx((alone[1] - alone[0]) / 4, rel=0.01)

"""The simulator's core: memory, registers, traps, trace, its own library functions.

Instructions' results are held against an independent model elsewhere (test_mnemonics, test_fuzz),
compiled C against the host (test_sim_programs), files in test_sim_loader.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import ve_object

from sol_dynamo.ve import sim

PAGE = 4096


def word(text: str) -> int:
    """An instruction from assembly, by LLVM's assembler."""
    return words(text)[0]


def words(text: str) -> list[int]:
    data = ve_object("".join(f"{line}\n" for line in text.split(";")), suffix=".s")
    sections = struct.unpack_from("<Q", data, 40)[0]
    for n in range(struct.unpack_from("<H", data, 60)[0]):
        header = struct.unpack_from("<IIQQQQ", data, sections + 64 * n)
        if header[1] == 1 and header[2] & 4:  # PROGBITS, executable
            return list(struct.unpack_from(f"<{header[5] // 8}Q", data, header[4]))
    raise AssertionError("no code")


@pytest.fixture
def machine() -> sim.Machine:
    return sim.Machine()


# --- memory ---------------------------------------------------------------------------------------


def test_memory_is_zeroed_reused_and_accounted(machine: sim.Machine) -> None:
    before = machine.memory_used
    a = machine.allocate(3 * PAGE + 1)
    assert machine.memory_used == before + 4 * PAGE
    assert a >= 0x600000000000 and a % 64 == 0
    assert machine.read(a, 100) == bytes(100)
    machine.write(a + 1, b"x" * 3 * PAGE)
    assert machine.read(a, 3 * PAGE + 1) == b"\0" + b"x" * 3 * PAGE
    machine.release(a)
    assert machine.memory_used == before
    b = machine.allocate(3 * PAGE + 1)
    assert b == a and machine.read(b, 3 * PAGE + 1) == bytes(3 * PAGE + 1)
    for wrong in (b + 64, 0, 1 << 63):
        with pytest.raises(ValueError, match="not the address"):
            machine.release(wrong)
    machine.release(b)
    with pytest.raises(ValueError, match="not the address"):
        machine.release(b)


def test_memory_between_allocations_is_not_mapped(machine: sim.Machine) -> None:
    blocks = [machine.allocate(n, align) for n in (1, PAGE, 70000) for align in (8, 1 << 16)]
    for block, size in zip(blocks, (1, 1, PAGE, PAGE, 70000, 70000), strict=True):
        end = (block + size + PAGE - 1) // PAGE * PAGE
        machine.write(end - 8, bytes(8))
        for bad, n in ((end, 1), (end - 4, 8), (block - 1, 1)):
            with pytest.raises(ValueError, match="not mapped"):
                machine.read(bad, n)
            with pytest.raises(ValueError, match="not mapped"):
                machine.write(bad, bytes(n))
    assert all(b % (1 << 16) == 0 for b in blocks[1::2])


def test_holes_are_joined_and_exhaustion_is_an_error() -> None:
    machine = sim.Machine(memory=64 << 20, stack=1 << 20)
    most = 48 << 20
    blocks = [machine.allocate(4 << 20) for _ in range(12)]
    with pytest.raises(MemoryError, match="no"):
        machine.allocate(most)
    for block in blocks[::2] + blocks[1::2]:
        machine.release(block)
    machine.release(machine.allocate(most))
    with pytest.raises(MemoryError):
        machine.allocate(1 << 62)
    with pytest.raises(MemoryError):
        machine.allocate((1 << 64) - 1)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mappings")
def test_ve_addresses_are_not_host_addresses(machine: sim.Machine) -> None:
    address = machine.allocate(1 << 20)
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(x, 16) for x in line.split()[0].split("-"))
        assert not low <= address < high


def test_machines_are_apart(machine: sim.Machine) -> None:
    other = sim.Machine()
    a, b = machine.allocate(64), other.allocate(64)
    machine.write(a, b"one")
    other.write(b, b"two")
    assert machine.read(a, 3) == b"one" and other.read(b, 3) == b"two"
    other.core.s[1] = 5
    assert machine.core.s[1] == 0


# --- registers ------------------------------------------------------------------------------------


def test_registers_are_live(machine: sim.Machine) -> None:
    core = machine.core
    assert core.s.shape == (64,) and core.v.shape == (64, 256) and core.vm.shape == (16, 4)
    assert (core.vm[0] == 2**64 - 1).all()
    core.s[1], core.s[2] = 40, 2
    core.execute([word("addu.l %s3, %s1, %s2")])
    assert core.s[3] == 42
    core.vl = 3
    core.v[1, :4] = [1, 2, 3, 4]
    core.execute([word("vaddu.l %v2, %s2, %v1")])
    assert core.v[2, :4].tolist() == [3, 4, 5, 0]
    with pytest.raises(ValueError, match="0 to 256"):
        core.vl = 257
    with pytest.raises(ValueError, match="no vector register"):
        core.vix = 64


def test_views_outlive_the_machine() -> None:
    core = sim.Machine().core
    v = core.v
    del core
    v[63] = 7
    assert v.sum() == 7 * 256


def test_vix_names_a_register(machine: sim.Machine) -> None:
    core = machine.core
    core.vl, core.v[9] = 256, 11
    core.execute(words("lvix 9; vaddu.l %v1, 1, %vix"))
    assert core.vix == 9 and (core.v[1] == 12).all()


def test_every_row_of_the_table_is_reached() -> None:
    """No row is hidden behind another one, and text tells rows apart."""
    seen = set()
    for syntax, fixed, mask in sim.rows():
        registers = 0x8080 << 32 if "$j" in syntax else 0
        text = sim.disassemble(fixed & mask | registers & ~mask)
        name = syntax.split()[0]
        if name == "fencec":  # of kind 0 it is the word of `fencem 0`
            text = sim.disassemble(fixed | 1 << 40)
        if "$c" in name or "$e" in name:  # condition 0 has a row of its own: take another
            place = 48 if "$c" in name else 16
            text = sim.disassemble(fixed & mask | 3 << place)
        assert text, syntax
        seen.add((text.split()[0], fixed & mask))
    assert len(seen) == len(sim.rows())


def test_code_is_decoded_again_when_it_changes(machine: sim.Machine) -> None:
    core = machine.core
    for n in range(5):  # always at the same address
        core.execute([word("lea %s1, 1(, %s1)"), word(f"lea %s2, {n}")])
        assert core.s[1] == n + 1 and core.s[2] == n


def test_rounding_mode_and_denormals(machine: sim.Machine) -> None:
    """`lpm` sets the rounding; the host's own modes neither enter nor change."""
    import torch

    core, third = machine.core, {}
    one, three = (struct.unpack("<Q", struct.pack("<d", x))[0] for x in (1.0, 3.0))
    for mode, name in enumerate(("zero", "up", "down", "nearest")):
        core.s[1], core.s[2], core.s[4] = one, three, mode << 12
        core.execute(words("lpm %s4; fdiv.d %s3, %s1, %s2; spm %s5"))
        assert core.s[5] == mode << 12
        third[name] = int(core.s[3])
        assert 1.0 / 3.0 == 0.3333333333333333
    assert (
        third["up"] == third["zero"] + 1 == third["down"] + 1 and third["nearest"] in third.values()
    )
    core.execute(words("or %s4, 3, (0)1; sll %s4, %s4, 12; lpm %s4"))
    torch.set_flush_denormal(True)
    try:
        core.vl, core.v[1], core.s[1] = 256, 1, 1  # the least denormal
        core.execute(words("vfadd.d %v2, %v1, %v1; fadd.d %s2, %s1, %s1"))
    finally:
        torch.set_flush_denormal(False)
    assert (core.v[2] == 2).all() and core.s[2] == 2


# --- traps ----------------------------------------------------------------------------------------

TRAPS = [
    ("ld %s1, (, %s2)", "MemoryAccess", "address 0x1000 is not mapped", {2: 0x1000}),
    ("st %s1, -8(%s3, %s2)", "MemoryAccess", "is not mapped", {2: (1 << 64) - 8, 3: 8}),
    ("vld %v0, 8, %s2", "MemoryAccess", "not mapped; VE memory is 0x600000000000-", {2: 64}),
    ("vldu %v0, %s3, %s2", "MemoryAccess", "not mapped", {2: "data", 3: 1 << 40}),
    ("vld %v0, %s3, %s2", "MemoryAccess", "not mapped", {2: "data", 3: 1 << 57}),  # wraps around
    ("vst %v0, 8, %s2", "MemoryAccess", "not mapped", {2: "end"}),
    ("vst %v0, -8, %s2", "MemoryAccess", "not mapped", {2: "data"}),
    ("vld %v0, 8, %s2", "Alignment", "is not a multiple of 8", {2: "odd"}),
    ("vldu %v0, 6, %s2", "Alignment", "is not a multiple of 4", {2: "data"}),
    ("vgt %v0, %v1, 0, 0", "MemoryAccess", "address 0x0 is not mapped", {}),
    ("vscl %v0, %v2, 0, 0", "Alignment", "address 0x3 is not a multiple of 4", {}),
    ("st %s1, (, %s2)", "MemoryAccess", "is read-only", {2: "code"}),
    ("vstu %v0, 4, %s2", "MemoryAccess", "is read-only", {2: "code"}),
    ("ts1am.w %s1, (%s2), 15", "Alignment", "is not a multiple of 4", {2: "odd"}),
    ("lhm.l %s1, (%s2)", "MemoryAccess", "host's memory", {2: "data"}),
    ("b.l.t (, %s2)", "MemoryAccess", "no code is there", {2: "data"}),
    ("b.l.t 4(, %s2)", "Alignment", "multiples of 8", {2: "code"}),
    ("divs.w.sx %s1, 3, %s2", "DivideByZero", "integer division by zero", {2: 1 << 32}),
    ("divu.l %s1, 3, %s2", "DivideByZero", "divu.l %s1, 3, %s2", {}),
    ("vdivs.l %v0, %v0, %v1", "DivideByZero", "the divisor of element 0 is 0", {}),
    ("lvl %s2", "IllegalInstruction", "vector length 257 is more than 256", {2: 257}),
    ("lvl -1", "IllegalInstruction", "is more than 256", {}),
    ("lvix %s2", "IllegalInstruction", "no vector register 64", {2: 64}),
    ("lvs %s1, %v0(%s2)", "IllegalInstruction", "no element 256", {2: 256}),
    ("lvm %vm1, %s2, %s2", "IllegalInstruction", "no word of a mask register 4", {2: 4}),
    ("atmam %s1, (%s2), %s3", "IllegalInstruction", "operations 0, 1 and 2, not 7",
     {2: "data", 3: 7}),
    ("ts2am %s1, (%s2), 1", "UnimplementedInstruction", "not published", {2: "data"}),
    ("smir %s1, %pmc3", "UnimplementedInstruction", "not modelled", {}),
    ("monc", "SystemCall", "no operating system", {}),
    ("monc.hdb", "SystemCall", "breakpoint", {}),
    ("lcr %s1, %s2, 0", "MemoryAccess", "no communication register 32", {2: 32}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "message", "registers"), TRAPS, ids=[t[0] for t in TRAPS])
def test_trap(
    text: str, kind: str, message: str, registers: dict[int, int | str], machine: sim.Machine
) -> None:
    core = machine.core
    data = machine.allocate(PAGE)
    core.execute(words("sic %s1"))
    code = int(core.s[1]) - 8
    places = {"data": data, "end": data + PAGE - 64, "odd": data + 4 * 9 + 2, "code": code}
    core.s[1] = 0
    core.vl, core.v[0], core.v[1], core.v[2] = 256, 5, 0, 3
    for register, value in registers.items():
        core.s[register] = places[value] if isinstance(value, str) else value
    before = core.v.copy()
    with pytest.raises(sim.Fault) as caught:
        core.execute([word("lea %s7, 1"), word(text), word("lea %s7, 2")])
    fault = caught.value
    assert fault.kind == kind and message in str(fault), str(fault)
    if not text.startswith("b."):
        assert fault.ic == code + 8 and f"0x{code + 8:x}" in str(fault)
        assert fault.word == word(text) and sim.disassemble(fault.word) in str(fault)
    assert core.s[7] == 1 and (core.v == before).all()
    core.execute([word("lea %s7, 3")])  # the machine goes on
    assert core.s[7] == 3


@pytest.mark.parametrize("bad", [0, 1, 0x00FF << 48, 0x07 << 56, 0x79 << 56 | 1, 2**64 - 1])
def test_illegal_words(bad: int, machine: sim.Machine) -> None:
    assert sim.disassemble(bad) == ""
    with pytest.raises(sim.Fault, match="is no instruction of a user's program") as caught:
        machine.core.execute([bad])
    assert caught.value.kind == "IllegalInstruction" and caught.value.word == bad


def test_masked_out_elements_do_not_trap(machine: sim.Machine) -> None:
    core = machine.core
    data = machine.allocate(PAGE)
    core.vl, core.s[2], core.v[0], core.v[1] = 256, data + PAGE - 64, 9, 0
    core.vm[2] = [0xFF << 56, 0, 0, 0]  # the first 8 elements
    core.execute([word("vst %v0, 8, %s2, %vm2")])
    assert machine.read(data + PAGE - 64, 64) == struct.pack("<8Q", *[9] * 8)
    core.v[1, :8] = data
    core.execute([word("vgt %v3, %v1, 0, 0, %vm2"), word("vdivs.l %v4, %v0, %v0, %vm2")])
    assert core.v[3, 8:].sum() == 0
    core.v[5, :8] = 3
    core.execute([word("vdivs.l %v4, %v0, %v5, %vm2")])  # zeros elsewhere are no matter
    assert core.v[4, :9].tolist() == [3] * 8 + [0]
    core.vl, core.s[2] = 0, 0
    core.execute([word("vld %v0, 8, %s2"), word("vst %v0, 8, %s2")])  # no element, no access


PROGRAM = """
int deep(int n){volatile char b[4096];b[0]=(char)n;return n==0?b[0]:deep(n-1)+b[0];}
int big(long n){volatile char b[n];b[0]=1;b[n-1]=2;return b[0]+b[n-1];}
int forever(void){volatile int x=1;while(x);return 0;}
int wild(int*p,long i){return p[i];}
void trap(void){__builtin_trap();}
void stop(void){void abort(void);abort();}
int quotient(int a,int b){return a/b;}
long counter;
"""


def test_traps_of_functions(machine: sim.Machine) -> None:
    library = machine.load_bytes(ve_object(PROGRAM, "-O1", "-fPIC"), "program.o")
    core, data = machine.core, machine.allocate(64)
    assert library.call("deep", 100) == 5050

    def fault(function: str, *arguments: int) -> sim.Fault:
        with pytest.raises(sim.Fault) as caught:
            library.call(function, *arguments)
        assert f" in {function}+0x" in str(caught.value)
        return caught.value

    assert fault("deep", 10**6).kind == "StackOverflow"
    assert library.call("big", 1 << 20) == 3
    with pytest.raises(sim.Fault, match=r"array of \d+ bytes does not fit on the stack"):
        library.call("big", 1 << 30)
    wild = fault("wild", data, 1 << 30)
    assert wild.kind == "MemoryAccess" and wild.address == data + (1 << 32)
    assert library.call("wild", data, 3) == 0
    assert fault("quotient", 1, 0).kind == "DivideByZero"
    assert fault("trap").kind == "HostFunction"  # clang calls abort
    with pytest.raises(sim.Fault, match="the program called abort"):
        library.call("stop")
    core.step_limit = 5000
    runaway = fault("forever")
    assert runaway.kind == "StepLimit"
    core.step_limit = 0
    started = core.executed
    timer = threading.Thread(target=lambda: (time.sleep(0.05), machine.interrupt()))
    timer.start()
    assert fault("forever").kind == "Interrupted" and core.executed > started
    timer.join()
    assert library.call("deep", 10) == 55


@pytest.mark.parametrize("target", [0, 1, 8, 0x10000, 2**63, 2**64 - 8, 2**64 - 1, 2**64 - 4089])
def test_calls_of_wild_addresses(target: int, machine: sim.Machine) -> None:
    """From outside and from code, which is named then."""
    library = machine.load_bytes(ve_object("int jump(int(*f)(void)){return f()+1;}", "-O1"))
    kind = "Alignment" if target % 8 else "MemoryAccess"
    for call, place in (((target,), False), ((library.symbol("jump"), target), True)):
        with pytest.raises(sim.Fault) as caught:
            machine.call(*call)
        assert caught.value.kind == kind and caught.value.ic == target
        assert (" reached from jump+0x" in str(caught.value)) == place


def test_memory_of_the_simulator_is_nobodys_to_free(machine: sim.Machine) -> None:
    """Neither the host nor a program's free() gives back code, stacks or what lies behind s14."""
    library = machine.load_bytes(ve_object("void free(void*); void f(void*p){free(p);}", "-O1"))
    core, code = machine.core, library.symbol("f") // PAGE * PAGE
    library.call("f", 0)
    own = [code, int(core.s[8]), int(core.s[14]) - PAGE, int(core.s[10])]
    for address in own:
        with pytest.raises(ValueError, match="is not the address of an allocation"):
            machine.release(address)
        with pytest.raises(sim.Fault, match="malloc did not return"):
            library.call("f", address)
    block = machine.allocate(8)
    library.call("f", block)
    with pytest.raises(sim.Fault, match="malloc did not return"):
        library.call("f", block)
    library.call("f", 0)


def test_registers_set_out_of_range(machine: sim.Machine) -> None:
    """By a C program, which has them as they are: nothing beyond the registers is touched."""
    native, handle = sim._native(), machine._handle
    for state, wrong in ((0, 257), (0, 2**63), (1, 64), (1, 255)):
        value = ctypes.c_uint64.from_address(native.vesim_state(handle, state))
        value.value = wrong
        with pytest.raises(sim.Fault, match=f"was set to {wrong}, more than"):
            machine.core.execute([word("vbrd %vix, 1")])
        value.value = 3
    machine.core.execute([word("vbrd %vix, 1")])
    assert machine.core.v[3, :4].tolist() == [1, 1, 1, 0]


def test_control_c_ends_a_call(machine: sim.Machine) -> None:
    library = machine.load_bytes(ve_object(PROGRAM, "-O1", "-fPIC"))
    library.call("deep", 1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            library.call("forever")
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert library.call("deep", 10) == 55


def test_a_run_in_slices_is_the_same_run(machine: sim.Machine) -> None:
    """Rounding, limits and results do not depend on where a run was paused."""
    library = machine.load_bytes(
        ve_object("double f(int n){double s=0;for(int i=1;i<n;i++)s+=1.0/i;return s;}", "-O1")
    )
    core, slice_ = machine.core, ctypes.c_uint64.from_address(
        sim._native().vesim_state(machine._handle, 6)
    )  # fmt: skip
    core.psw = 0x1000  # up
    results = set()
    for n in (0, 7, 100):
        slice_.value = n
        executed = core.executed
        results.add((library.call("f", 300), core.executed - executed))
    assert len(results) == 1
    core.psw = 0x3000
    assert library.call("f", 300) != next(iter(results))[0]
    core.step_limit = 1000
    executed = core.executed
    with pytest.raises(sim.Fault) as caught:
        library.call("f", 300)
    assert caught.value.kind == "StepLimit" and core.executed == executed + 1000


def test_arguments_of_numpy(machine: sim.Machine) -> None:
    library = machine.load_bytes(ve_object("float f(float a,int b){return a*b;}", "-O1"))

    def f(a: Any, b: Any = 2) -> float:
        return float(np.uint64(library.call("f", a, b) >> 32).astype(np.uint32).view(np.float32))

    assert f(np.float32(2.5)) == f(sim.f32(2.5)) == 5 and f(np.float32(1), np.int16(-3)) == -3
    assert f(sim.f32(1e39)) == np.inf and f(np.float32(3), np.bool_(True)) == 3
    for wrong in (np.float16(1), "2", None):
        with pytest.raises(TypeError):
            f(wrong)


def test_stack_guard_below_a_frame(machine: sim.Machine) -> None:
    """Code without the prologue's check finds the guard."""
    with pytest.raises(sim.Fault, match="lies below the stack") as caught:
        core = machine.core
        library = machine.load_bytes(ve_object(PROGRAM, "-O1", "-fPIC"))
        library.call("deep", 1)
        core.s[11] = core.s[8]  # s8: the lowest address of the stack
        core.execute([word("st %s1, -8(, %s11)")])
    assert caught.value.kind == "StackOverflow"


def test_arguments_by_the_abi(machine: sim.Machine) -> None:
    source = (
        "double f(float a,double b,long c,int d,float e,float g,float h,float i,float j,long k)"
        "{return a+2*b+3*c+4*d+5*e+6*g+7*h+8*i+9*j+10*k;}"
    )
    library = machine.load_bytes(ve_object(source, "-O2"))
    f32 = sim.f32
    s0 = library.call("f", f32(1), 2.0, 3, -4, f32(5), f32(6), f32(7), f32(8), f32(9), -10)
    value = struct.unpack("<d", s0.to_bytes(8, "little"))[0]
    assert value == 1 + 4 + 9 - 16 + 25 + 36 + 49 + 64 + 81 - 100
    with pytest.raises(sim.Fault, match="stack is too small"):
        library.call("f", *[0] * (2 << 20))


# --- what the architecture leaves open ------------------------------------------------------------


def test_perturbation_stays_within_bounds(machine: sim.Machine) -> None:
    core, rng = machine.core, np.random.default_rng(0)
    x = rng.uniform(0.5, 4, 256)
    code = words("vrcp.d %v1, %v0; vrsqrt.d %v2, %v0; vfsum.d %v3, %v0; pvrcp %v5, %v4")
    core.vl, core.v[0] = 256, x.view(np.uint64)
    floats = x.repeat(2).astype(np.float32)
    core.v[4] = floats.view(np.uint64)
    outcomes = []
    for seed in (0, 0, 1, 1, 2):
        core.perturb = 0
        core.perturb = seed
        core.execute([word("nop")])
        core.execute(code)
        rcp, rsqrt = core.v[1].view(float), core.v[2].view(float)
        assert np.abs(rcp * x - 1).max() <= 2.0**-14
        assert np.abs(rsqrt * np.sqrt(x) - 1).max() <= 2.0**-14
        packed = core.v[5].view(np.float32).astype(float)
        assert np.abs(packed * floats - 1).max() <= 2.0**-14 * 1.001
        total = core.v[3].view(float)[0]
        assert abs(total - math.fsum(x)) <= 255 * 2.0**-53 * math.fsum(x)
        outcomes.append(core.v[[1, 2, 5]].tobytes() + core.v[3, :1].tobytes())
    assert outcomes[0] == outcomes[1] and len(set(outcomes)) >= 3


# --- library functions ----------------------------------------------------------------------------

LIBRARY = """
typedef unsigned long size_t; void*memcpy(void*,const void*,size_t);void*memset(void*,int,size_t);
void*memmove(void*,const void*,size_t);int memcmp(const void*,const void*,size_t);
size_t strlen(const char*);void*malloc(size_t);void free(void*);void*calloc(size_t,size_t);
double exp(double),pow(double,double),fma(double,double,double),ldexp(double,int);
float tanhf(float),fmodf(float,float);long lround(double);int ilogb(double);
float __extendhfsf2(unsigned short);unsigned short __truncsfhf2(float);
unsigned short __truncdfhf2(double);
long blocks(char*p){memset(p,7,100);memcpy(p+200,p,50);memmove(p+1,p,20);p[3]=9;
return (memcmp(p,p+200,50)>0)+1000*strlen(p+190)+2*(memcpy(p,p+1,0)==p);}
long heap(long n){long*p=malloc(8*n),*q=calloc(n,8);for(long i=0;i<n;i++)p[i]=i+q[i];long s=0;
for(long i=0;i<n;i++)s+=p[i];free(p);free(q);free(0);return s;}
void twice(char*p){free(p);free(p);}
double one(double x){return exp(x);} double two(double x,double y){return pow(x,y);}
double three(double x,double y,double z){return fma(x,y,z);} double scale(double x,int n){
return ldexp(x,n);} float flat(float x){return tanhf(x);} float rest(float x,float y){return
fmodf(x,y);} long rounded(double x){return lround(x);} int expo(double x){return ilogb(x);}
float from_half(unsigned short h){return __extendhfsf2(h);}
unsigned short to_half(float f){return __truncsfhf2(f);}
unsigned short to_half_d(double f){return __truncdfhf2(f);}
"""


def test_library_functions(machine: sim.Machine) -> None:
    library = machine.load_bytes(ve_object(LIBRARY, "-O1"), "library.o")

    def double(s0: int) -> float:
        return struct.unpack("<d", s0.to_bytes(8, "little"))[0]

    def single(s0: int) -> float:
        return struct.unpack("<f", (s0 >> 32).to_bytes(4, "little"))[0]

    buffer = machine.allocate(512)
    machine.write(buffer + 190, b"abcdefghij")
    assert library.call("blocks", buffer) == 60003
    with pytest.raises(
        sim.Fault, match=r"memset\+0x0, called in blocks\+0x.* address .* not mapped"
    ):
        library.call("blocks", buffer + PAGE - 50)
    assert library.call("heap", 1000) == 499500
    with pytest.raises(sim.Fault, match="free of an address"):
        library.call("twice", machine.allocate(16))
    for x in (0.5, -3.25, 710.0, math.inf):
        assert double(library.call("one", x)) == (math.exp(x) if x < 709 else math.inf)
    assert double(library.call("two", 2.0, 0.5)) == math.sqrt(2.0)
    assert double(library.call("three", 1e308, 10.0, -math.inf)) == -math.inf
    assert double(library.call("scale", 1.5, -1074)) == 1e-323
    assert abs(single(library.call("flat", sim.f32(0.5))) - math.tanh(0.5)) < 1e-7
    assert single(library.call("rest", sim.f32(7.5), sim.f32(-2))) == 1.5
    assert library.call("rounded", 2.5) == 3 and library.call("expo", 1024.0) == 10
    halves = np.arange(1 << 16, dtype=np.uint16)[::97]
    for h in halves:
        f = single(library.call("from_half", int(h)))
        expected = float(h.view(np.float16))
        assert f == expected or (math.isnan(f) and math.isnan(expected))
    rng = np.random.default_rng(3)
    numbers = np.concatenate(
        [rng.standard_normal(100) * 10.0 ** rng.uniform(-9, 6, 100), [0.0, -0.0, 65519.9, 65520.0],
         [6e-8, 2.9e-8, 2.0**-24, 2.0**-25, 1.0009765625 * 2.0**-14, math.inf, -math.inf]]
    )  # fmt: skip
    with np.errstate(over="ignore"):
        for x in numbers:
            got = library.call("to_half", sim.f32(np.float32(x))) & 0xFFFF
            assert got == int(np.float32(x).astype(np.float16).view(np.uint16)), x
            got = library.call("to_half_d", float(x)) & 0xFFFF
            assert got == int(np.float64(x).astype(np.float16).view(np.uint16)), x


# --- trace ----------------------------------------------------------------------------------------


def test_trace(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    machine = sim.Machine(trace=file)
    library = machine.load_bytes(
        ve_object("double exp(double);int f(int a){return a+(int)exp(0.0);}", "-O1")
    )
    assert library.call("f", 5) == 6
    lines = file.read_text().splitlines()
    assert len(lines) == machine.core.executed + 1  # and a line for the library's function
    assert any("f+0x0" in line and "st %s9" in line and "s11=0x" in line for line in lines)
    assert any(line.split()[1] == "exp" for line in lines)
    with pytest.raises(OSError, match="cannot write the trace"):
        sim.Machine(trace=tmp_path / "no" / "file")


def test_trace_by_the_environment(tmp_path: Path) -> None:
    code = "from sol_dynamo.ve import sim; sim.Machine().core.execute([0x79 << 56] * 3)"
    environment = {**os.environ, "SOL_VE_TRACE": str(tmp_path / "trace")}
    root = str(Path(sim.__file__).parents[3])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    lines = (tmp_path / "trace").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["nop"] * 3
    environment["SOL_VE_TRACE"] = str(tmp_path / "nowhere" / "trace")
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, env=environment)
    assert done.returncode == 0 and b"SOL_VE_TRACE: cannot write" in done.stderr

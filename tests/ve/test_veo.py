"""The driver's C interface on the simulator: what AVEO's documentation and header promise, from
Python through ctypes, and from a C program linked with the library.

One file, since all of it is one interface on the same processes and kernels."""

from __future__ import annotations

import ctypes
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from ctypes import byref, c_char, c_double, c_int64, c_uint64
from pathlib import Path
from typing import Any

import pytest
from offload import Process, arguments, compile_ve

import sol_dynamo
from sol_dynamo.ve import driver as ve

pytestmark = pytest.mark.ve
CSRC = Path(sol_dynamo.__file__).parent / "ve" / "sim" / "csrc"

KERNELS = """
typedef unsigned long u64;
static u64 stored;
static int initial = 1234567;
u64 keep(u64 x) { return stored = x; }
u64 kept(void) { return stored; }
int next(void) { return initial++; }
long add(long a, long b) { return a + b; }
float scale(float f, double d) { return f * (float)d; }
u64 sum_bytes(const unsigned char *p, u64 n) { u64 s = 0; while (n--) s += *p++; return s; }
u64 increment(u64 *p) { return (*p)++; }
u64 fill(char *p, u64 n, int c) { for (u64 i = 0; i < n; ++i) p[i] = (char)c; return n; }
struct in { long n; double values[5]; char tail; };
u64 square_all(const struct in *in, double *out, long *both) {
  for (long i = 0; i < in->n; ++i) out[i] = in->values[i] * in->values[i];
  *both += in->n;
  return 0;
}
void weigh(signed char a, unsigned char b, short c, unsigned short d, int e, unsigned f, long g,
           u64 h, float i, double j, int k, float l, signed char m, u64 n, double o, double *out) {
  double values[] = {a, b, c, d, e, f, g, (double)h, i, j, k, l, m, (double)n, o};
  for (int x = 0; x < 15; ++x) out[x] = values[x];
}
u64 spin(volatile u64 *p) { while (!*p) {} return *p; }
u64 forever(void) { volatile int x = 1; while (x) {} return 0; }
u64 wild(const u64 *p) { return *p; }
__attribute__((optnone)) u64 deep(u64 n) {
  volatile char frame[4096];
  frame[0] = 1;
  return n ? deep(n - 1) + frame[0] : 0;
}
u64 distance(const char *a, const char *b) { return (u64)(b - a) + (u64)a % 8 * 1000000; }
"""


@pytest.fixture(scope="module", autouse=True)
def simulator() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOL_VE_DRIVER", "sim")
        for name in ("SOL_VE_CARDS", "SOL_VE_MODEL", "VE_NODE_NUMBER", "_VENODELIST"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_ve(tmp_path_factory.mktemp("ve"), "kernels.c", KERNELS, "-O1")


@pytest.fixture
def process() -> Iterator[Process]:
    p = Process()
    yield p
    if p.handle:
        p.destroy()


@pytest.fixture
def library(process: Process, kernels: Path) -> int:
    return process.load(kernels)


# -- a C program ----------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", ["g++", "zig"])
def test_c_program(compiler: str, kernels: Path, tmp_path: Path) -> None:
    if compiler == "g++" and shutil.which("g++") is None:
        pytest.skip("no g++")
    command = ["g++"] if compiler == "g++" else [sys.executable, "-m", "ziglang", "cc"]
    library = Path(ve.open_driver().path)
    program = tmp_path / "seam"
    source = Path(__file__).with_name("seam.c")
    flags = ["-Wall", "-Wextra", f"-I{CSRC}", "-x", "c", str(source), "-x", "none"]
    if compiler == "g++":  # as C++, as NEC's examples may be built, too
        flags[4] = "c++"
    link = ["-o", str(program), str(library), f"-Wl,-rpath,{library.parent}", "-lpthread"]
    done = subprocess.run([*command, *flags, *link], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([str(program), str(kernels)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "all well\n"), done.stderr


def test_every_function_of_the_header_is_there() -> None:
    declared = set()
    for line in (CSRC / "veo.h").read_text().splitlines():
        head = line.split("(")[0].split()
        if "(" in line and head and not line.startswith((" ", "#", "/")):
            declared.add(head[-1].lstrip("*"))
    assert len(declared) > 70
    lib = ve.open_driver().lib
    assert [n for n in sorted(declared) if not hasattr(lib, n)] == []
    assert set(ve.PROTOTYPES) | set(ve.SIMULATOR_PROTOTYPES) <= declared


# -- arguments ------------------------------------------------------------------------------------


def test_arguments_of_all_types(process: Process, library: int) -> None:
    """In registers and on the stack: integers are extended as their type says, floats are upper."""
    weigh = process.symbol(library, "weigh")
    for seed in range(20):
        r = random.Random(seed)
        single = struct.unpack("f", struct.pack("f", r.uniform(-1e30, 1e30)))[0]
        values: list[tuple[str, Any]] = [
            ("i8", r.randrange(-128, 128)),
            ("u8", r.randrange(256)),
            ("i16", r.randrange(-(2**15), 2**15)),
            ("u16", r.randrange(2**16)),
            ("i32", r.randrange(-(2**31), 2**31)),
            ("u32", r.randrange(2**32)),
            ("i64", r.randrange(-(2**53), 2**53)),
            ("u64", r.randrange(2**53)),
            ("float", single),
            ("double", r.uniform(-1e300, 1e300)),
            ("i32", r.randrange(-(2**31), 2**31)),
            ("float", -single),
            ("i8", r.randrange(-128, 128)),
            ("u64", r.randrange(2**53)),
            ("double", -0.0),
        ]
        out = (c_double * 15)()
        process.call(weigh, *values, (ve.OUT, out))
        assert list(out) == [float(v) for _, v in values]


def test_stack_arguments(process: Process, library: int) -> None:
    add, square = (process.symbol(library, n) for n in ("add", "square_all"))
    data = (c_double * 7)(*[0] * 7)
    struct.pack_into("q5d", data, 0, 5, 1.5, -2, 3, 0.5, 9)
    out, both = (c_double * 5)(*[7] * 5), c_int64(10)
    process.call(square, (ve.IN, data), (ve.OUT, out), (ve.INOUT, both))
    assert list(out) == [2.25, 4, 9, 0.25, 81] and both.value == 15
    # IN is taken when the call is requested, and not written back
    context = process.open()
    gate = process.alloc(8)
    spinning = process.start(context, process.symbol(library, "spin"), gate)
    request = process.start(context, square, (ve.IN, data), (ve.OUT, out), (ve.INOUT, both))
    struct.pack_into("q5d", data, 0, 0, 0, 0, 0, 0, 0)
    process.write(gate, struct.pack("Q", 1))
    assert process.wait(context, spinning) == (ve.OK, 1)
    assert process.wait(context, request)[0] == ve.OK
    assert list(out) == [2.25, 4, 9, 0.25, 81] and both.value == 20
    assert process.call(add, 1, 2) == 3


@pytest.mark.parametrize("sizes", [(1, 1), (7, 9), (8, 8), (100, 3)])
def test_stack_arguments_lie_apart(process: Process, library: int, sizes: tuple[int, int]) -> None:
    first, second = ((c_char * n)() for n in sizes)
    apart = process.call(process.symbol(library, "distance"), (ve.IN, first), (ve.IN, second))
    assert apart == -(-sizes[0] // 8) * 8


def test_bad_arguments(process: Process, library: int) -> None:
    add = process.symbol(library, "add")
    lib, result = process.lib, c_uint64()
    with arguments(process, []) as args:
        assert lib.veo_args_set_i64(args, 256, 1) < 0 and "256" in process.error
        assert lib.veo_args_set_i64(args, -1, 1) < 0
        assert lib.veo_args_set_i64(args, 255, 1) == 0
        assert lib.veo_call_sync(process.handle, add, args, byref(result)) < 0
        assert "argument 0 was not set" in process.error
        lib.veo_args_clear(args)
        big = ctypes.create_string_buffer(1 << 28)
        assert lib.veo_args_set_stack(args, ve.IN, 0, big, 1 << 28) == 0
        assert lib.veo_call_sync(process.handle, add, args, byref(result)) < 0
        assert str(1 << 28) in process.error and "stack" in process.error
        assert lib.veo_args_set_stack(args, 3, 0, big, 8) < 0
        lib.veo_args_clear(args)
        assert lib.veo_call_async(process.main, 0, args) == ve.INVALID_REQUEST
        assert lib.veo_call_async(process.main, add, None) == ve.INVALID_REQUEST


# -- requests -------------------------------------------------------------------------------------


def test_a_result_is_picked_up_once(process: Process, library: int) -> None:
    add = process.symbol(library, "add")
    context = process.open()
    first = process.start(context, add, 1, 2)
    second = process.start(context, add, 3, 4)
    process.lib.veo_context_sync(context)  # consumes nothing
    assert process.peek(context, second) == (ve.OK, 7)
    assert process.wait(context, first) == (ve.OK, 3)
    assert process.wait(context, first)[0] == ve.ERROR and "picked up" in process.error
    assert process.peek(context, second)[0] == ve.ERROR
    for nonsense in (ve.INVALID_REQUEST, 10**6):
        assert process.wait(context, nonsense)[0] == ve.ERROR
        assert process.peek(context, nonsense)[0] == ve.ERROR
    assert process.lib.veo_call_wait_result(context, process.start(context, add, 1, 1), None) == 0


def test_requests_are_executed_in_order(process: Process, library: int) -> None:
    fill = process.symbol(library, "fill")
    context = process.open()
    n = 1000
    address = process.alloc(n)
    seen, requests = [], []
    for i in range(30):
        requests.append(process.start(context, fill, address, n, i))
        out = ctypes.create_string_buffer(n)
        requests.append(process.lib.veo_async_read_mem(context, out, address, n))
        seen.append(out)
    for request in reversed(requests):
        assert process.wait(context, request)[0] == ve.OK
    assert [out.raw for out in seen] == [bytes([i]) * n for i in range(30)]


def test_contexts_run_at_the_same_time(process: Process, library: int) -> None:
    """A context that waits in VE code does not hold up the others, which release it."""
    spin = process.symbol(library, "spin")
    contexts = [process.open() for _ in range(3)]
    gates = process.alloc(24)
    requests = [process.start(c, spin, gates + 8 * i) for i, c in enumerate(contexts)]
    assert [process.peek(c, r)[0] for c, r in zip(contexts, requests, strict=True)] == [3, 3, 3]
    for i in (2, 0, 1):
        process.write(gates + 8 * i, struct.pack("Q", i + 5))
        assert process.wait(contexts[i], requests[i]) == (ve.OK, i + 5)


def test_async_memory(process: Process) -> None:
    context = process.open()
    request = process.lib.veo_alloc_mem_async(context, 100)
    status, address = process.wait(context, request)
    assert status == ve.OK and address
    process.write(address, b"x" * 100)
    assert process.wait(context, process.lib.veo_free_mem_async(context, address))[0] == ve.OK
    assert process.wait(context, process.lib.veo_free_mem_async(context, address))[0] == ve.ERROR
    assert "no VE memory was allocated" in process.fault(context)
    request = process.lib.veo_alloc_mem_async(context, 1 << 60)
    assert process.wait(context, request) == (ve.OK, 0)  # as AVEO: the address is 0
    out = ctypes.create_string_buffer(8)
    request = process.lib.veo_async_read_mem(context, out, 64, 8)
    assert process.wait(context, request)[0] == ve.ERROR and "0x40" in process.fault(context)


def test_host_functions(process: Process, library: int) -> None:
    """They run in their turn, and may themselves use the context that executes them."""
    add = process.symbol(library, "add")
    context = process.open()
    seen: list[int] = []

    @ve.VH_FUNCTION
    def double(argument: int) -> int:
        seen.append(argument)
        return 2 * argument

    @ve.VH_FUNCTION
    def nested(_: int) -> int:
        request = process.start(context, add, 20, 1)
        status, value = process.wait(context, request)
        return value if status == ve.OK else 0

    requests = [process.lib.veo_call_async_vh(context, double, i) for i in range(1, 6)]
    assert [process.wait(context, r) for r in requests] == [(ve.OK, 2 * i) for i in range(1, 6)]
    assert seen == [1, 2, 3, 4, 5]
    assert process.wait(context, process.lib.veo_call_async_vh(context, nested, None))[1] == 21

    @ve.VH_FUNCTION
    def destructive(_: int) -> int:
        return -process.lib.veo_proc_destroy(process.handle)

    request = process.lib.veo_call_async_vh(context, destructive, None)
    assert process.wait(context, request) == (ve.OK, 1)  # refused


def test_request_blocks(process: Process, library: int) -> None:
    keep, kept = (process.symbol(library, n) for n in ("keep", "kept"))
    context = process.open()
    wrong: list[int] = []

    def work(base: int) -> None:
        for i in range(40):
            process.lib.veo_req_block_begin(context)
            first = process.start(context, keep, base + i)
            second = process.start(context, kept)
            process.lib.veo_req_block_end(context)
            if process.wait(context, second)[1] != base + i:
                wrong.append(base + i)
            process.wait(context, first)

    threads = [threading.Thread(target=work, args=(1000 * t,)) for t in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
    process.lib.veo_req_block_end(context)  # of nothing: an error, not a crash
    assert "veo_req_block_begin" in process.error


def test_many_threads(process: Process, library: int) -> None:
    """Requests of all kinds from eight threads to two contexts, with memory in between."""
    add, fill = (process.symbol(library, n) for n in ("add", "fill"))
    contexts = [process.main, process.open()]
    failed: list[str] = []

    def work(seed: int) -> None:
        r = random.Random(seed)
        try:
            for _ in range(30):
                context = r.choice(contexts)
                a, b, n = r.randrange(2**40), r.randrange(2**40), r.randrange(1, 3000)
                request = process.start(context, add, a, b)
                address = process.alloc(n)
                filled = process.start(context, fill, address, n, seed)
                assert process.wait(context, filled) == (ve.OK, n)
                assert process.read(address, n) == bytes([seed]) * n
                assert process.call(add, b, 1) == b + 1
                assert process.wait(context, request) == (ve.OK, a + b)
                assert process.lib.veo_free_mem(process.handle, address) == 0
        except AssertionError as e:
            failed.append(str(e))

    threads = [threading.Thread(target=work, args=(s,)) for s in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failed == []


# -- traps ----------------------------------------------------------------------------------------


def test_a_trap_is_an_exception_and_not_the_end(process: Process, library: int) -> None:
    wild, add = (process.symbol(library, n) for n in ("wild", "add"))
    context = process.open()
    assert process.fault(context) == ""
    request = process.start(context, wild, 0x1230)
    assert process.wait(context, request)[0] == ve.EXCEPTION
    fault = process.fault(context)
    assert "wild" in fault and "0x1230" in fault, fault
    assert process.wait(context, process.start(context, add, 1, 2)) == (ve.OK, 3)
    # synchronously, in the main context, with what is behind it in the queue unharmed
    with arguments(process, [0x4560]) as args:
        result = c_uint64()
        assert process.lib.veo_call_sync(process.handle, wild, args, byref(result)) < 0
    assert "wild" in process.error and "0x4560" in process.error
    assert "0x4560" in process.fault(process.main) and "0x4560" not in process.fault(context)
    assert process.call(add, 3, 4) == 7


def test_freed_memory(process: Process, library: int) -> None:
    wild = process.symbol(library, "wild")
    address = process.alloc(64)
    assert process.wait(process.main, process.start(process.main, wild, address))[0] == ve.OK
    assert process.lib.veo_free_mem(process.handle, address) == 0
    freed = process.start(process.main, wild, address)
    assert process.wait(process.main, freed)[0] == ve.EXCEPTION


def test_stack_size(process: Process, library: int) -> None:
    """4 KB frames: 1000 of them fit 8 MiB and 5000 do not, which is an exception."""
    deep = process.symbol(library, "deep")
    small, large = process.open(8 << 20), process.open(64 << 20)
    assert process.wait(small, process.start(small, deep, 1000)) == (ve.OK, 1000)
    assert process.wait(small, process.start(small, deep, 5000))[0] == ve.EXCEPTION
    assert "stack" in process.fault(small)
    assert process.wait(small, process.start(small, deep, 1000)) == (ve.OK, 1000)
    assert process.wait(large, process.start(large, deep, 5000)) == (ve.OK, 5000)
    attributes = process.lib.veo_alloc_thr_ctxt_attr()
    size = ctypes.c_size_t()
    assert process.lib.veo_get_thr_ctxt_stacksize(attributes, byref(size)) == 0
    assert size.value == 128 << 20
    assert process.lib.veo_set_thr_ctxt_stacksize(attributes, 1 << 20) < 0
    assert process.lib.veo_free_thr_ctxt_attr(attributes) == 0
    assert process.lib.veo_free_thr_ctxt_attr(None) < 0


# -- contexts, processes, cards -------------------------------------------------------------------


def test_main_context() -> None:
    lib = ve.open_driver().lib
    handle = lib.veo_proc_create(0)
    assert lib.veo_num_contexts(handle) == 0
    assert lib.veo_get_context(handle, 0) is None
    main = lib.veo_context_open(handle)
    assert lib.veo_get_context(handle, 0) == main and lib.veo_num_contexts(handle) == 1
    assert lib.veo_context_close(main) == 0 and lib.veo_num_contexts(handle) == 1
    assert lib.veo_get_context_state(main) == ve.RUNNING
    assert lib.veo_get_context(handle, 1) is None and lib.veo_get_context(handle, -1) is None
    assert lib.veo_proc_destroy(handle) == 0
    assert lib.veo_get_context_state(main) == ve.EXIT


def test_closing_finishes_what_was_requested(process: Process, library: int) -> None:
    fill = process.symbol(library, "fill")
    context = process.open()
    address = process.alloc(1000)
    for i in range(20):
        process.start(context, fill, address, 1000, i)
    assert process.lib.veo_context_close(context) == 0
    assert process.read(address, 1000) == bytes([19]) * 1000
    with arguments(process, []) as args:
        assert process.lib.veo_call_async(context, fill, args) == ve.INVALID_REQUEST
    assert process.lib.veo_context_close(context) < 0 and "closed" in process.error
    assert process.lib.veo_get_context_state(context) == ve.EXIT


def test_a_context_for_each_core(process: Process) -> None:
    contexts = [process.open() for _ in range(7)]
    assert process.lib.veo_context_open(process.handle) is None and "8 cores" in process.error
    assert process.lib.veo_context_close(contexts[3]) == 0
    assert process.open()
    assert process.lib.veo_num_contexts(process.handle) == 8


def test_several_processes_and_cards(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = ve.open_driver().lib
    assert lib.veo_proc_create(1) is None and "SOL_VE_CARDS" in ve.open_driver().last_error()
    monkeypatch.setenv("SOL_VE_CARDS", "3")
    assert ve.open_driver().cards == 3
    processes = [Process(node) for node in (0, 2, 2)]
    identifiers = [lib.veo_proc_identifier(p.handle) for p in processes]
    assert len(set(identifiers)) == 3 and min(identifiers) >= 0
    addresses = [p.symbol(p.load(kernels), "next") for p in processes]
    for i, (p, address) in enumerate(zip(processes, addresses, strict=True)):
        for n in range(i + 1):
            assert p.call(address) == 1234567 + n  # each has its own .data
    lib.veo_proc_destroy(processes[1].handle)
    assert processes[2].call(addresses[2]) == 1234570
    assert lib.veo_proc_identifier(processes[1].handle) < 0
    again = Process(1)
    assert lib.veo_proc_identifier(again.handle) == identifiers[1]  # lowest free one
    for p in (processes[0], processes[2], again):
        p.destroy()
    for nonsense in ("-1", "x", "65"):
        monkeypatch.setenv("SOL_VE_CARDS", nonsense)
        assert lib.veo_proc_create(0) is None and nonsense in ve.open_driver().last_error()


def test_which_card_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    lib = ve.open_driver().lib
    monkeypatch.setenv("SOL_VE_CARDS", "4")

    def node(wanted: int) -> int | None:
        handle = lib.veo_proc_create(wanted)
        if handle is None:
            return None
        address = ctypes.c_void_p()
        lib.veo_alloc_hmem.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        assert lib.veo_alloc_hmem(handle, byref(address), 8) == 0
        lib.veo_get_venum_from_hmem.argtypes = [ctypes.c_void_p]
        found = lib.veo_get_venum_from_hmem(address)
        assert lib.veo_proc_destroy(handle) == 0
        return int(found)

    assert [node(n) for n in (-1, 0, 3, 4, -2)] == [0, 0, 3, None, None]
    monkeypatch.setenv("VE_NODE_NUMBER", "2")
    assert [node(n) for n in (-1, 0)] == [2, 0]
    monkeypatch.setenv("_VENODELIST", "3 1")
    assert [node(n) for n in (-1, 0, 1, 2)] == [None, 3, 1, None]
    monkeypatch.delenv("VE_NODE_NUMBER")
    assert node(-1) == 3


def test_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    lib = ve.open_driver().lib
    assert lib.veo_get_ve_arch(0) == 1 and lib.veo_get_ve_arch(7) == 0
    monkeypatch.setenv("SOL_VE_MODEL", "VE30")
    assert lib.veo_get_ve_arch(-1) == 3
    monkeypatch.setenv("SOL_VE_MODEL", "VE99")
    assert lib.veo_get_ve_arch(0) == 0 and lib.veo_proc_create(0) is None
    assert "VE10, VE20B, VE30" in ve.open_driver().last_error()
    assert lib.veo_api_version() == 16 and b"simulator" in lib.veo_version_string()


def test_destroying_with_requests_under_way(kernels: Path) -> None:
    p = Process()
    library = p.load(kernels)
    forever, add = (p.symbol(library, n) for n in ("forever", "add"))
    contexts = [p.main, p.open()]
    running = [p.start(c, forever) for c in contexts]
    queued = [p.start(c, add, 1, 2) for c in contexts]
    found: list[tuple[int, int]] = []
    threads = []
    for c, a, b in zip(contexts, running, queued, strict=True):
        for request in (a, b):
            wait = threading.Thread(target=lambda c=c, r=request: found.append(p.wait(c, r)))
            wait.start()
            threads.append(wait)
    assert p.peek(contexts[1], queued[1])[0] in (ve.UNFINISHED, ve.ERROR)
    p.destroy()
    for t in threads:
        t.join(30)
        assert not t.is_alive()
    assert len(found) == 4 and all(status in (ve.EXCEPTION, ve.ERROR) for status, _ in found)
    for c in contexts:
        assert p.wait(c, 0)[0] == ve.ERROR
    assert p.lib.veo_proc_destroy(p.handle) < 0 and "destroyed" in p.error
    assert p.lib.veo_alloc_mem(p.handle, byref(c_uint64()), 8) < 0


def test_fork(kernels: Path) -> None:
    """A child cannot use the parent's processes, is told so, and can create its own."""
    program = f"""
import os
from offload import Process
p = Process()
add = p.symbol(p.load({str(kernels)!r}), "add")
assert p.call(add, 1, 2) == 3
child = os.fork()
if child == 0:
    try:
        p.alloc(8)
    except AssertionError as e:
        assert "fork" in str(e), e
        q = Process()
        assert q.call(q.symbol(q.load({str(kernels)!r}), "add"), 5, 6) == 11
        q.destroy()
        os._exit(42)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
assert p.call(add, 3, 4) == 7
p.destroy()
"""
    path = os.pathsep.join([str(Path(sol_dynamo.__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "SOL_VE_DRIVER": "sim"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_leaving_without_destroying(kernels: Path) -> None:
    """An exit with VE code still running neither hangs nor crashes."""
    program = f"""
from offload import Process
p = Process()
p.start(p.open(), p.symbol(p.load({str(kernels)!r}), "forever"))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(sol_dynamo.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "SOL_VE_DRIVER": "sim"},
        cwd=Path(__file__).parent,
        timeout=60,
    )
    assert done.returncode == 0


def test_traces_of_several_contexts_keep_their_lines(
    kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOL_VE_TRACE", str(tmp_path / "trace"))
    process = Process()
    function = process.symbol(process.load(kernels), "fill")
    contexts = [process.open() for _ in range(4)]
    memory = process.alloc(4096)
    requests = [(c, process.start(c, function, memory, 400, 1)) for c in contexts]
    assert all(process.wait(*r) == (ve.OK, 400) for r in requests)
    process.destroy()
    lines = (tmp_path / "trace").read_text().splitlines()
    assert len(lines) > 4 * 400 * 3
    assert all(re.match(r"[0-9a-f]{12} fill\+0x", line) for line in lines)


def test_trace(kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trace.txt"
    monkeypatch.setenv("SOL_VE_TRACE", str(file))
    p = Process()
    assert p.call(p.symbol(p.load(kernels), "add"), 1, 2) == 3
    p.destroy()
    lines = file.read_text().splitlines()
    assert lines and all(" add" in line for line in lines)
    assert "b.l.t" in lines[-1]


# -- libraries and memory -------------------------------------------------------------------------


def test_libraries(
    process: Process, kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lib, handle = process.lib, process.handle
    first = process.load(kernels)
    assert process.load(kernels) == first
    value = "long value(void) { return %d; }"
    other = process.load(compile_ve(tmp_path, "other.c", value % 2))
    assert other != first
    assert process.call(process.symbol(other, "value")) == 2
    assert process.symbol(0, "add") == process.symbol(first, "add")
    assert process.symbol(0, "value") == process.symbol(other, "value")
    assert lib.veo_get_sym(handle, other, b"add") == 0 and "'add'" in process.error
    assert lib.veo_get_sym(handle, 99, b"add") == 0
    assert lib.veo_get_sym(handle, first, b"a" * 256) == 0
    # once for each time that it was loaded
    assert lib.veo_unload_library(handle, first) == 0
    assert process.call(process.symbol(first, "add"), 1, 2) == 3
    assert lib.veo_unload_library(handle, first) == 0
    assert lib.veo_get_sym(handle, first, b"add") == 0
    assert lib.veo_unload_library(handle, first) < 0 and lib.veo_unload_library(handle, 0) < 0
    # a file that was compiled anew is another library
    renewed = process.load(compile_ve(tmp_path, "other.c", value % 31))
    assert process.call(process.symbol(renewed, "value")) == 31
    # names without a folder are looked for as dlopen would
    monkeypatch.chdir(tmp_path)
    assert lib.veo_load_library(handle, b"other.o") == 0 and "./other.o" in process.error
    monkeypatch.setenv("VE_LD_LIBRARY_PATH", f"/nowhere:{tmp_path}")
    assert process.load("other.o") == renewed
    for bad in ("/no/such/file.o", __file__):
        assert lib.veo_load_library(handle, bad.encode()) == 0 and bad in process.error


def test_program_with_its_own_symbols(kernels: Path) -> None:
    lib = ve.open_driver().lib
    lib.veo_proc_create_static.argtypes = [ctypes.c_int, ctypes.c_char_p]
    lib.veo_proc_create_static.restype = ctypes.c_void_p
    handle = lib.veo_proc_create_static(0, str(kernels).encode())
    assert handle and lib.veo_get_sym(handle, 0, b"add")
    assert lib.veo_proc_destroy(handle) == 0
    assert lib.veo_proc_create_static(0, b"/no/such/program") is None


def test_memory(process: Process) -> None:
    lib, handle = process.lib, process.handle
    used = lib.vesim_memory_used(handle)
    blocks = {process.alloc(n): bytes([n % 251]) * n for n in (1, 7, 4096, 100_000, 3 << 20)}
    for address, data in blocks.items():
        assert address % 16 == 0
        process.write(address, data)
    for address, data in blocks.items():
        assert process.read(address, len(data)) == data
        assert process.read(address + len(data) // 2, 1) == data[:1]
    assert lib.vesim_memory_used(handle) >= used + sum(map(len, blocks.values()))
    for address in blocks:
        assert lib.veo_free_mem(handle, address) == 0
        assert lib.veo_free_mem(handle, address) < 0 and f"{address:#x}" in process.error
        assert lib.veo_write_mem(handle, address, b"x", 1) < 0
    assert lib.vesim_memory_used(handle) == used
    empty = process.alloc(0)
    assert empty and lib.veo_read_mem(handle, None, empty, 0) == 0
    assert lib.veo_free_mem(handle, empty) == 0
    assert lib.veo_alloc_mem(handle, byref(c_uint64()), 1 << 60) == -1
    assert str(1 << 60) in process.error


def test_addresses_that_name_their_process(process: Process) -> None:
    lib, pointer, size = process.lib, ctypes.c_void_p, ctypes.c_size_t
    lib.veo_alloc_hmem.argtypes = [pointer, pointer, size]
    lib.veo_free_hmem.argtypes = lib.veo_is_ve_addr.argtypes = [pointer]
    lib.veo_hmemcpy.argtypes = [pointer, pointer, size]
    lib.veo_get_hmem_addr.argtypes, lib.veo_get_hmem_addr.restype = [pointer], pointer
    lib.veo_get_proc_handle_from_hmem.argtypes = [pointer]
    lib.veo_get_proc_handle_from_hmem.restype = pointer
    a, b = pointer(), pointer()
    assert lib.veo_alloc_hmem(process.handle, byref(a), 100) == 0
    assert lib.veo_alloc_hmem(process.handle, byref(b), 100) == 0
    assert lib.veo_is_ve_addr(a) and lib.veo_get_proc_handle_from_hmem(a) == process.handle
    out = ctypes.create_string_buffer(5)
    assert not lib.veo_is_ve_addr(out)
    assert lib.veo_hmemcpy(a, b"hello", 5) == 0 and lib.veo_hmemcpy(b, a, 5) == 0
    assert lib.veo_hmemcpy(out, b, 5) == 0 and out.raw == b"hello"
    assert process.read(lib.veo_get_hmem_addr(a), 5) == b"hello"
    assert lib.veo_free_hmem(a) == 0 and lib.veo_free_hmem(a) < 0 and lib.veo_free_hmem(b) == 0
    host = pointer()
    assert lib.veo_alloc_hmem(None, byref(host), 5) == 0 and not lib.veo_is_ve_addr(host)
    assert lib.veo_hmemcpy(host, b"world", 5) == 0
    assert lib.veo_hmemcpy(out, host, 5) == 0 and out.raw == b"world"
    assert lib.veo_free_hmem(host) == 0


def test_null_and_stale_handles(process: Process) -> None:
    """Every function that takes a handle refuses one that is none."""
    lib, checked = process.lib, 0
    stale = process.open()
    assert lib.veo_context_close(stale) == 0
    for name, (result, parameters) in {**ve.PROTOTYPES, **ve.SIMULATOR_PROTOTYPES}.items():
        if not parameters or parameters[0] is not ctypes.c_void_p or "args" in name:
            continue
        if name.endswith(("ctxt_attr", "stacksize")):
            continue
        for handle in (None, 0x10, stale):
            if handle == stale and "vesim_last_fault" not in name and "ctx" not in name:
                continue
            rest = [p() if p is not ctypes.c_char_p else b"x" for p in parameters[1:]]
            value = getattr(lib, name)(handle, *rest)
            checked += 1
            if result is ctypes.c_int or result is c_int64:
                assert value < 0 or value in (ve.ERROR, ve.EXIT), name
            elif result is c_uint64:
                assert value in (0, ve.INVALID_REQUEST), name
            elif result is not None:
                assert not value, name
    assert checked > 40


# -- which driver ---------------------------------------------------------------------------------


def test_choice_of_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ve.open_driver().path
    assert ve.open_driver().simulated
    facts = ve.open_driver().describe()
    assert "simulated" in facts["driver"] and facts["model"] == "VE20B (simulated)"
    copy = tmp_path / "libmine.so"
    shutil.copy(path, copy)
    monkeypatch.setenv("SOL_VE_DRIVER", str(copy))
    assert ve.open_driver().path == str(copy)
    monkeypatch.setenv("SOL_VE_DRIVER", "simulator")
    with pytest.raises(ve.DriverError, match="'native', 'sim' or a library's path"):
        ve.open_driver()
    other = tmp_path / "other.txt"
    other.write_text("no library")
    monkeypatch.setenv("SOL_VE_DRIVER", str(other))
    with pytest.raises(ve.DriverError, match="cannot load"):
        ve.open_driver()
    import _ctypes

    monkeypatch.setenv("SOL_VE_DRIVER", _ctypes.__file__)
    with pytest.raises(ve.DriverError, match="not an AVEO library: it lacks veo_api_version"):
        ve.open_driver()
    if not ve._card_files():
        monkeypatch.delenv("SOL_VE_DRIVER")
        assert ve.open_driver().simulated
        monkeypatch.setenv("SOL_VE_DRIVER", "native")
        with pytest.raises(ve.DriverError, match="no native VE driver"):
            ve.open_driver()

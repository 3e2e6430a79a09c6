"""Loading of object files and shared objects: sections, symbols, relocations, bad files."""

from __future__ import annotations

import gc
import random
import struct

import pytest
from compiled import ve_object
from test_sim_core import words

from sol_dynamo.ve import sim

DATA = """
extern int shared(int); static int scale(int x){return x*3;}
int number=5,zeros[100],*pointer=&number,common_; static const char*const names[]={"a","bc","def"};
const double table[3]={1.5,2.5,3.5}; int(*function)(int)=shared; static int(*hidden)(int)=scale;
int shared(int x){return scale(x)+number;}
int use(int n){zeros[n]+=n;common_++;return zeros[n]+*pointer+names[n%3][0]+(int)(table[n%3]*2)
+function(n)+hidden(n)+common_;}
extern void missing(void) __attribute__((weak)); int has_missing(void){return missing!=0;}
"""


@pytest.fixture
def machine() -> sim.Machine:
    return sim.Machine()


WAYS = [
    ("-O0",),
    ("-O2",),
    ("-O2", "-fPIC"),
    ("-O1", "-fcommon"),
    ("-O1", "-g", "-fasynchronous-unwind-tables"),
    ("-O2", "-fPIC", "-ffunction-sections", "-fdata-sections"),
]


@pytest.mark.parametrize("flags", WAYS, ids=" ".join)
def test_data_and_pointers(flags: tuple[str, ...], machine: sim.Machine) -> None:
    code = ve_object(DATA, *flags)
    one, two = machine.load_bytes(code, "one.o"), machine.load_bytes(code, "two.o")
    for library in (one, two):  # each has variables of its own
        for step, n in enumerate((4, 4, 7)):
            zeros = n * (1 + (step == 1))
            expected = zeros + 5 + ord("b") + 5 + 2 * 3 * n + 5 + (step + 1)
            assert library.call("use", n) == expected
        assert library.call("has_missing") == 0
    number = one.symbol("number")
    assert machine.read(number, 4) == b"\5\0\0\0"
    machine.write(number, b"\7\0\0\0")
    assert one.call("shared", 2) == 13 and two.call("shared", 2) == 11
    with pytest.raises(KeyError, match=r"one\.o defines no 'scale', but .*shared"):
        one.symbol("scale")
    assert {"use", "shared", "number", "table"} <= set(one.symbols())


def test_sections_have_rights(machine: sim.Machine) -> None:
    library = machine.load_bytes(ve_object(DATA, "-O2"))
    core = machine.core
    for symbol, message in (("use", "read-only"), ("table", "read-only"), ("number", None)):
        core.s[1], core.s[2] = 1, library.symbol(symbol)
        if message is None:
            core.execute(words("st1b %s1, (, %s2)"))
            continue
        with pytest.raises(sim.Fault, match=message) as caught:
            core.execute(words("st1b %s1, (, %s2)"))
        assert symbol in str(caught.value)
    for symbol in ("table", "number"):  # data is no code
        with pytest.raises(sim.Fault, match="no code is there"):
            library.call(symbol)


def test_a_library_releases_its_memory(machine: sim.Machine) -> None:
    code = ve_object(DATA, "-O2")
    machine.load_bytes(code)
    gc.collect()
    before = machine.memory_used
    library = machine.load_bytes(code)
    assert machine.memory_used > before
    address = library.symbol("use")
    del library
    gc.collect()
    assert machine.memory_used == before
    with pytest.raises(sim.Fault, match="no code is there"):
        machine.call(address, 1)
    assert machine.load_bytes(ve_object("int f(void){return 9;}", "-O2")).call("f") == 9


def test_host_writes_to_code_are_seen(machine: sim.Machine) -> None:
    library = machine.load_bytes(ve_object("int f(void){return 9;}", "-O2"))
    assert library.call("f") == 9
    code = library.symbol("f")
    machine.write(code, struct.pack("<2Q", *words("lea %s0, 11; b.l.t (, %s10)")))
    assert library.call("f") == 11


def test_initializers_run_once_in_order(machine: sim.Machine) -> None:
    source = """int log_[4],n=1;
    __attribute__((constructor(101))) static void first(void){log_[0]=n++;}
    __attribute__((constructor(102))) static void second(void){log_[1]=n++;}
    int get(int i){return log_[i];}"""
    library = machine.load_bytes(ve_object(source, "-O1"))
    assert [library.call("get", i) for i in range(3)] == [1, 2, 0]


@pytest.mark.parametrize("flags", [("-O1",), ("-O1", "-fPIC")])
def test_thread_local_variables(flags: tuple[str, ...], machine: sim.Machine) -> None:
    source = """_Thread_local int a=7; static _Thread_local long b; _Thread_local char c[40];
    long f(int n){a+=n;b+=2*n;c[n]++;return a*10000+b*100+c[n];}"""
    one, two = (machine.load_bytes(ve_object(source, *flags)) for _ in range(2))
    assert one.call("f", 3) == 100000 + 600 + 1
    assert one.call("f", 3) == 130000 + 1200 + 2
    assert two.call("f", 3) == 100000 + 600 + 1
    large = ve_object("_Thread_local char x[1<<17]; char*f(void){return x;}", "-O1")
    with pytest.raises(OSError, match="thread-local variables take 131072 bytes"):
        machine.load_bytes(large)


def test_thread_local_pointers_and_alignment(machine: sim.Machine) -> None:
    """Relocations of initial values; every image's variables lie where their alignment says."""
    source = """int x=5; _Thread_local int*p=&x; _Thread_local char one=3;
    _Alignas(64) _Thread_local char wide[8]={7}; int read(void){return *p+one+wide[0];}
    char*place(void){return wide;}
    int**pointer(void){return &p;}"""
    libraries = [machine.load_bytes(ve_object(source, "-O1", "-fPIC")) for _ in range(3)]
    for library in libraries:
        assert library.call("read") == 5 + 3 + 7
        assert library.call("place") % 64 == 0
    assert len({library.call("pointer") for library in libraries}) == 3
    odd = ve_object("_Alignas(8192) _Thread_local char x[8]; char*f(void){return x;}", "-O1")
    with pytest.raises(OSError, match="ask for multiples of 8192"):
        machine.load_bytes(odd)


def test_thread_local_memory_is_given_back(machine: sim.Machine) -> None:
    """As often as one likes, with its first values each time; also where loading fails."""
    source = "_Thread_local char x[%d]={1}; int f(void){return x[0]++;}%s"
    first = machine.load_bytes(ve_object(source % (100, ""), "-O1"))
    assert first.call("f") == 1
    for _ in range(3):
        with pytest.raises(OSError, match="undefined: nothing"):
            machine.load_bytes(
                ve_object(source % (30000, " int nothing(int);int g(int n){return nothing(n);}"))
            )
        assert machine.load_bytes(ve_object(source % (50000, ""), "-O1")).call("f") == 1
        gc.collect()
    most = 56 << 10
    last = machine.load_bytes(
        ve_object(f"_Thread_local char x[{most - 200}]; char*f(int n){{x[n]=7;return x;}}", "-O1")
    )
    address = last.call("f", most - 201)
    assert machine.read(address + most - 201, 1) == b"\7"
    assert first.call("f") == 2


def test_libraries_that_call_each_other(machine: sim.Machine) -> None:
    """What a file lacks comes from those loaded before, which then stay."""
    below = machine.load_bytes(ve_object("int n=4; int below(int x){return x*n;}", "-O1"), "b.o")
    above = ve_object(
        "extern int n; int below(int); int(*way)(int)=below;"
        "int above(int x){n++;return below(x)+way(1);}", "-O1", "-fPIC",
    )  # fmt: skip
    with pytest.raises(OSError, match=r"undefined: (n, below|below, n)\. They are in no library"):
        sim.Machine().load_bytes(above)
    library = machine.load_bytes(above, "a.o")
    assert library.call("above", 10) == 50 + 5
    assert machine.read(below.symbol("n"), 4) == b"\5\0\0\0"
    used = machine.memory_used
    del below
    gc.collect()
    assert machine.memory_used == used and library.call("above", 10) == 60 + 6
    del library
    gc.collect()
    with pytest.raises(OSError, match="undefined"):
        machine.load_bytes(above)


def test_symbols_without_a_size_have_names(machine: sim.Machine) -> None:
    """As hand-written assembly leaves them: a fault tells the function and the place in it."""
    library = machine.load_bytes(
        ve_object(
            "\t.text\n\t.globl one, two\none:\n\tor %s0, 0, (0)1\n\tld %s0, (, %s0)\n"
            "two:\n\tnop\n\tmonc\n\t.globl three, empty\n\t.type empty,@function\nempty:\n"
            "\t.size empty, 0\nthree:\n\tmonc\n\t.size three, 8\n", suffix=".s",
        )
    )  # fmt: skip
    for name, text in (("one", "in one+0x8: ld %s0, (, %s0)"), ("two", "in two+0x8: monc"),
                       ("three", "in three+0x0: monc")):  # fmt: skip
        with pytest.raises(sim.Fault) as caught:
            library.call(name)
        assert text in str(caught.value)


def test_common_symbols_are_aligned(machine: sim.Machine) -> None:
    source = "char a; _Alignas(16384) char wide[3]; char b; char*f(int i){return i?wide:&a+b;}"
    for _ in range(3):
        library = machine.load_bytes(ve_object(source, "-O1", "-fcommon"))
        assert library.call("f", 1) % 16384 == 0 and library.call("f", 0) != 0
        machine.allocate(1)  # so that the next one lies elsewhere


def test_functions_chosen_when_loaded_are_refused(machine: sim.Machine) -> None:
    source = """static int a(int x){return x+1;} static void*choose(void){return a;}
    int f(int) __attribute__((ifunc("choose"))); int g(int x){return f(x);}"""
    command = ve_object(source, "-target", "ve-linux-gnu", "-O1")
    with pytest.raises(OSError, match=r"f is chosen by a function .*not supported"):
        machine.load_bytes(command)


def test_c_plus_plus(machine: sim.Machine) -> None:
    source = """struct A{virtual int f(int x){return x;}virtual ~A(){}};
    struct B:A{int n=3;int f(int x)override{return x*n;}};
    template<class T>T twice(T x){return x+x;} static B b;
    extern "C" int run(int x){A*a=&b;return a->f(x)+twice(x)+(int)twice(1.5);}
    void operator delete(void*,unsigned long)noexcept{}"""
    flags = ("-O1", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics")
    source += (
        ' extern "C" {void* __dso_handle; int __cxa_atexit(void(*)(void*),void*,void*){return 0;}}'
    )
    library = machine.load_bytes(ve_object(source, *flags, suffix=".cpp"))
    assert library.call("run", 5) == 15 + 10 + 3


# --- files that cannot be loaded ------------------------------------------------------------------


def test_messages_for_bad_files(machine: sim.Machine) -> None:
    good = ve_object("int f(void){return 9;}", "-O2")
    used = machine.memory_used
    missing = ve_object('int printf(const char*,...),g(int);int f(void){return printf("")+g(1);}')
    other = bytearray(good)
    struct.pack_into("<H", other, 18, 62)
    executable = bytearray(good)
    struct.pack_into("<H", executable, 16, 2)
    for data, message in (
        (b"", "the file ends at byte 0"),
        (b"#!/bin/sh\n" * 100, "not an ELF file"),
        (bytes(other), "machine 62, not for NEC's VE"),
        (bytes(executable), "neither an object file nor a shared object"),
        (good[:200], "the file ends at byte 200"),
        (missing, r"undefined: (printf, g|g, printf)\. They are in no library"),
    ):
        with pytest.raises(OSError, match=message):
            machine.load_bytes(data, "bad.o")
    assert machine.memory_used == used
    with pytest.raises(OSError):
        machine.load("/nonexistent/file.o")


def test_damaged_files_never_crash(machine: sim.Machine) -> None:
    """Any byte may be wrong: an error or a library, and nothing stays allocated."""
    rng = random.Random(4)
    files = [ve_object(DATA, "-O2", "-fPIC"), shared_object()]
    gc.collect()
    used, loaded = machine.memory_used, 0
    machine.core.step_limit = 1000
    for _ in range(600):
        data = bytearray(rng.choice(files))
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(64) if rng.random() < 0.3 else rng.randrange(len(data))
            data[place] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        try:
            machine.load_bytes(bytes(data))
            loaded += 1
        except (OSError, sim.Fault):
            pass
    gc.collect()
    assert loaded > 50 and machine.memory_used == used


# --- shared objects -------------------------------------------------------------------------------

CODE, DATA_AT = 0x1000, 0x2000
FUNCTIONS = {  # s16: the address behind `sic`
    "add": "addu.l %s0, %s0, %s1; b.l.t (, %s10)",
    "slot": "sic %s16; sll %s0, %s0, 3; addu.l %s0, %s0, %s16; ld %s0, {data}(, %s0);"
    " b.l.t (, %s10)",
    "start": "sic %s16; ld %s1, {value}(, %s16); addu.l %s1, 5, %s1; st %s1, {value}(, %s16);"
    " b.l.t (, %s10)",
}


def shared_object(thread_local: bool = False) -> bytes:
    """A shared object as a linker makes it, by hand: two segments, dynamic symbols, relocations.

    `thread_local`: it has variables of which the first 16 bytes are the slots 5 and 6, 16 more are
    zero, the slots 7 and 8 ask for the address of the second word, and `start` is called as
    DT_INIT, too.
    """
    slots = 5 + 4 * thread_local
    value = DATA_AT + 8 * slots
    code, at, size = b"", {}, {}
    for name, text in FUNCTIONS.items():
        at[name] = CODE + len(code)
        behind = at[name] + 8
        text = text.format(data=DATA_AT - behind, value=value - behind)
        code += struct.pack(f"<{len(words(text))}Q", *words(text))
        size[name] = CODE + len(code) - at[name]
    symbols = [(n, 0x12, 1, a, size[n]) for n, a in at.items()]  # global functions
    outside = "__tls_get_addr" if thread_local else "memcpy"
    symbols += [("value", 0x11, 1, value, 8), (outside, 0x12, 0, 0, 0), ("absent", 0x20, 0, 0, 0)]
    strings, table = b"\0", bytes(24)
    for name, info, section, address, size in symbols:
        table += struct.pack("<IBBHQQ", len(strings), info, 0, section, address, size)
        strings += name.encode() + b"\0"
    index = {s[0]: n + 1 for n, s in enumerate(symbols)}
    hashes = struct.pack(f"<{2 + 1 + len(symbols) + 1}I", 1, len(symbols) + 1, 1, *range(2, 8), 0)
    initializers = value + 8
    relocations = [
        (DATA_AT, 17, 0, at["add"]),  # RELATIVE
        (DATA_AT + 8, 18, index["value"], 0),  # GLOB_DAT
        (DATA_AT + 16, 2, index["slot"], 8),  # REFQUAD
        (DATA_AT + 24, 18, index["absent"], 0),  # weak and undefined
        (initializers, 17, 0, at["start"]),
    ]
    if thread_local:
        relocations += [
            (DATA_AT + 48, 17, 0, at["add"]),  # the initial value of a thread-local pointer
            (DATA_AT + 56, 22, 0, 0),  # DTPMOD64
            (DATA_AT + 64, 23, 0, 8),  # DTPOFF64, of the file's own variables
        ]
    jumps = [(DATA_AT + 32, 19, index[outside], 0)]  # JUMP_SLOT

    def rela(entries: list[tuple[int, int, int, int]]) -> bytes:
        return b"".join(struct.pack("<QQq", o, s << 32 | t, a) for o, t, s, a in entries)

    count = 3 + thread_local
    head = 64 + count * 56
    parts, place = {}, head
    for name, part in (("symbols", table), ("strings", strings), ("hash", hashes),
                       ("rela", rela(relocations)), ("jumps", rela(jumps))):  # fmt: skip
        place = (place + 7) // 8 * 8
        parts[name] = (place, part)
        place += len(part)
    tags = [(6, parts["symbols"][0]), (5, parts["strings"][0]), (10, len(strings)),
            (4, parts["hash"][0]), (7, parts["rela"][0]), (8, len(parts["rela"][1])),
            (23, parts["jumps"][0]), (2, len(parts["jumps"][1])), (25, initializers), (27, 8),
            *[(12, at["start"])] * thread_local, (0, 0)]  # fmt: skip
    dynamic = b"".join(struct.pack("<QQ", *t) for t in tags)
    data = bytes(8 * slots) + struct.pack("<QQ", 100, 0) + dynamic
    file = bytearray(DATA_AT + len(data))
    ident = b"\x7fELF\2\1\1" + bytes(9)
    struct.pack_into(
        "<16sHHIQQQIHHHHHH", file, 0, ident, 3, 251, 1, 0, 64, 0, 0, 64, 56, count, 64, 0, 0
    )
    dynamic_at = initializers + 8
    for n, segment in enumerate((
        (1, 5, 0, 0, 0, CODE + len(code), CODE + len(code), 0x1000),
        (1, 6, DATA_AT, DATA_AT, 0, len(data), len(data) + 0x3000, 0x1000),
        (2, 6, dynamic_at, dynamic_at, 0, len(dynamic), len(dynamic), 8),
        *[(7, 4, DATA_AT + 40, DATA_AT + 40, 0, 16, 32, 8)] * thread_local,
    )):  # fmt: skip
        struct.pack_into("<IIQQQQQQ", file, 64 + 56 * n, *segment)
    for offset, part in (*parts.values(), (CODE, code), (DATA_AT, data)):
        file[offset : offset + len(part)] = part
    return bytes(file)


def test_shared_object(machine: sim.Machine) -> None:
    file = shared_object()
    library = machine.load_bytes(file, "made.so")
    assert library.call("add", 40, 2) == 42
    value = library.symbol("value")
    assert machine.read(value, 8) == struct.pack("<Q", 105)  # the initializer has run
    assert library.call("slot", 0) == library.symbol("add")
    assert library.call("slot", 1) == value
    assert library.call("slot", 2) == library.symbol("slot") + 8
    assert library.call("slot", 3) == 0
    target = machine.allocate(8)
    assert machine.call(library.call("slot", 4), target, value, 8) == target  # memcpy
    assert machine.read(target, 8) == struct.pack("<Q", 105)
    assert set(library.symbols()) == {"add", "slot", "start", "value"}
    assert not any(machine.read(value + 0x2000, 0x800))  # what the file does not fill is zero
    two = machine.load_bytes(file, "made.so")
    assert two.symbol("value") != value
    with pytest.raises(sim.Fault, match=r"in slot\+0x18"):
        library.call("slot", 1 << 40)


def test_shared_object_with_thread_local_variables(machine: sim.Machine) -> None:
    file = shared_object(thread_local=True)
    first = machine.load_bytes(ve_object("_Thread_local char x[40]; char*f(void){return x;}"))
    for library in (machine.load_bytes(file, "one.so"), machine.load_bytes(file, "two.so")):
        assert machine.read(library.symbol("value"), 8) == struct.pack("<Q", 110)  # INIT and array
        pair = library.symbol("value") - 16
        assert machine.read(pair, 8) == struct.pack("<Q", 1)
        place = machine.call(library.call("slot", 4), pair)  # __tls_get_addr
        assert place % 8 == 0 and place != first.call("f")
        assert machine.read(place - 8, 32) == struct.pack("<4Q", 0, library.symbol("add"), 0, 0)
        machine.write(place - 8, struct.pack("<4Q", 1, 2, 3, 4))

"""Every `_vel_` intrinsic of clang's velintrin headers, compiled and run on the simulator.

One small function for each: it loads its operands from a block of memory, applies the intrinsic and
stores the result. Each function is called as a kernel would be, and executed again one instruction
at a time next to the model; both must leave the same memory. data/intrinsics.txt holds the
signatures (as clang's errors give them); a header with other intrinsics fails.
"""

from __future__ import annotations

import functools
import random
import re
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from comparison import Bench, describe, random_state
from encoding import specs
from model import State
from test_mnemonics import UNMODELLED

ziglang = pytest.importorskip("ziglang")

SIGNATURES = Path(__file__).with_name("data") / "intrinsics.txt"
PARTS = 8
FLAGS = ("-target", "ve-freestanding", "-O1", "-ffreestanding", "-fno-builtin", "-fPIC", "-g0",
         "-w")  # fmt: skip
RETURN = 0x7FFF00000000  # an address that no code has
OPERANDS, SCALARS, MASKS, RESULT, MASK_RESULT = 64, 8, 24, 64 + 6 * 256, 48  # in 8-byte words
BLOCK = 8 * (OPERANDS + 7 * 256)  # of bytes; what follows it in the window is data for loads
# Compiled and their instructions looked at, but not run: see UNMODELLED for the reasons
NOT_RUN = {"lcr_sss", "scr_sss", "tscr_ssss", "fidcr_sss"}
C_TYPES = {
    "v": "__vr", "m": "__vm256", "M": "__vm512", "u": "unsigned int", "i": "int",
    "U": "unsigned long", "L": "long", "d": "double", "f": "float", "p": "void *", "0": "void",
}  # fmt: skip
CONSTANTS = {  # operands that must be constants: position, value
    "lvm_mmss": (1, 2), "lvm_MMss": (1, 5), "svm_sms": (1, 1), "svm_sMs": (1, 6),
    "fidcr_sss": (1, 3), "fencem_s": (0, 3),
    "fencec_s": (0, 7),
}  # fmt: skip


@functools.cache
def signatures() -> dict[str, str]:
    """Name (without _vel_): letters of C_TYPES, the result's first."""
    return dict(line.split() for line in SIGNATURES.read_text().splitlines())


def headers() -> Path:
    return Path(ziglang.__file__).parent / "lib" / "include"


def test_signatures_are_those_of_the_headers() -> None:
    text = "".join(path.read_text() for path in sorted(headers().glob("velintrin*.h")))
    names = set(re.findall(r"#define _vel_(\w+)", text))
    names |= set(re.findall(r"static inline [\w ]+?_vel_(\w+)\(", text))
    assert names == signatures().keys()


def source_of(name: str) -> str:
    """A C function t_<name>(block)."""
    result, operands = signatures()[name][0], signatures()[name][1:]
    body, arguments = [], []
    vectors = masks = 0
    for i, kind in enumerate(operands):
        where = f"p[{SCALARS + i}]"
        if CONSTANTS.get(name, (-1, 0))[0] == i:
            arguments.append(str(CONSTANTS[name][1]))
            continue
        match kind:
            case "v":
                value = f"_vel_vld_vssl(8, p + {OPERANDS + 256 * vectors}, 256)"
                vectors += 1
            case "m" | "M":
                words = 4 if kind == "m" else 8
                body.append(f"{C_TYPES[kind]} a{i};")
                for part in range(words):
                    body.append(
                        f"a{i} = _vel_lvm_{kind * 2}ss(a{i}, {part}, p[{MASKS + masks + part}]);"
                    )
                masks += words
                arguments.append(f"a{i}")
                continue
            case "d":
                value = f"*(double *)&{where}"
            case "f":
                value = f"((float *)&{where})[1]"
            case _:
                value = f"({C_TYPES[kind]}){where}"
        if kind in "ui" and i == len(operands) - 1 and name.endswith("l"):
            value = "(unsigned)p[0]"
        body.append(f"{C_TYPES[kind]} a{i} = {value};")
        arguments.append(f"a{i}")
    call = f"_vel_{name}({', '.join(arguments)})"
    match result:
        case "0":
            body.append(f"{call};")
        case "v":
            body.append(f"_vel_vst_vssl({call}, 8, p + {RESULT}, 256);")
        case "m" | "M":
            body.append(f"{C_TYPES[result]} r = {call};")
            for part in range(4 if result == "m" else 8):
                body.append(f"p[{MASK_RESULT + part}] = _vel_svm_s{result}s(r, {part});")
        case "d":
            body.append(f"*(double *)&p[{MASK_RESULT}] = {call};")
        case "f":
            body.append(f"((float *)&p[{MASK_RESULT}])[1] = {call};")
        case _:
            body.append(f"p[{MASK_RESULT}] = (unsigned long){call};")
    return f"void t_{name}(unsigned long *p) {{\n  " + "\n  ".join(body) + "\n}\n"


def part_names(part: int) -> list[str]:
    return list(signatures())[part::PARTS]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Object files, each with the functions of one part."""
    folder = tmp_path_factory.mktemp("intrinsics")

    def build(part: int) -> Path:
        source, target = folder / f"part{part}.c", folder / f"part{part}.o"
        source.write_text("#include <velintrin.h>\n" + "".join(map(source_of, part_names(part))))
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-c", str(source)]
        run = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[:2000]
        return target

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(build, range(PARTS)))


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(pages=8)


def prepared(name: str, bench: Bench) -> State:
    """A state with the function's operands in the window."""
    seed = zlib.crc32(name.encode())
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    state = random_state(seed, bench.window, bench.size)
    data = bench.window + BLOCK
    words = np.frombuffer(state.memory[bench.window], np.uint64).copy()
    words[0] = rng.choice([256, 255, 100, 1, rng.randrange(257)])
    for i in range(4):
        words[OPERANDS + 256 * i : OPERANDS + 256 * (i + 1)] = state.v[i]
    two = "2d" in name
    for i, kind in enumerate(signatures()[name][1:]):
        value = rng.choice([rng.getrandbits(64), rng.getrandbits(5), *state.s[:32]])
        if kind == "p":
            value = data + 2048
        elif name.startswith(("vld", "vst", "pfchv")):
            value = (rng.choice([64, 128]) << 16 | 8) if two else rng.choice([8, 16, 8])
        elif name.startswith(("lvs", "lsv", "lvm", "svm")) and kind in "ui":
            value &= 255
        elif name.startswith(("lvm", "svm")) and i == 1:
            value &= 3
        elif "div" in name:
            value |= 1 << 32 | 1
        words[SCALARS + i] = np.uint64(value & (1 << 64) - 1)
    addresses = data + 8 * numbers.permutation(512)[:256].astype(np.uint64)
    if name.startswith("vgt"):
        words[OPERANDS : OPERANDS + 256] = addresses
    elif name.startswith("vsc"):
        words[OPERANDS + 256 : OPERANDS + 512] = addresses
    elif "div" in name and "f" not in name.split("_")[0]:
        words[OPERANDS : OPERANDS + 1024] |= np.uint64(1 << 32 | 1)
    state.memory[bench.window][:] = words.tobytes()
    state.vl = 256
    state.s[0], state.s[8], state.s[10] = bench.window, 0, RETURN
    return state


def code_of(bench: Bench, start: int) -> list[int]:
    """The words of a function, up to its return."""
    words: list[int] = []
    while not words or words[-1] != 0x193F008A00000000:
        at = start + 8 * len(words)
        words.append(int.from_bytes(bench.machine.read(at, 8), "little"))
        assert len(words) < 1000, "no return found"
    return words


def family(mnemonic: str) -> str:
    """The mnemonic of the table that stands for one with a condition or a rounding mode."""
    if mnemonic in specs():
        return mnemonic
    stem, _, last = mnemonic.rpartition(".")
    if last in ("rz", "rp", "rm", "rn", "ra"):
        return family(stem)
    if "fmk." in mnemonic:
        return f"{stem}.eq"
    if mnemonic.startswith("cmov."):
        return f"{stem}.af"
    head, dot, rest = mnemonic.partition(".")
    return ("brlt" if head.startswith("br") else "blt") + dot + rest


@pytest.mark.parametrize("part", range(PARTS))
def test_intrinsics(part: int, bench: Bench, objects: list[Path]) -> None:
    library = bench.machine.load(str(objects[part]))
    complaints: list[str] = []
    for name in part_names(part):
        start = library.symbol(f"t_{name}")
        words = code_of(bench, start)
        for word in words:
            mnemonic = describe(word).split()[1]
            assert family(mnemonic) in specs(), f"{name}: {mnemonic} is in no test's table"
            assert name in NOT_RUN or family(mnemonic) not in UNMODELLED, f"{name}: {mnemonic}"
        if name in NOT_RUN:
            continue
        state = prepared(name, bench)
        bench.put(state)
        library.call(f"t_{name}", bench.window)
        called = bench.machine.read(bench.window, bench.size)
        bench.put(state)
        state.ic = start
        while state.ic != RETURN:
            word = words[(state.ic - start) // 8]
            if word >> 56 in (0x18, 0x19):
                bench.branch(state, word)
                continue
            outcome = bench.step(state, word)
            if outcome.complaints or outcome.trap:
                complaints.append(f"{name}: {outcome.complaints[:1]} {outcome.trap or ''}")
                break
        else:
            stepped = bench.machine.read(bench.window, bench.size)
            if called != stepped:
                at = next(i for i in range(bench.size) if called[i] != stepped[i])
                complaints.append(f"{name}: a call leaves another byte {at} than single steps")
    assert not complaints, f"{len(complaints)}:\n" + "\n".join(complaints[:8])

"""Finds a compiler for the vector engine and makes objects with it, each cached by its text.

clang with the VE target where it is installed, else PyPI's ziglang (a machine with pip alone can
compile), else NEC's ncc if it takes clang's intrinsics. The simulator loads objects; for VEOS,
NEC's linker makes each a shared one. LLVM has no way to put vector registers on the stack: it
refuses a function that needs more than there are, or takes %vix for one more, which is another
register by then. Such an object is `Refused`, and remembered.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import struct
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..runtime import cache
from ..runtime.toolchain import ToolchainError, call, cores, first_lines, zig_command
from . import cards

# Freestanding: what is not in the file is asked of the loader by name. No contraction: the scalar
# unit has no fused multiply-add, vector code says it where it is meant.
FLAGS = (
    *("-O2", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fwrapv", "-fPIC"),
    *("-ffreestanding", "-fno-builtin", "-w"),
)
NCC = ("ncc", "/opt/nec/ve/bin/ncc")
LINKERS = ("nld", "/opt/nec/ve/bin/nld")
_PROBE = """#include <velintrin.h>
void f(double *x) { _vel_vst_vssl(_vel_vld_vssl(8, x, 256), 8, x, 256); }
"""
# what LLVM says where it has no registers left, or no code at all: "Can't store this register to
# stack slot", "Can't load this register from stack slot"
_REFUSES = re.compile(r"error in backend: (.*)|ran out of registers")
_MASK_WORDS = (0xA7, 0xB7)  # svm, lvm
_SAVED = re.compile(r"svm %s\d+, ?%vm\d+, ?%s[0-3]$|lvm %vm\d+, ?%s[0-3],")
_FLAGS = re.compile(r"^/\* flags: (.*) \*/$", re.M)


class Refused(Exception):
    """A file that needs more vector registers than there are."""


@dataclass(frozen=True)
class Compiler:
    command: tuple[str, ...]  # up to the flags
    kind: str  # "ncc", "clang" or "zig"
    version: str

    @property
    def flags(self) -> tuple[str, ...]:
        if self.kind == "ncc":
            return ("-O2", "-fPIC", "-w")
        sanitize = ("-fno-sanitize=all",) if self.kind == "zig" else ()
        return (*FLAGS, *sanitize)


def find_compiler() -> Compiler:
    """SOL_VE_CC, else clang with the VE target, ziglang's, or ncc.

    Errors: `ToolchainError` where there is none, saying what to install.
    """
    return _find(os.environ.get("SOL_VE_CC", ""), os.environ.get("PATH", ""), cache.directory())


@lru_cache(maxsize=8)
def _find(wanted: str, path: str, folder: Path) -> Compiler:
    candidates = [tuple(shlex.split(wanted))] if wanted else []
    if not wanted:
        names = ("clang", *(f"clang-{n}" for n in range(30, 16, -1)))
        candidates += [(n,) for n in names if shutil.which(n, path=path)]
        candidates += [*zig_command(), *((n,) for n in NCC if shutil.which(n, path=path))]
    said = ""
    for command in candidates:
        try:
            return _known(command, path)
        except ToolchainError as e:
            said += f"\n{e}"
    raise ToolchainError(
        "no compiler for the vector engine found: `pip install ziglang`, or install clang with the"
        f" VE target or NEC's ncc (SOL_VE_CC names one){said}"
    )


def _known(command: tuple[str, ...], path: str) -> Compiler:
    """What a command is, if it compiles for VE; from the cache if it was asked before."""
    program = os.path.realpath(shutil.which(command[0], path=path) or command[0])
    try:
        status = os.stat(program)
    except OSError as e:
        raise ToolchainError(f"{command[0]}: {e}") from None
    name = cache.key("ve compiler", command, program, status.st_size, status.st_mtime_ns)
    found = cache.lookup(name, ".txt")
    if found is None:
        cache.store(name, ".txt", _asked(command).encode())
        found = cache.lookup(name, ".txt")
        assert found is not None
    kind, version = found.read_text().split("\n")
    return _compiler(command, kind, version)


def _compiler(command: tuple[str, ...], kind: str, version: str) -> Compiler:
    target = {
        "ncc": (),
        "zig": ("-target", "ve-freestanding"),
        "clang": ("--target=ve-unknown-linux-gnu",),
    }[kind]
    return Compiler((*command, *target), kind, version)


def _asked(command: tuple[str, ...]) -> str:
    """Kind and version of a compiler, in two lines. Errors: `ToolchainError`."""
    done = call([*command, "--version"])
    text = (done.stdout or done.stderr).strip()
    if done.returncode or not text:
        raise ToolchainError(f"{shlex.join(command)} --version failed: {done.stderr.strip()[:200]}")
    kind = "ncc" if Path(command[0]).name == "ncc" else "clang"
    version = text.splitlines()[0].strip()
    if Path(command[0]).name == "zig" or "ziglang" in command:
        kind = "zig"
        version += f", zig {call([*command[:-1], 'version']).stdout.strip()}"
    if kind == "clang":  # many are built without the VE target
        done = call([*command, "--print-targets"])
        if not re.search(r"^\s*ve\s", done.stdout, re.M):
            raise ToolchainError(f"{shlex.join(command)} has no VE target")
    with tempfile.TemporaryDirectory(prefix="sol-probe-") as folder:
        source = Path(folder) / "probe.c"
        source.write_text(_PROBE)
        compiler = _compiler(command, kind, version)
        out = str(source.with_suffix(".o"))
        done = call([*compiler.command, *compiler.flags, "-c", str(source), "-o", out])
        if done.returncode:
            said = first_lines(done.stderr)
            raise ToolchainError(f"{shlex.join(command)} does not take intrinsics:\n{said}")
    return f"{kind}\n{version}"


def compile_objects(sources: Mapping[str, str]) -> dict[str, Path | Refused]:
    """The object (for a card, the shared object) of each C file, or why there is none for lack of
    registers; files are compiled in parallel. A first line `/* flags: ... */` adds clang's flags.

    Errors: `ToolchainError` with the compiler's first words and where the refused file is kept.
    """
    compiler = find_compiler()
    done: dict[str, Path | Refused] = {}
    # the longest first, so that the last to end is a short one
    order = sorted(sources, key=lambda n: len(sources[n]), reverse=True)
    missing = []
    for name in order:
        found = _lookup(_key(compiler, sources[name]))
        if found is None:
            missing.append(name)
        else:
            done[name] = found
    if missing:
        with ThreadPoolExecutor(max(1, min(cores(), len(missing)))) as pool:
            made = pool.map(lambda n: _made(compiler, n, sources[n]), missing)
            done |= dict(zip(missing, made, strict=True))
    return done


def _shared() -> bool:
    """Whether objects have to be shared ones: VEOS loads no others."""
    return not cards.find().simulated


def _linked(path: Path) -> bytes:
    """A shared object of an object. Errors: `ToolchainError`."""
    linker = next((n for n in LINKERS if shutil.which(n)), None)
    if linker is None:
        raise ToolchainError("VEOS loads shared objects, and there is no nld: install binutils-ve")
    out = path.with_suffix(".so")
    done = call([linker, "-shared", "-o", str(out), str(path)])
    if done.returncode:
        raise ToolchainError(f"linking with {linker} failed:\n{first_lines(done.stderr)}")
    return out.read_bytes()


def _suffix() -> str:
    return ".ve.so" if _shared() else ".ve.o"


def _key(compiler: Compiler, text: str) -> str:
    return cache.key("ve object", compiler.command, compiler.version, compiler.flags, text)


def _lookup(key: str) -> Path | Refused | None:
    path = cache.lookup(key, _suffix())
    if path is not None:
        return path
    said = cache.lookup(key, ".refused")
    return None if said is None else Refused(said.read_text())


def _made(compiler: Compiler, name: str, text: str) -> Path | Refused:
    key = _key(compiler, text)
    with cache.building(key), tempfile.TemporaryDirectory(prefix="sol-ve-") as place:
        found = _lookup(key)  # another process may have made it meanwhile
        if found is not None:
            return found
        source = Path(place) / f"{key}.c"
        source.write_text(text)
        out = source.with_suffix(".o")
        own = _FLAGS.search(text) if compiler.kind != "ncc" else None
        extra = own[1].split() if own else []
        command = [*compiler.command, *compiler.flags, *extra, "-c"]
        done = call([*command, str(source), "-o", str(out)])
        refused = _REFUSES.search(done.stderr) if done.returncode else None
        if done.returncode and refused is None:
            kept = _keep(name, text)
            said = first_lines(done.stderr).replace(str(source), str(kept))
            raise ToolchainError(f"{command[0]} refused {name}, kept as {kept}:\n{said}")
        reason = refused[0] if refused else ""
        data = b"" if reason else out.read_bytes()
        if not reason and compiler.kind != "ncc":
            reason = miscompiled(data)
        if not reason and _shared():
            data = _linked(out)
        if reason:
            cache.store(key, ".refused", reason.encode())
            return Refused(reason)
        return cache.store(key, _suffix(), data)


def _keep(name: str, text: str) -> Path:
    """Leave a refused file where it can be looked at: in SOL_DUMP, else in the cache."""
    folder = Path(os.environ.get("SOL_DUMP") or cache.directory() / "refused")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(name).name
    path.write_text(text)
    return path


def miscompiled(elf: bytes) -> str:
    """What LLVM did wrong for lack of registers, or "". It allocates %vix like any vector register,
    and it is an alias of one; and it saves masks by `svm` and `lvm` with the number of a word as
    if it were a register's."""
    from . import sim

    words: set[int] = set()
    for section in _code_sections(elf):
        words |= set(struct.unpack(f"<{len(section) // 8}Q", section[: len(section) // 8 * 8]))
    for w in words:
        # a vector register's number is one byte of the lower half: 255 is %vix
        if 0xFF in (w & 0xFF, w >> 8 & 0xFF, w >> 16 & 0xFF, w >> 24 & 0xFF):
            if "%vix" in sim.disassemble(w):
                return "%vix was taken for a vector register"
        elif w >> 56 in _MASK_WORDS and w >> 47 & 1 and _SAVED.match(sim.disassemble(w)):
            return "masks were saved to the stack"
    return ""


def _code_sections(elf: bytes) -> Sequence[bytes]:
    """The bytes of an ELF file's sections of instructions."""
    (headers,) = struct.unpack_from("<Q", elf, 0x28)
    size, count = struct.unpack_from("<HH", elf, 0x3A)
    found = []
    for n in range(count):
        at = headers + n * size
        kind, flags = struct.unpack_from("<IQ", elf, at + 4)
        offset, length = struct.unpack_from("<QQ", elf, at + 24)
        if kind == 1 and flags & 4:  # SHT_PROGBITS, SHF_EXECINSTR
            found.append(elf[offset : offset + length])
    return found


@lru_cache(maxsize=4096)
def code_bytes(path: Path, name: str) -> int:
    """How long a function's code is; 0 where a file does not tell."""
    elf = path.read_bytes()
    (headers,) = struct.unpack_from("<Q", elf, 0x28)
    size, count = struct.unpack_from("<HH", elf, 0x3A)
    wanted = name.encode() + b"\0"
    for n in range(count):
        at = headers + n * size
        kind, link = (
            struct.unpack_from("<I", elf, at + 4)[0],
            struct.unpack_from("<I", elf, at + 40)[0],
        )
        if kind not in (2, 11):  # SHT_SYMTAB, SHT_DYNSYM
            continue
        offset, length = struct.unpack_from("<QQ", elf, at + 24)
        (names,) = struct.unpack_from("<Q", elf, headers + link * size + 24)
        for entry in range(offset, offset + length, 24):
            (text,) = struct.unpack_from("<I", elf, entry)
            if elf.startswith(wanted, names + text):
                return struct.unpack_from("<Q", elf, entry + 16)[0]
    return 0

"""Finds a C compiler and builds shared libraries with it, each file's object cached on its own.

gcc or clang from PATH, else PyPI's `ziglang`: a machine with pip alone can compile. Only plain C
and nothing of Python's or torch's headers is built here.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from . import cache


class ToolchainError(RuntimeError):
    """No compiler, or one that refused a file; the message says which and what to do."""


@dataclass(frozen=True)
class Compiler:
    command: tuple[str, ...]
    kind: str  # "gcc", "clang" or "zig"
    version: str

    @property
    def flags(self) -> tuple[str, ...]:
        """Contraction to FMA is allowed, reassociation is not: results must not change."""
        flags = ["-O2", "-march=native", "-ffp-contract=fast", "-fno-math-errno"]
        flags += ["-fno-trapping-math", "-fPIC", "-w"]
        if self.kind == "gcc" and "avx512f" in cpu_features():
            flags.append("-mprefer-vector-width=512")
        if self.kind == "zig":
            flags.append("-fno-sanitize=all")
        return tuple(flags)


@lru_cache(maxsize=1)
def find_compiler() -> Compiler:
    """The compiler to use: SOL_CC, gcc, clang, cc, or ziglang."""
    wanted = os.environ.get("SOL_CC")
    candidates = [tuple(wanted.split())] if wanted else [("gcc",), ("clang",), ("cc",)]
    for command in candidates:
        if shutil.which(command[0]):
            version = _version(command)
            if version is None and wanted:
                raise ToolchainError(f"SOL_CC={wanted!r} does not answer --version")
            if version is not None:
                kind = (
                    "zig"
                    if "zig" in " ".join(command)
                    else "clang"
                    if "clang" in version
                    else "gcc"
                )
                return Compiler(command, kind, version)
        elif wanted:
            raise ToolchainError(f"SOL_CC={wanted!r} is not on PATH")
    if find_spec("ziglang") is not None:
        command = (sys.executable, "-m", "ziglang", "cc")
        version = _version(command)
        if version is not None:
            return Compiler(command, "zig", version)
    raise ToolchainError("no C compiler found: install gcc or clang, or `pip install ziglang`")


def _version(command: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else None


@lru_cache(maxsize=1)
def cpu_features() -> str:
    """What identifies this machine's instruction set: flags of /proc/cpuinfo, else its name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return " ".join(sorted(line.split(":", 1)[1].split()))
    except OSError:
        pass
    return f"{platform.machine()} {platform.processor()}"


@lru_cache(maxsize=1)
def cache_sizes() -> tuple[int, int, int]:
    """(L1 data, L2, L3) of a core in bytes, as the kernel says, else modest guesses."""
    sizes = {1: 32 << 10, 2: 1 << 20, 3: 16 << 20}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind = (folder / "type").read_text().strip()
            level = int((folder / "level").read_text())
            text = (folder / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and text[:-1].isdigit():
            sizes[level] = int(text[:-1]) << {"K": 10, "M": 20, "G": 30}.get(text[-1], 0)
    return sizes[1], sizes[2], sizes[3]


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compile_shared(sources: dict[str, str]) -> Path:
    """A shared library of C files, from the cache where it is there; compiles in parallel.

    Errors: `ToolchainError` with the compiler's first words and the file's name.
    """
    compiler = find_compiler()
    identity = (compiler.command, compiler.version, compiler.flags, cpu_features())
    keys = {name: cache.key(identity, text) for name, text in sources.items()}
    whole = cache.key(identity, *sorted(keys.values()))
    found = cache.lookup(whole, ".so")
    if found is not None:
        return found
    objects: dict[str, Path] = {}
    missing = []
    for name, k in keys.items():
        found = cache.lookup(k, ".o")
        if found is None:
            missing.append(name)
        else:
            objects[name] = found
    with tempfile.TemporaryDirectory(prefix="sol-build-") as folder:
        for name, path in _compile(compiler, {n: sources[n] for n in missing}, Path(folder)):
            objects[name] = cache.store(keys[name], ".o", path)
        out = Path(folder) / "program.so"
        command = [*compiler.command, "-shared", "-o", str(out)]
        _check(
            subprocess.run(
                [*command, *map(str, objects.values()), "-lm"], capture_output=True, text=True
            ),
            "link",
        )
        return cache.store(whole, ".so", out)


def _compile(compiler: Compiler, sources: dict[str, str], folder: Path):
    """Compile files, as many at a time as there are cores, largest first."""
    jobs = cores()
    waiting = sorted(sources, key=lambda n: len(sources[n]))
    running: list[tuple[str, Path, subprocess.Popen]] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop()
                source = folder / name
                source.write_text(sources[name])
                out = source.with_suffix(".o")
                command = [*compiler.command, *compiler.flags, "-c", str(source), "-o", str(out)]
                process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
                running.append((name, out, process))
            name, out, process = running.pop(0)
            text = process.communicate()[1]
            _check(subprocess.CompletedProcess(process.args, process.returncode, "", text), name)
            yield name, out
    finally:
        for _, _, process in running:
            process.kill()
            process.communicate()


def _check(done: subprocess.CompletedProcess, what: str) -> None:
    if done.returncode:
        first = "\n".join(done.stderr.splitlines()[:12])
        raise ToolchainError(f"the C compiler failed on {what}:\n{first}")

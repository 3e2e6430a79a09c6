"""Finds a C compiler and builds shared libraries with it, each file's object cached on its own.

gcc or clang from PATH, else PyPI's `ziglang`: a machine with pip alone can compile. What is built
here is plain C: it must not need Python's or torch's headers, and no flag may change results.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from . import cache

# Contraction to FMA is allowed, reassociation is not (never -ffast-math); nobody reads errno or the
# exception flags; integers wrap, as eager's do.
BASE_FLAGS = (
    *("-O2", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fwrapv"),
    *("-fPIC", "-w"),
)
_ERROR_LINES = 12


class ToolchainError(RuntimeError):
    """No compiler, or one that refused a file; the message says which and what to do."""


@dataclass(frozen=True)
class Compiler:
    command: tuple[str, ...]
    kind: str  # "gcc", "clang" or "zig"
    version: str
    cpu: str  # flags that choose the instruction set, as accepted by this compiler

    @property
    def flags(self) -> tuple[str, ...]:
        sanitize = ("-fno-sanitize=all",) if self.kind == "zig" else ()  # zig's default traps
        return (*BASE_FLAGS, *self.cpu.split(), *sanitize)


def find_compiler() -> Compiler:
    """The compiler to use: SOL_CC, else gcc, clang or cc on PATH, else PyPI's ziglang.

    Errors: `ToolchainError` where there is none, saying what to install.
    """
    return _find(os.environ.get("SOL_CC", ""), os.environ.get("PATH", ""), cache.directory())


@lru_cache(maxsize=8)
def _find(wanted: str, path: str, folder: Path) -> Compiler:
    """`find_compiler` in an environment; `folder`: where what was found out is kept."""
    if wanted:
        command = tuple(shlex.split(wanted))
        if not command or shutil.which(command[0], path=path) is None:
            raise ToolchainError(f"SOL_CC={wanted!r} is not on PATH")
        return _known(command, path)
    tried = []
    commands = [(name,) for name in ("gcc", "clang", "cc") if shutil.which(name, path=path)]
    for command in [*commands, *zig_command()]:
        try:
            return _known(command, path)
        except ToolchainError as e:
            tried.append(str(e))
    found = "".join(f"\n{t}" for t in tried)
    raise ToolchainError(
        f"no working C compiler found: `pip install ziglang`, or install gcc or clang{found}"
    )


def zig_command() -> list[tuple[str, ...]]:
    """PyPI's ziglang as a C compiler, where it is installed."""
    spec = find_spec("ziglang")
    if spec is None or spec.origin is None:
        return []
    binary = Path(spec.origin).with_name("zig")  # without a Python start for each file
    if os.access(binary, os.X_OK):
        return [(str(binary), "cc")]
    return [(sys.executable, "-m", "ziglang", "cc")]


def _known(command: tuple[str, ...], path: str) -> Compiler:
    """What a command is, from the cache if the program is the one that was asked before."""
    program = os.path.realpath(shutil.which(command[0], path=path) or command[0])
    status = os.stat(program)
    name = cache.key(
        "compiler", command, program, status.st_size, status.st_mtime_ns, cpu_features()
    )
    found = cache.lookup(name, ".json")
    if found is not None:
        return Compiler(**{**json.loads(found.read_text()), "command": command})
    compiler = _ask(command)
    cache.store(name, ".json", json.dumps(asdict(compiler)).encode())
    return compiler


def _ask(command: tuple[str, ...]) -> Compiler:
    done = call([*command, "--version"])
    if done.returncode or not done.stdout.strip():
        raise ToolchainError(f"{shlex.join(command)} --version failed: {done.stderr.strip()[:200]}")
    text = done.stdout.lower()
    kind = "clang" if "clang" in text else "gcc"
    if "ziglang" in text or any(Path(c).stem in ("zig", "ziglang") for c in command):
        kind = "zig"
    version = done.stdout.splitlines()[0].strip()
    if kind == "zig":
        version += f", zig {call([*command[:-1], 'version']).stdout.strip()}"
    wide = "-mprefer-vector-width=512" if "avx512f" in cpu_features().split() else ""
    with tempfile.TemporaryDirectory(prefix="sol-probe-") as folder:
        source = Path(folder) / "probe.c"
        source.write_text("int sol_probe(int x) { return x + 1; }\n")
        # clang spells it -mcpu on some machines, and knows nothing of others
        candidates = (f"-march=native {wide}", "-march=native", "-mcpu=native", "")
        for cpu in dict.fromkeys(c.strip() for c in candidates):
            compiler = Compiler(command, kind, version, cpu)
            out = str(source.with_suffix(".o"))
            done = call([*command, *compiler.flags, "-c", str(source), "-o", out])
            if done.returncode == 0:
                return compiler
    raise ToolchainError(f"{shlex.join(command)} compiles nothing:\n{first_lines(done.stderr)}")


def call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a compiler; one that cannot be run fails with status 127."""
    environment = dict(os.environ)
    # zig keeps a cache of its own, by default under HOME, which may not be writable
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache.directory() / "zig"))
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, check=False
        )
    except OSError as e:
        return subprocess.CompletedProcess(command, 127, "", str(e))


def first_lines(text: str) -> str:
    """As much of a compiler's errors as a person reads."""
    return "\n".join(text.splitlines()[:_ERROR_LINES])


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
    """(L1 data, L2, L3) in bytes per core: a cache that cores share counts by its share."""
    sizes = {1: 32 << 10, 2: 1 << 20, 3: 2 << 20}  # where nothing is told: modest guesses
    names = {1: "SC_LEVEL1_DCACHE_SIZE", 2: "SC_LEVEL2_CACHE_SIZE", 3: "SC_LEVEL3_CACHE_SIZE"}
    for level, name in names.items():
        if name in getattr(os, "sysconf_names", {}):
            found = os.sysconf(name)
            sizes[level] = found if found > 0 and level < 3 else sizes[level]
    cpu = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    root = Path(f"/sys/devices/system/cpu/cpu{cpu}")
    threads = _count(root / "topology" / "thread_siblings_list")
    for folder in sorted((root / "cache").glob("index*")):
        try:
            kind = (folder / "type").read_text().strip()
            level = int((folder / "level").read_text())
            text = (folder / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and text[:-1].isdigit():
            total = int(text[:-1]) << {"K": 10, "M": 20, "G": 30}.get(text[-1], 0)
            sizes[level] = total // max(_count(folder / "shared_cpu_list") // threads, 1)
    return sizes[1], sizes[2], sizes[3]


def _count(path: Path) -> int:
    """How many CPUs a kernel list such as "0-3,8" names; 1 where there is none."""
    try:
        parts = [p.split("-") for p in path.read_text().strip().split(",")]
        return sum(int(p[-1]) - int(p[0]) + 1 for p in parts)
    except (OSError, ValueError):
        return 1


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compile_shared(sources: dict[str, str], flags: Sequence[str] = ()) -> Path:
    """A shared library of C files (name -> text), from the cache where it is there.

    Each file's object is cached by its text: programs that share a file compile it once. Files are
    compiled in parallel. `flags` stand behind `Compiler.flags`.

    Errors: `ToolchainError` with the compiler's first words and where the refused file is kept.
    """
    compiler = find_compiler()
    flags = (*compiler.flags, *flags)
    identity = (compiler.command, compiler.version, flags, cpu_features())
    objects = {name: cache.key("object", identity, text) for name, text in sources.items()}
    whole = cache.key("library", identity, *objects.values())
    found = cache.lookup(whole, ".so")
    if found is not None:
        return found
    with cache.building(whole), tempfile.TemporaryDirectory(prefix="sol-build-") as name:
        found = cache.lookup(whole, ".so")  # another process may have built it meanwhile
        if found is not None:
            return found
        folder = Path(name)

        def made(name: str) -> Path:
            return cache.lookup(objects[name], ".o") or _compile(
                [*compiler.command, *flags], name, sources[name], objects[name], folder
            )

        # the longest first, so that the last to end is a short one
        order = sorted(sources, key=lambda n: len(sources[n]), reverse=True)
        with ThreadPoolExecutor(max(1, min(cores(), len(sources)))) as pool:
            paths = dict(zip(order, pool.map(made, order), strict=True))
        out = folder / "library.so"
        parts = [str(paths[n]) for n in sources]
        # zig builds its runtime to these flags: without them it takes 15 s for sanitizers' once
        link = [*compiler.command, *compiler.flags, "-shared", "-o", str(out), *parts, "-lm"]
        done = call(link)
        if done.returncode:
            raise ToolchainError(f"linking failed:\n{first_lines(done.stderr)}")
        return cache.store(whole, ".so", out.read_bytes())


def _compile(command: list[str], name: str, text: str, object_key: str, folder: Path) -> Path:
    # not under the caller's name: equal objects must come from equal commands
    source = folder / f"{object_key}.c"
    source.write_text(text)
    out = source.with_suffix(".o")
    done = call([*command, "-c", str(source), "-o", str(out)])
    if done.returncode:
        kept = _keep(name, text)
        said = first_lines(done.stderr).replace(str(source), str(kept))
        raise ToolchainError(f"{command[0]} refused {name}, kept as {kept}:\n{said}")
    return cache.store(object_key, ".o", out.read_bytes())


def _keep(name: str, text: str) -> Path:
    """Leave a refused file where it can be looked at: in SOL_DUMP, else in the cache."""
    folder = Path(os.environ.get("SOL_DUMP") or cache.directory() / "refused")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(name).name
    path.write_text(text)
    return path

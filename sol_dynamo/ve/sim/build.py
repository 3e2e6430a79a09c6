"""Builds the simulator's shared library at first use, into the package's cache.

One library holds the core, NEC's driver interface and the cycle model. Each file's object is cached
by its text, the headers' and the compiler: a change rebuilds what it touches. It must not know what
the library does.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from ...runtime import cache
from ...runtime.toolchain import ToolchainError, call, cores, cpu_features, first_lines

SOURCES = Path(__file__).with_name("csrc")

# Results must be IEEE's: no contraction, no reassociation. Signed integers wrap as the machine's
# do; registers are read as the type that an instruction says. Exceptions' flags are not modelled.
FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=default", "-pthread", "-fwrapv"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing"),
    "-fno-semantic-interposition",  # calls within the library are direct
)
WARNINGS = ("-Wall", "-Wextra")


def compilers() -> list[tuple[str, ...]]:
    """The C++ compilers to try: SOL_CXX alone if it is set, else g++, clang++, c++, ziglang's."""
    wanted = os.environ.get("SOL_CXX")
    if wanted:
        return [tuple(shlex.split(wanted))]
    found: list[tuple[str, ...]] = [(c,) for c in ("g++", "clang++", "c++") if shutil.which(c)]
    if find_spec("ziglang") is not None:
        found.append((sys.executable, "-m", "ziglang", "c++"))
    return found


@lru_cache(maxsize=8)
def _flags_of(command: tuple[str, ...]) -> tuple[str, ...]:
    """The flags that choose this machine's instruction set, of those that the compiler takes."""
    zig = ("-fno-sanitize=all",) if "ziglang" in command else ()  # its default traps on wrapping
    wide = ("-mprefer-vector-width=512",) if "avx512f" in cpu_features().split() else ()
    said = ""
    with tempfile.TemporaryDirectory(prefix="sol-probe-") as name:
        source = Path(name) / "probe.cpp"
        source.write_text("#include <cmath>\nint sol_probe() { return 1; }\n")
        candidates = (("-march=native", *wide), ("-march=native",), ("-mcpu=native",), ())
        for cpu in dict.fromkeys(candidates):
            flags = (*FLAGS, *cpu, *zig)
            out = str(source.with_suffix(".o"))
            done = call([*command, *flags, "-c", str(source), "-o", out])
            if done.returncode == 0:
                return flags
            said = done.stderr
    raise ToolchainError(f"{shlex.join(command)} compiles no C++17:\n{first_lines(said)}")


def library() -> Path:
    """The path of the built library, from the cache where it is there.

    Errors: `ToolchainError` where no C++ compiler works, with what each one said.
    """
    said = []
    for command in compilers():
        try:
            return _build(command, _flags_of(command))
        except ToolchainError as e:
            said.append(str(e))
    found = "".join(f"\n{s}" for s in said)
    raise ToolchainError(
        "the vector engine's simulator needs a C++17 compiler: install g++ or clang++, or"
        f" `pip install ziglang`{found}"
    )


def _build(command: tuple[str, ...], flags: tuple[str, ...]) -> Path:
    sources = {p.name: p.read_text() for p in sorted(SOURCES.glob("*.cpp"))}
    headers = {p.name: p.read_text() for p in sorted(SOURCES.glob("*.h"))}
    identity = (command, _version(command), flags, cpu_features(), sorted(headers.items()))
    objects = {name: cache.key("ve object", identity, name, t) for name, t in sources.items()}
    whole = cache.key("ve library", identity, *sorted(objects.values()))
    found = cache.lookup(whole, ".so")
    if found is not None:
        return found
    with cache.building(whole), tempfile.TemporaryDirectory(prefix="sol-ve-") as name:
        found = cache.lookup(whole, ".so")  # another process may have built it meanwhile
        if found is not None:
            return found
        folder = Path(name)
        for header, text in headers.items():
            (folder / header).write_text(text)

        def made(name: str) -> Path:
            ready = cache.lookup(objects[name], ".o")
            if ready is not None:
                return ready
            source = folder / name
            source.write_text(sources[name])
            out = source.with_suffix(".o")
            done = call([*command, *flags, *WARNINGS, "-c", str(source), "-o", str(out)])
            if done.returncode:
                said = first_lines(done.stderr).replace(str(folder), str(SOURCES))
                raise ToolchainError(f"{shlex.join(command)} refused {name}:\n{said}")
            return cache.store(objects[name], ".o", out.read_bytes())

        # the longest first, so that the last to end is a short one
        order = sorted(sources, key=lambda n: len(sources[n]), reverse=True)
        with ThreadPoolExecutor(max(1, min(cores(), len(order)))) as pool:
            paths = list(pool.map(made, order))
        out = folder / "libveo_sim.so"
        link = [*command, *flags, "-shared", "-Wl,-Bsymbolic", "-o", str(out)]
        link += [*map(str, paths), "-lm"]
        done = call(link)
        if done.returncode:
            raise ToolchainError(f"linking the simulator failed:\n{first_lines(done.stderr)}")
        return cache.store(whole, ".so", out.read_bytes())


@lru_cache(maxsize=8)
def _version(command: tuple[str, ...]) -> str:
    return call([*command, "--version"]).stdout

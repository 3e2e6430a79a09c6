"""Builds the device's C++ part at first use, against the torch that is installed, and loads it.

Plain calls of the compiler, all files at once, no build system: what comes out lies in the cache
under the sources, torch's version and the compiler. Torch's headers and libraries want g++, or a
clang++ with libstdc++: PyPI's ziglang cannot do this one.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import platform
import shlex
import shutil
import sys
import sysconfig
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch

from ..runtime import cache
from ..runtime.toolchain import ToolchainError, call, cores

NAME = "_device"
SOURCES = Path(__file__).parent / "csrc"
TORCH = Path(torch.__file__).parent
# C++20 is what torch 2.14's headers ask for; visibility as pybind11 wants it
FLAGS = (
    *("-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *("-DAT_PER_OPERATOR_HEADERS", f"-DTORCH_EXTENSION_NAME={NAME}"),
    f"-fmacro-prefix-map={SOURCES}=sol_dynamo/ve/csrc",  # what warnings name as their place
)
LIBRARIES = ("c10", "torch", "torch_cpu", "torch_python")
_ERROR_LINES = 20
_loading = threading.Lock()
_loaded: ModuleType | None = None


def compiler() -> list[str]:
    """The C++ compiler: SOL_CXX, else g++, clang++ or c++ on PATH.

    Errors: `ToolchainError` where there is none, saying what to install.
    """
    command, error = _compiler(os.environ.get("SOL_CXX", ""), os.environ.get("PATH"))
    if error:
        raise ToolchainError(error)
    return list(command)


@lru_cache
def _compiler(variable: str, path: str | None) -> tuple[tuple[str, ...], str]:
    """The command, and what is wrong. Looked for once: at each op on fake tensors torch asks
    whether the device is available."""
    wanted = tuple(shlex.split(variable))
    if wanted:
        there = shutil.which(wanted[0], path=path) is not None
        return wanted, "" if there else f"SOL_CXX={wanted[0]!r} is not on PATH"
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name, path=path):
            return (name,), ""
    return (), (
        "the ve device is built with a C++ compiler when it is first used, and none was found: "
        "install g++ (ziglang does not do here, since torch is linked with libstdc++)"
    )


def usable() -> bool:
    """Whether the extension is loaded, or there is a compiler to build it."""
    try:
        return _loaded is not None or bool(compiler())
    except ToolchainError:
        return False


def load() -> ModuleType:
    """The extension, built if it is not in the cache (half a minute on two cores)."""
    global _loaded
    with _loading:
        if _loaded is None:
            name = f"{__package__}.{NAME}"
            path = str(build())
            loader = importlib.machinery.ExtensionFileLoader(name, path)
            spec = importlib.util.spec_from_file_location(name, path, loader=loader)
            assert spec is not None
            module = importlib.util.module_from_spec(spec)
            loader.exec_module(module)
            _loaded = module
        return _loaded


def build() -> Path:
    """The path of the shared library, compiled if it is not in the cache."""
    command = compiler()
    version = _run([*command, "--version"], "no C++ compiler").splitlines()[0]
    headers = {p.name: p.read_text() for p in sorted(SOURCES.glob("*.h"))}
    sources = {p.name: p.read_text() for p in sorted(SOURCES.glob("*.cpp"))}
    identity = (
        *(command, version, FLAGS[:-1], headers, torch.__version__, torch.version.git_version),
        *(sys.implementation.cache_tag, platform.machine()),
    )
    names = {s: cache.key("ve object", identity, text) for s, text in sources.items()}
    whole = cache.key("ve extension", *names.values())
    with cache.building(whole), tempfile.TemporaryDirectory(prefix="sol-ve-") as folder:
        found = cache.lookup(whole, ".so")
        if found is not None:
            return found

        def compiled(source: str) -> str:
            path = cache.lookup(names[source], ".o")
            return str(path or _compile(command, source, names[source], Path(folder)))

        # the longest take longest: first, so that the last to end is a short one
        order = sorted(sources, key=lambda s: len(sources[s]), reverse=True)
        with ThreadPoolExecutor(max(1, min(cores(), len(order)))) as pool:
            objects = list(pool.map(compiled, order))
        out = Path(folder) / "extension.so"
        libraries = [f"-l{name}" for name in LIBRARIES]
        link = ["-shared", "-o", str(out), *sorted(objects), f"-L{TORCH / 'lib'}", *libraries]
        _run([*command, *link], "the ve device could not be linked")
        return cache.store(whole, ".so", out.read_bytes())


def _compile(command: list[str], source: str, name: str, folder: Path) -> Path:
    include = TORCH / "include"
    places = [include, include / "torch" / "csrc" / "api" / "include", _python_headers()]
    out = folder / f"{Path(source).stem}.o"
    system = [flag for place in places for flag in ("-isystem", str(place))]
    what = f"the ve device's {source} could not be compiled for torch {torch.__version__}"
    arguments = [*FLAGS, *system, "-c", str(SOURCES / source), "-o", str(out)]
    _run([*command, *arguments], what)
    return cache.store(name, ".o", out.read_bytes())


def _python_headers() -> Path:
    folder = Path(sysconfig.get_paths()["include"])
    if not (folder / "Python.h").exists():
        raise ToolchainError(
            f"the ve device is built with Python's headers, and {folder} has no Python.h: "
            "install python3-dev (python3-devel)"
        )
    return folder


def _run(command: list[str], failure: str) -> str:
    done = call(command)
    if done.returncode:
        lines = done.stderr.splitlines()
        errors = [line for line in lines if "error" in line] or lines
        said = "\n".join(errors[:_ERROR_LINES])
        raise ToolchainError(f"{failure}:\n{said}")
    return done.stdout

"""Each compiler at hand builds libraries that compute what C says, once for equal sources."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sol_dynamo.runtime import cache, toolchain
from sol_dynamo.runtime.toolchain import ToolchainError, compile_shared, find_compiler

COMPILERS = [
    pytest.param("gcc", marks=pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")),
    pytest.param("clang", marks=pytest.mark.skipif(not shutil.which("clang"), reason="no clang")),
    pytest.param("zig", marks=pytest.mark.skipif(not find_spec("ziglang"), reason="no ziglang")),
]


@pytest.fixture(scope="session")
def zig_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zig")  # filled once: 4 seconds


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zig_folder: Path) -> Path:
    monkeypatch.setenv("SOL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(zig_folder))
    monkeypatch.delenv("SOL_CC", raising=False)
    monkeypatch.delenv("SOL_DUMP", raising=False)
    return tmp_path / "cache"


@pytest.fixture(params=COMPILERS)
def compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    command = f"{sys.executable} -m ziglang cc" if request.param == "zig" else request.param
    monkeypatch.setenv("SOL_CC", command)
    return request.param


SOURCES = {
    "sum.c": """
        typedef float v16 __attribute__((vector_size(64), aligned(4)));
        double twice(double x);
        double reassociated(double a, double b) { return twice((a + b) - a) / 2; }
        int is_nan(double x) { return x != x; }
        double contracted(double a, double b, double c) { return a * b + c; }
        void add(float *x, const float *y) { *(v16 *)x += *(const v16 *)y; }
    """,
    "twice.c": "double twice(double x) { return 2 * x; }\n",
}


def load(sources: dict[str, str]) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(compile_shared(sources)))
    for name in ("reassociated", "contracted", "twice"):
        if hasattr(lib, name):
            getattr(lib, name).restype = ctypes.c_double
    return lib


def test_builds_and_does_not_change_results(compiler):
    assert find_compiler().kind == compiler
    lib = load(SOURCES)
    double = ctypes.c_double
    assert lib.reassociated(double(1e30), double(1.0)) == 0.0
    assert lib.is_nan(double(float("nan"))) == 1
    x, y = (ctypes.c_float * 16)(*range(16)), (ctypes.c_float * 16)(*[0.5] * 16)
    lib.add(x, y)
    assert list(x) == [i + 0.5 for i in range(16)]
    if "fma" in toolchain.cpu_features().split():  # -march=native and contraction took effect
        a = 1 + 2.0**-30
        assert lib.contracted(double(a), double(a), double(-1 - 2.0**-29)) == 2.0**-60


def test_never_fast_math(compiler):
    assert not any("fast-math" in f or "associative" in f for f in find_compiler().flags)


def test_equal_files_are_compiled_once(monkeypatch):
    find_compiler()
    calls = []
    real = toolchain.call

    def counted(command):
        calls.append("-c" in command)
        return real(command)

    monkeypatch.setattr(toolchain, "call", counted)
    first = compile_shared(SOURCES)
    assert sorted(calls) == [False, True, True]
    assert compile_shared(SOURCES) == first and len(calls) == 3
    calls.clear()
    other = {"other.c": "double four(double x) { return 4 * x; }\n"}
    second = compile_shared({**other, "renamed.c": SOURCES["twice.c"]})
    assert second != first and sorted(calls) == [False, True]
    assert len([p for p in cache.entries() if p.suffix == ".o"]) == 3
    calls.clear()
    assert compile_shared(SOURCES, flags=["-DX=1"]) != first and len(calls) == 3


@pytest.mark.parametrize("suffix", [".so", ".o"])
def test_damaged_files_are_built_again(suffix):
    compile_shared(SOURCES)
    for path in cache.entries():
        if path.suffix in (suffix, ".so"):
            path.write_bytes(path.read_bytes()[:100])
    cache._checked.clear()
    assert load(SOURCES).twice(ctypes.c_double(3)) == 6


def test_error_names_the_file_and_keeps_it(folder, tmp_path, monkeypatch, compiler):
    sources = {"good.c": "int f(void) { return 1; }\n", "bad.c": "int f(void) {\n  return x;\n}\n"}
    with pytest.raises(ToolchainError) as e:
        compile_shared(sources)
    kept = folder / "refused" / "bad.c"
    assert "refused bad.c" in str(e.value) and f"{kept}:2" in str(e.value)
    assert kept.read_text() == sources["bad.c"]
    monkeypatch.setenv("SOL_DUMP", str(tmp_path / "dump"))
    with pytest.raises(ToolchainError, match="bad"):
        compile_shared(sources)
    assert (tmp_path / "dump" / "bad.c").exists()


def test_link_errors_are_told():
    twice = SOURCES["twice.c"]
    with pytest.raises(ToolchainError, match=r"(?s)linking failed.*twice"):
        compile_shared({"a.c": twice, "b.c": twice + "/* again */"})


def test_what_to_do_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain, "find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match="pip install ziglang"):
        find_compiler()


def test_a_broken_compiler_is_passed_over(monkeypatch, tmp_path):
    for name, script in (("gcc", "exit 1"), ("cc", "echo some cc 1.0; exit 0")):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_compiler().command == ("cc",)


@pytest.mark.skipif(not find_spec("ziglang"), reason="no ziglang")
def test_ziglang_alone_is_enough(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", "/nonexistent")
    assert find_compiler().kind == "zig"
    assert load(SOURCES).twice(ctypes.c_double(3)) == 6


def test_wanted_compiler_must_exist(monkeypatch):
    monkeypatch.setenv("SOL_CC", "/no/such/cc -m64")
    with pytest.raises(ToolchainError, match=r"/no/such/cc -m64.*not on PATH"):
        find_compiler()


def test_the_machine_is_described():
    l1, l2, l3 = toolchain.cache_sizes()
    assert 4 << 10 <= l1 <= l2 and l3 > 0
    assert toolchain.cpu_features() and 1 <= toolchain.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("text,n", [("0-3,8", 5), ("7", 1), ("0-1,4-5\n", 4), ("", 1)])
def test_lists_of_cpus(tmp_path, text, n):
    (tmp_path / "list").write_text(text)
    assert toolchain._count(tmp_path / "list") == n


BUILD = """
import ctypes, sys
from sol_dynamo.runtime import toolchain
real, compiled = toolchain.call, []
def counted(command):
    compiled.append("-c" in command)
    return real(command)
toolchain.find_compiler()
toolchain.call = counted
sources = {f"{i}.c": f"int f{i}(int x) {{ return x + {i}; }}" for i in range(4)}
lib = ctypes.CDLL(str(toolchain.compile_shared(sources)))
assert [getattr(lib, f"f{i}")(1) for i in range(4)] == [1, 2, 3, 4]
print(sum(compiled))
"""


def test_processes_that_want_the_same_build_it_once():
    find_compiler()
    running = [
        subprocess.Popen([sys.executable, "-c", BUILD], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    compiled = sorted(int(p.communicate()[0]) for p in running)
    assert all(p.returncode == 0 for p in running)
    assert compiled == [0, 0, 0, 4] or not cache.fcntl

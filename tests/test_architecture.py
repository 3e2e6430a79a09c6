"""The layering of CONTRIBUTING.md as a test: who may import whom, and what may be named where.

Source is parsed, never imported, so that imports inside functions count as well. The rules are the
tables at the top, each line with its reason: a failure is answered by moving code, or by changing a
line and its reason in review.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sol_dynamo"


class Layer(NamedTuple):
    """A module or folder, what of the package it may import (`lazily`: in functions), and why."""

    name: str
    may: tuple[str, ...]
    why: str
    lazily: tuple[str, ...] = ()


IR = ("affine", "ir")
EMITTING = (*IR, "target", "lowering", "schedule", "runtime", "config", "compat")
PIPELINE = (*EMITTING, "spec", "fx_passes")
LAYERS = (
    Layer("", (), "import sol_dynamo costs nothing: what users call is looked up when asked for"),
    Layer("config", (), "options are read by all"),
    Layer("compat", (), "private torch imports, used by all"),
    Layer("affine", (), "indices stand below everything"),
    Layer("ir", ("affine",), "data and its printer"),
    Layer("spec", IR, "judges programs, whoever made them"),
    Layer("interp", IR, "defines the IR: knows neither schedules nor targets"),
    Layer("target", ("ir",), "the protocol speaks of programs; targets are loaded by name"),
    Layer(
        "fx_passes", ("compat", "config", "target"), "FX only: asks caps, never sees the loop IR"
    ),
    Layer("lowering", (*IR, "compat"), "FX to loop IR, free of devices and so of caps"),
    Layer("schedule", (*IR, "target"), "asks caps"),
    Layer("runtime", ("", "compat", "config"), "cache, compilers, weight sets: no IR, no target"),
    Layer(
        "kernels",
        (*EMITTING, "interp"),
        "writes source from scheduled IR and builds it with the runtime; Triton's own interpreter"
        " takes the functions that it lacks from ours",
    ),
    Layer("forms", (), "torch's own ops, by names that the compiler knows"),
    Layer(
        "ve",
        (*EMITTING, "kernels"),
        "a table over the C emitter, and a device, which asks for programs of ops that it is given",
        lazily=("forms", "eager"),
    ),
    Layer("sizes", ("compat",), "FX only: decides for which sizes the pipeline runs"),
    Layer("fallback", ("compat",), "FX only: what is not compiled"),
    Layer(
        "fast_path",
        ("compat", "target", "runtime"),
        "what a call has to look at: programs and weights, not how they are made",
    ),
    Layer("programs", ("ir", "target", "compat", "runtime"), "what graphs became, kept on disk"),
    Layer(
        "runner",
        ("ir", "compat", "target", "runtime", "programs", "fast_path"),
        "what calls do with a program, not how it is made",
    ),
    Layer(
        "traced",
        ("compat", "target", "programs", "runner", "fast_path"),
        "what Dynamo's graphs are traced to, kept on disk",
    ),
    Layer(
        "candidates",
        (*EMITTING, "programs"),
        "compiles parts of a graph in order to time them",
    ),
    Layer("decompositions", ("compat", "forms", "lowering"), "asks which ops have a rule"),
    Layer(
        "backend",
        (
            *PIPELINE,
            *("sizes", "fallback", "fast_path", "decompositions"),
            *("programs", "runner", "traced", "candidates"),
        ),
        "the pipeline: reaches kernels and ve by target's registry only",
    ),
    Layer(
        "eager",
        (*PIPELINE, "decompositions", "programs", "backend", "forms"),
        "a third entry: ops of a device's dispatcher, one at a time",
    ),
    Layer("device", ("target",), "which device models run on"),
    Layer("offload", ("compat", "config", "runtime"), "moves weights, inputs and outputs"),
    Layer("report", (*PIPELINE, "backend"), "compiles in order to explain"),
    Layer(
        "capture",
        (*PIPELINE, "backend", "runner", "device", "offload"),
        "a second entry beside backend",
    ),
    Layer(
        "_register",
        ("", "config"),
        "runs inside `import torch`: milliseconds, so nothing that imports torch's compilers",
        lazily=("compat", "ve"),
    ),
    Layer(
        "__main__",
        ("",),
        "the command line imports what a command asks for",
        lazily=("runtime", "target", "config", "report", "backend", "ve"),
    ),
)

# packages that only these modules may import
CONFINED = {
    "triton": ("kernels.triton",),  # absent on many machines, slow to import
    "torchvision": ("__main__",),  # not a dependency
}
DEVICE_FREE = (*IR, "spec", "interp", "fx_passes", "lowering", "schedule")
DEVICES = {"cpu", "cuda", "ve", "xpu", "mps", "hip", "privateuseone", "privateuse1"}
PRIVATE_TORCH = ("compat",)  # one place knows what changes between torch's versions
MOST_OPTIONS = 12
LONG = 600  # lines; a longer file's docstring says why it is "one file"
NAMELESS = ("utils", "helpers", "util", "helper", "misc", "common")


# -- reading source -------------------------------------------------------------------------------


class Import(NamedTuple):
    module: str  # "torch.fx", or inside the package "sol_dynamo.ir"
    name: str  # what is taken from the module, "" for the module itself
    line: int
    local: bool  # inside a function


@cache
def trees() -> dict[str, ast.Module]:
    """Module name inside the package ("" is the package itself) -> its syntax tree."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), str(path))
    return found


def path_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")) if module else PACKAGE
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[Import]:
    """Every import of a module, relative ones resolved."""
    full = ["sol_dynamo", *(module.split(".") if module else [])]
    here = full if is_package else full[:-1]

    def visit(node: ast.AST, local: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for a in node.names:
                yield Import(a.name, "", node.lineno, local)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for a in node.names:
                yield Import(source, a.name, node.lineno, local)
        inside = local or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(tree, False)


def imported(i: Import, known: set[str]) -> str | None:
    """The module inside the package that an import reads; None for what is not the package's."""
    if i.module.split(".")[0] != "sol_dynamo":
        return None
    module = i.module.partition(".")[2]
    deeper = f"{module}.{i.name}" if module else i.name
    return deeper if i.name and deeper in known else module


def layer_of(module: str) -> Layer | None:
    """The layer with the longest name that holds a module."""
    held = [x for x in LAYERS if within(module, x.name)]
    return max(held, key=lambda x: len(x.name), default=None)


def within(module: str, name: str) -> bool:
    return module == name or (name != "" and module.startswith(f"{name}."))


def misplaced(tree: ast.Module, module: str, is_package: bool, known: set[str]) -> list[str]:
    """What a module imports against the rules."""
    layer = layer_of(module)
    assert layer is not None, f"{module}: add a line to LAYERS with the reason"
    found = []
    for i in imports(tree, module, is_package):
        top = i.module.split(".")[0]
        if top in CONFINED and not any(within(module, m) for m in CONFINED[top]):
            found.append(f"{module}:{i.line} imports {top}: only {CONFINED[top]} may")
        other = imported(i, known)
        if other is None or (layer.name and within(other, layer.name)):
            continue
        allowed = layer.may + (layer.lazily if i.local else ())
        if not any(within(other, m) for m in allowed):
            when = " when it is loaded" if not i.local and layer.lazily else ""
            found.append(f"{module}:{i.line} imports {other}{when}: {layer.name} is {layer.why}")
    return found


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """`torch.fx.x` for an attribute chain, imported names resolved; "" for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


def torch_names(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every dotted name below torch that a module imports or uses, with its line."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for i in imports(tree, module, is_package):
        yield i.line, f"{i.module}.{i.name}".strip(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, dotted(node, names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value if re.fullmatch(r"torch(\.\w+)+", node.value) else ""


def is_private(name: str) -> bool:
    """A dotted name with a private part below torch; operators may start with an underscore."""
    parts = name.split(".")
    if parts[0] not in ("torch", "functorch") or parts[1:2] == ["ops"]:
        return False
    return any(p.startswith("_") and not p.startswith("__") for p in parts[1:])


def devices_named(tree: ast.Module, module: str) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.split(":")[0] in DEVICES:
                found.append(f"{module}:{node.lineno} names {node.value!r}")
        elif isinstance(node, ast.Attribute):
            if node.attr.removeprefix("is_") in DEVICES and node.attr.startswith("is_"):
                found.append(f"{module}:{node.lineno} asks .{node.attr}")
            if dotted(node, {}) in {f"torch.{d}" for d in DEVICES}:
                found.append(f"{module}:{node.lineno} uses {dotted(node, {})}")
    return found


# -- the rules ------------------------------------------------------------------------------------


def test_imports_go_one_way() -> None:
    known = set(trees())
    found: list[str] = []
    for module, tree in trees().items():
        found += misplaced(tree, module, path_of(module).name == "__init__.py", known)
    assert not found, "\n".join(found)


def test_the_table_itself_goes_one_way() -> None:
    """Every layer only names layers above it in the table, so that no cycle can be allowed."""
    seen: set[str] = set()
    for layer in LAYERS:
        later = [m for m in layer.may if m not in seen]
        assert not later, f"{layer.name} may import {later}, which stand below it"
        seen.add(layer.name)


def test_private_torch_only_in_compat() -> None:
    found = []
    for module, tree in trees().items():
        if not any(within(module, m) for m in PRIVATE_TORCH):
            for line, name in torch_names(tree, module, path_of(module).name == "__init__.py"):
                if is_private(name):
                    found.append(f"{module}:{line} uses {name}: give it a function in compat.py")
    assert not found, "\n".join(found)


def test_no_device_named() -> None:
    found: list[str] = []
    for module, tree in trees().items():
        if any(within(module, m) for m in DEVICE_FREE):
            found += devices_named(tree, module)
    assert not found, "\n".join([*found, "ask the target's caps"])


def options() -> list[str]:
    """The fields of Config."""
    body = trees()["config"].body
    record = next(n for n in body if isinstance(n, ast.ClassDef) and n.name == "Config")
    fields = [n.target for n in record.body if isinstance(n, ast.AnnAssign)]
    return [f.id for f in fields if isinstance(f, ast.Name)]


def environment() -> set[str]:
    """The variables SOL_* that the package reads outside of Config."""
    found = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Call, ast.Subscript)):
                function = node.func if isinstance(node, ast.Call) else node.value
                if "environ" in ast.unparse(function) or "getenv" in ast.unparse(function):
                    constants = (c for c in ast.walk(node) if isinstance(c, ast.Constant))
                    values = (c.value for c in constants if isinstance(c.value, str))
                    found |= {v for v in values if re.fullmatch(r"SOL_[A-Z_]+", v)}
    return found


def test_few_options_each_read() -> None:
    assert len(options()) <= MOST_OPTIONS
    read = set()
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if module != "config" and isinstance(node, ast.Attribute):
                owner = dotted(node.value, {}).split(".")[-1]
                if owner in ("c", "config"):
                    read.add(node.attr)
    unread = set(options()) - read
    assert not unread, f"no module reads config.{', config.'.join(sorted(unread))}"


def test_options_are_documented() -> None:
    text = (ROOT / "README.md").read_text()
    names = {f"SOL_{o.upper()}" for o in options()} | environment()
    assert not [n for n in sorted(names) if n not in text], "README.md names every option"


def test_names_say_something() -> None:
    for folder in ("sol_dynamo", "tests", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            assert path.stem not in NAMELESS, f"{path.relative_to(ROOT)}: say what is in it"


def test_long_files_say_why() -> None:
    found = []
    for module, tree in trees().items():
        lines = len(path_of(module).read_text().splitlines())
        if lines > LONG and "one file" not in (ast.get_docstring(tree) or "").lower():
            found.append(f"{module} has {lines} lines: split it, or say why it is one file")
    assert not found, "\n".join(found)


def test_every_module_has_a_docstring() -> None:
    missing = [m for m, t in trees().items() if t.body and not ast.get_docstring(t)]
    assert not missing, missing


# -- the rules fire, and near misses do not -------------------------------------------------------

KNOWN = {"", "ir", "target", "fx_passes", "fx_passes.layout", "kernels.c", "ve", "runtime.cache"}


@pytest.mark.parametrize(
    "module, source, other",
    [
        ("fx_passes.layout", "from ..ir import Program", "ir"),
        ("fx_passes.layout", "def f():\n    from .. import ir", "ir"),
        ("fx_passes.layout", "import sol_dynamo.ir", "ir"),
        ("runtime.cache", "from ..target import get_target", "target"),
        ("backend", "def f():\n    from .kernels.c import target", "kernels.c"),
        ("_register", "from . import ve", "ve"),
        ("", "from .ir import Program", "ir"),
    ],
)
def test_wrong_import_is_found(module: str, source: str, other: str) -> None:
    found = misplaced(ast.parse(source), module, module == "", KNOWN)
    assert len(found) == 1 and f"imports {other}" in found[0]


@pytest.mark.parametrize(
    "module, source",
    [
        ("fx_passes.layout", "from ..target import Caps"),
        ("fx_passes.layout", "from .ir import mine"),  # fx_passes.ir would be its own
        ("runtime.cache", "def f():\n    from .. import __version__"),
        ("kernels.c.target", "from ...runtime import cache\nfrom ... import ir"),
        ("_register", "def f():\n    from . import ve"),
        ("kernels.triton.emit", "import triton"),
    ],
)
def test_right_import_passes(module: str, source: str) -> None:
    assert misplaced(ast.parse(source), module, False, KNOWN) == []


def test_confined_package_is_found() -> None:
    found = misplaced(ast.parse("def f():\n    import triton.language"), "schedule", True, KNOWN)
    assert len(found) == 1 and "triton" in found[0]


@pytest.mark.parametrize(
    "source, private",
    [
        ("from torch._guards import x", True),
        ("from torch import _dynamo", True),
        ("import torch._inductor.config", True),
        ("import torch\ntorch._C._x()", True),
        ("from torch import fx\nfx._pytree.x", True),
        ("import torch\nimport_module('torch._dynamo')", True),
        ("import torch\ntorch.ops.aten._softmax.default", False),
        ("import torch\ntorch.__version__", False),
        ("import torch\ndef f(w: torch.Tensor): return w._version", False),
        ("from ._torch import x", False),
    ],
)
def test_private_names(source: str, private: bool) -> None:
    names = torch_names(ast.parse(source), "lowering.graph", False)
    assert any(is_private(n) for _, n in names) == private


@pytest.mark.parametrize(
    "source, named",
    [
        ('x.device.type == "cuda"', True),
        ('torch.device("cuda:0")', True),
        ("x.is_cuda", True),
        ("torch.cuda.synchronize()", True),
        ('"""Says cpu, cuda and ve in words."""', False),
        ('mode == "cpuish"', False),
        ("x.is_contiguous()", False),
    ],
)
def test_device_names(source: str, named: bool) -> None:
    assert bool(devices_named(ast.parse(source), "schedule")) == named

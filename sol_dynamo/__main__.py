"""The command line: `python -m sol_dynamo doctor | explain | coverage | bench | cache`.

`doctor` says what this machine has, what is missing and what to do about it; `explain` shows how a
torchvision network is compiled, `coverage` which of its ops are not; `bench` runs the repository's
benchmarks; `cache` shows or clears the compiled code on disk. What it asks about, it imports then.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__

VECTORS = ("avx2", "fma", "avx512f", "avx512vnni", "avx512_bf16", "amx_tile", "asimd", "sve")


def doctor() -> int:
    """Print versions, compiler, targets and cache; exit status 1 when nothing can be compiled."""
    from .runtime import cache, toolchain
    from .target import get_target, targets

    problems = []

    def line(name: str, value: str) -> None:
        print(f"{name:14}{value}")

    line("sol_dynamo", f"{__version__}, {Path(__file__).parent}")
    line("python", f"{platform.python_version()}, {platform.platform()}")
    for package in ("torch", "triton", "ziglang"):
        try:
            line(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            line(package, "not installed")
            if package == "torch":
                problems.append("install torch: pip install torch")
    entry_points = metadata.entry_points(group="torch_dynamo_backends", name="sol")
    line("torch.compile", 'backend="sol"' if entry_points else "not registered")
    if not entry_points:
        problems.append('pip install the package: backend="sol" is found by its entry point')

    features = toolchain.cpu_features().split()
    line("cpu", " ".join(v for v in VECTORS if v in features) or " ".join(features[:8]))
    try:
        compiler = toolchain.find_compiler()
        line("compiler", f"{' '.join(compiler.command)}: {compiler.version}")
    except toolchain.ToolchainError as e:
        line("compiler", "none")
        problems.append(str(e))

    usable = 0
    for name in targets():
        try:
            target = get_target(name)
            reason = "not in the registry" if target is None else target.available()
        except ImportError as e:  # the target's own package is missing
            target, reason = None, str(e)
        if target is None or reason is not None:
            line(f"target {name}", f"not available: {reason}")
            continue
        usable += 1
        facts = (f"{k} {v}" for k, v in target.describe().items() if k != "compiler")
        line(f"target {name}", "; ".join(facts))
    if not usable:
        problems.append("no target is available: every graph would run on ATen")

    line("device ve", _vector_engine())
    line("cache", f"{cache.directory()}, {len(cache.entries())} files, {_mebibytes(cache.size())}")
    for p in dict.fromkeys(problems):
        print(f"to do: {p}")
    return 0 if usable else 1


def _vector_engine() -> str:
    """Which cards there are, and who drives them. What is built at first use is not built here."""
    from .ve import cards, extension, registration

    if reason := registration.why_not():
        return f"not there: {reason}"
    try:
        found = cards.find()
        host = extension.compiler()
    except (ValueError, RuntimeError) as e:
        return f"not usable: {e}"
    count = f"{len(found.nodes)} card{'s' * (len(found.nodes) != 1)}"
    driver = os.environ.get("SOL_VE_DRIVER") or ("sim" if found.simulated else "native")
    kind = "simulated" if found.simulated else "with NEC's driver"
    return f"{count}, {kind} (driver {driver}); built with {host[0]}"


def explain(name: str, batch: int, size: int, backward: bool, table: bool) -> int:
    """Print how a torchvision network is compiled: its kernels, or a `table` of its ops."""
    try:
        from torchvision import models
    except ImportError:
        print("explain takes its networks from torchvision: pip install torchvision")
        return 1
    if name not in models.list_models():
        near = get_close_matches(name, models.list_models(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"torchvision has no network {name!r}{hint}")
        return 2
    import torch

    from . import explain as explained

    model = models.get_model(name, weights=None).train(backward)
    report = explained(model, torch.rand(batch, 3, size, size), backward=backward)
    print(_coverage(report) if table else report)
    return 0


def _coverage(report: Any) -> str:
    """Each op with how often it was compiled, how often left to ATen, and why."""
    rows = sorted(report.coverage().items(), key=lambda r: (-r[1].aten, -r[1].compiled, r[0]))
    lines = [f"{'compiled':>8} {'ATen':>6}  op"]
    for op, c in rows:
        why = "; ".join(f"{n} x {reason}" for reason, n in c.reasons.items())
        lines.append(f"{c.compiled:8} {c.aten:6}  {op}" + (f"  [{why}]" if why else ""))
    total = sum(c.compiled for _, c in rows), sum(c.aten for _, c in rows)
    return "\n".join([*lines, f"{total[0]:8} {total[1]:6}  in all"])


def bench(arguments: Sequence[str]) -> int:
    """Run the repository's benchmarks with these arguments."""
    root = Path(__file__).parents[1]
    if not (root / "benchmarks" / "bench.py").exists():
        print("the benchmarks are not part of the installed package: run this in its repository")
        return 1
    return subprocess.call([sys.executable, "-m", "benchmarks.bench", *arguments], cwd=root)


def cache_command(action: str) -> int:
    """Show or clear the compiled code on disk."""
    from .runtime import cache

    found, size = len(cache.entries()), cache.size()
    if action == "clear":
        cache.clear()
    where = "removed from" if action == "clear" else "in"
    print(f"{found} files, {_mebibytes(size)} {where} {cache.directory()}")
    return 0


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sol_dynamo", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="what this machine has, what is missing, what to do")
    for name, what in (
        ("explain", "how a torchvision network is compiled"),
        ("coverage", "which ops of a torchvision network are compiled, which run on ATen and why"),
    ):
        one = commands.add_parser(name, help=what)
        one.add_argument("model", help="its name, for example resnet50")
        one.add_argument("--batch", type=int, default=1)
        one.add_argument("--size", type=int, default=224, help="height and width of the images")
        one.add_argument("--backward", action="store_true", help="a training step")
    commands.add_parser("bench", help="the benchmarks (all arguments go there)", add_help=False)
    one = commands.add_parser("cache", help="the compiled code on disk")
    one.add_argument("action", choices=("show", "clear"), nargs="?", default="show")
    args, rest = parser.parse_known_args(argv)
    if args.command == "bench":
        return bench(rest)
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    if args.command == "doctor":
        return doctor()
    if args.command == "cache":
        return cache_command(args.action)
    table = args.command == "coverage"
    return explain(args.model, args.batch, args.size, args.backward, table)


if __name__ == "__main__":
    sys.exit(main())

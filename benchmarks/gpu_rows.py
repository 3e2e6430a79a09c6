"""Many tables of `benchmarks.gpu`: of a group, all are built side by side, then timed in turn.

    python -m benchmarks.gpu_rows resnet50,mobilenet_v2:1,32:default,ieee,autocast
    python -m benchmarks.gpu_rows mobilenet_v2:1:default@3 encoder:1,8:train+resnet50:32:train@0.6
    python -m benchmarks.gpu_rows resnet50:1:default --peers max_autotune,sol

A group is NETS:BATCHES:KINDS, or several of these joined by `+`, and after `@` the seconds that
each peer is called for. Groups follow one another, so that nothing is built while one is timed.
What all tables say is summed up at the end: the best peer's time over ours, and geometric means.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import product
from math import exp, log
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GRAPHS = "reduce_overhead,reduce_overhead_freezing"
ALL = f"eager,eager_graph,{GRAPHS},sol"
STEPS = "eager,inductor,reduce_overhead,sol"
SECONDS = 0.6
KINDS = {  # what `benchmarks.gpu` is given, and which peers
    "default": ([], ALL),
    "ieee": (["--precision", "ieee"], ALL),
    "autocast": (["--dtype", "autocast"], f"eager,{GRAPHS},sol"),
    "bfloat16": (["--dtype", "bfloat16"], f"eager,inductor,{GRAPHS},sol"),
    "train": (["--train"], STEPS),
    "train-bfloat16": (["--train", "--dtype", "bfloat16"], STEPS),
}
COMPILERS = "TORCHINDUCTOR_COMPILE_THREADS"  # each process of Inductor's starts as many as cores


@dataclass(frozen=True)
class Wanted:
    """One table: a network, a batch size and a kind of run."""

    net: str
    batch: int
    kind: str

    def __str__(self) -> str:
        return f"{self.net}, {self.batch}, {self.kind}"


@dataclass(frozen=True)
class Group:
    """Tables that are built at once."""

    tables: tuple[Wanted, ...]
    seconds: float

    @staticmethod
    def parse(text: str) -> Group:
        """Errors: `argparse.ArgumentTypeError`, for a group that is none."""
        specs, _, seconds = text.partition("@")
        tables: list[Wanted] = []
        for spec in specs.split("+"):
            try:
                nets, batches, kinds = (part.split(",") for part in spec.split(":"))
                tables += [Wanted(n, int(b), k) for n, b, k in product(nets, batches, kinds)]
                duration = float(seconds or SECONDS)
            except ValueError as e:
                raise argparse.ArgumentTypeError(f"{spec!r} is no NETS:BATCHES:KINDS ({e})") from e
            if unknown := set(kinds) - set(KINDS):
                known = ", ".join(KINDS)
                raise argparse.ArgumentTypeError(f"no kind {', '.join(unknown)}; there are {known}")
        return Group(tuple(tables), duration)


@dataclass(frozen=True)
class Line:
    """What a table says of ours; ratios are the peer's time over ours."""

    wanted: Wanted
    best: str  # the quickest peer
    ratio: float  # by medians
    at_best: float  # by minima
    eager: float | None
    ms: float
    ms_min: float
    error: float  # over eager's
    too_large: bool
    failed: tuple[str, ...]  # peers without a time

    def __str__(self) -> str:
        eager = f"{self.eager:6.1f}" if self.eager else " " * 6
        mark = " TOO LARGE" if self.too_large else ""
        without = f", without {', '.join(self.failed)}" if self.failed else ""
        return (
            f"{self.wanted!s:38} {self.ratio:6.2f} ({self.at_best:.2f}) {eager} "
            f"{self.ms:8.3f} ({self.ms_min:.3f})  {self.error:.2f}{mark}  {self.best}{without}"
        )


def line(wanted: Wanted, figures: dict[str, Any]) -> Line | None:
    """None where ours, or every peer, has no time."""
    timed = {r["peer"]: r for r in figures["rows"] if r["median"]}
    ours = timed.pop("sol", None)
    if ours is None or not timed:
        return None
    eager = timed.get("eager")
    best = min(timed.values(), key=lambda r: r["median"])
    return Line(
        wanted, best["peer"], best["median"] / ours["median"],
        min(r["min"] for r in timed.values()) / ours["min"],
        eager["median"] / ours["median"] if eager else None, ours["median"], ours["min"],
        ours["error"] / max(figures["eager_error"], 1e-12), ours["error"] > figures["allowed"],
        tuple(r["peer"] for r in figures["rows"] if r["failure"]),
    )  # fmt: skip


def run(group: Group, peers: str | None, compilers: int) -> list[Line]:
    """The tables of a group, printed as they are timed; a failed one is told and left out."""
    lines = []
    with tempfile.TemporaryDirectory(prefix="rows-") as folder:
        turns = f"{folder}/turns:{len(group.tables)}"
        environment = {COMPILERS: str(compilers), **os.environ}
        processes = []
        for k, w in enumerate(group.tables):
            options, usual = KINDS[w.kind]
            command = [sys.executable, "-m", "benchmarks.gpu", "--net", w.net, "--turns", turns]
            command += ["--batch", str(w.batch), "--seconds", str(group.seconds), *options]
            command += ["--peers", peers or usual, "--json", f"{folder}/{k}.json"]
            with open(f"{folder}/{k}.err", "w") as errors:
                processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stderr=errors)
                )
        for k, (w, process) in enumerate(zip(group.tables, processes, strict=True)):
            status, told = process.wait(), Path(folder, f"{k}.json")
            found = line(w, json.loads(told.read_text())) if told.exists() else None
            if found:
                lines.append(found)
            if status or not found:
                end = Path(folder, f"{k}.err").read_text().splitlines()[-3:]
                print(f"{w}: exit status {status}", *end, sep="\n    ", file=sys.stderr, flush=True)
    return lines


def means(lines: list[Line]) -> list[str]:
    """Geometric means of kinds and batch sizes."""
    found = []
    for kind, batch in dict.fromkeys((x.wanted.kind, x.wanted.batch) for x in lines):
        of = [x for x in lines if (x.wanted.kind, x.wanted.batch) == (kind, batch)]
        by_median, at_best = (
            exp(sum(map(log, ratios)) / len(of))
            for ratios in ([x.ratio for x in of], [x.at_best for x in of])
        )
        name = f"geometric mean of {len(of)}, {batch}, {kind}"
        found.append(f"{name:38} {by_median:6.3f} ({at_best:.3f})")
    return found


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("groups", nargs="+", type=Group.parse, metavar="GROUP")
    p.add_argument("--peers", help="instead of a kind's usual ones")
    p.add_argument("--compilers", type=int, default=4, help="processes of Inductor's, for each")
    args = p.parse_args(argv)
    lines: list[Line] = []
    for group in args.groups:
        lines += run(group, args.peers, args.compilers)
    print("best peer : ours by medians (minima), eager : ours, our ms (minimum), error : eager's")
    print(*lines, *means(lines), sep="\n")
    missing = sum(len(g.tables) for g in args.groups) - len(lines)
    return int(missing > 0 or any(x.too_large for x in lines))


if __name__ == "__main__":
    sys.exit(main())

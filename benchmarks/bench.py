"""Every peer on torchvision networks: built, checked against float64, then timed in turn.

A row counts only beside the others of its run: machines differ and their load changes, so peers are
interleaved (each round gives each peer a slice of time) and compared as ratios to ours. A result
outside the accuracy contract is marked; exit status 1 says that one was ours, or that ours failed.

    python -m benchmarks.bench --net resnet50,mobilenet_v2 --batch 1,32 --peers eager,openvino,sol
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from .cold_compile import cold_and_warm
from .networks import allowed, images, network, relative_rms
from .networks import exact as in_float64
from .peers import DEFAULT, PEERS, Call

RESULTS = Path(__file__).with_name("RESULTS.md")
OURS = ("sol", "sol_optimize")
PAUSE = 0.02  # seconds before a slice, for the last peer's threads to stop spinning
COLUMNS: tuple[str, ...] = (
    "net",
    "batch",
    "peer",
    "min ms",
    "median ms",
    "min : ours",
    "median : ours",
)
COLUMNS += ("error", "error : eager", "compile s")


@dataclass
class Row:
    """One peer on one network; times in ms, the error relative to float64's root mean square."""

    net: str
    batch: int
    peer: str
    call: Call | None = None
    error: float = 0.0
    compile_s: float | None = None
    times: list[float] = field(default_factory=list)
    failure: str = ""


def build(net: str, batch: int, args: argparse.Namespace) -> tuple[list[Row], Tensor, float]:
    """Build and check every peer. Gives rows, the input, and eager's own error."""
    torch.compiler.reset()
    model, x = network(net), images(batch, args.size)
    reference = in_float64(model, x)
    eager_error = relative_rms(model(x), reference)
    rows = []
    for peer in args.peers:
        row = Row(net, batch, peer)
        print(f"{net} {batch}: building {peer}", file=sys.stderr, flush=True)
        try:
            call = PEERS[peer].build(model, x, args.threads)
            row.error = relative_rms(call(x), reference)
            row.call = call
        except Exception as e:  # a peer that can't run this network says so in its row
            cause = getattr(e, "inner_exception", e)  # Dynamo wraps a backend's own error
            row.failure = f"{type(cause).__name__}: {cause}".splitlines()[0][:200]
        rows.append(row)
    return rows, x, eager_error


def measure(rows: Sequence[Row], x: Tensor, seconds: float, rounds: int) -> None:
    """Fill `times`: in each round every peer is called for seconds / rounds, at least once."""
    ready = [(r, r.call) for r in rows if r.call is not None]
    for n in range(rounds):
        for row, call in ready[n % len(ready) :] + ready[: n % len(ready)]:
            time.sleep(PAUSE)
            slice_times: list[float] = []
            end = time.perf_counter() + seconds / rounds
            while not slice_times or time.perf_counter() < end:
                start = time.perf_counter()
                call(x)
                slice_times.append(1e3 * (time.perf_counter() - start))
            # the first call finds the caches full of the other peers' data
            row.times += slice_times[1:] or slice_times


def cells(row: Row, ours: Row | None, eager_error: float) -> list[str]:
    name = [row.net, str(row.batch), row.peer]
    if row.failure:
        return [*name, "failed", *[""] * (len(COLUMNS) - 4)]
    ratios = ["", ""]
    if ours is not None:
        ratios = [f"{f(row.times) / f(ours.times):.2f}" for f in (min, median)]
    return [
        *name,
        f"{min(row.times):.2f}",
        f"{median(row.times):.2f}",
        *ratios,
        f"{row.error:.1e}" + (" TOO LARGE" if row.error > allowed(eager_error) else ""),
        f"{row.error / eager_error:.2f}",
        "" if row.compile_s is None else f"{row.compile_s:.1f}",
    ]


def versions(peers: Sequence[str]) -> str:
    """Of everything that a figure may depend on, with this repository's commit."""
    names = ["torch", *(p for p in ("onnxruntime", "openvino") if p in peers)]
    found = [f"{n} {metadata.version(n)}" for n in names]
    git = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(git, capture_output=True, text=True)
        commit = done.stdout.strip() or "unknown"
    except OSError:
        commit = "unknown"
    return ", ".join([*found, f"Python {platform.python_version()}", f"commit {commit}"])


def cpu_model() -> str:
    """The processor's name, family and model (virtual machines often hide the name)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {k.strip(): v.strip() for k, c, v in (line.partition(":") for line in lines) if c}
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table that reads well as text too."""
    table = [COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * w for w in widths])
    return "\n".join(
        f"| {' | '.join(c.ljust(w) for c, w in zip(line, widths, strict=True))} |" for line in table
    )


def save(tables: Sequence[str], args: argparse.Namespace) -> None:
    """Append a section to RESULTS.md."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    place = f"{cpu_model()}, {cores} cores, {args.threads} threads"
    text = f"\n## {date}: {place}\n{versions(args.peers)}; {args.seconds:g} s a peer.\n\n"
    with RESULTS.open("a") as f:
        f.write(text + "\n\n".join(tables) + "\n")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    comma = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--net", type=comma, default="shufflenet_v2_x0_5,mobilenet_v2,resnet50")
    parser.add_argument("--batch", type=lambda t: [int(b) for b in t.split(",")], default="1")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peers", type=comma, default=",".join(DEFAULT), help=", ".join(PEERS))
    parser.add_argument("--seconds", type=float, default=5, help="timed calls a peer and network")
    parser.add_argument(
        "--rounds", type=int, default=5, help="slices that the seconds are cut into"
    )
    parser.add_argument("--no-cold", action="store_true", help="do not measure compile times")
    parser.add_argument("--no-save", action="store_true", help="leave RESULTS.md as it is")
    args = parser.parse_args(argv)
    unknown = [p for p in args.peers if p not in PEERS]
    if unknown:
        parser.error(f"unknown peers {', '.join(unknown)}; there are: {', '.join(PEERS)}")
    return args


@torch.no_grad()
def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    os.environ.setdefault("SOL_STRICT", "1")  # a graph left to ATen must not pass for ours
    tables, wrong = [], False
    for net in args.net:
        for batch in args.batch:
            rows, x, eager_error = build(net, batch, args)
            measure(rows, x, args.seconds, args.rounds)
            if not args.no_cold:
                built = [r.peer for r in rows if r.call is not None and PEERS[r.peer].compiles]
                cold = cold_and_warm(net, batch, args.size, args.threads, built, warm=0)
                for row in rows:
                    row.compile_s = cold[row.peer].cold[0] if row.peer in cold else None
            ours = next((r for r in rows if r.peer in OURS and r.times), None)
            text = markdown([cells(r, ours, eager_error) for r in rows])
            text += "".join(f"\n\n{r.peer} failed: {r.failure}" for r in rows if r.failure)
            print(text, flush=True)
            tables.append(text)
            ours_only = [r for r in rows if r.peer in OURS]
            wrong |= any(r.failure or r.error > allowed(eager_error) for r in ours_only)
    if not args.no_save:
        save(tables, args)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())

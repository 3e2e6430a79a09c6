"""Every peer on torchvision networks on a CUDA GPU: checked against float64, then timed in turn.

    python -m benchmarks.gpu --net resnet50,mobilenet_v2 --batch 1,32 --peers eager_graph,sol
    python -m benchmarks.gpu --net resnet50 --precision ieee --profile 20

Times are medians of CUDA events around calls that are queued, so that they hold the GPU's work and
whatever of the host's it waits for. As in `bench`, peers are interleaved and a row counts only
beside the others of its run; rows are appended to RESULTS.md with `--save`.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from .networks import allowed, exact, images, network, relative_rms

RESULTS = Path(__file__).with_name("RESULTS.md")
SIX = "resnet50,densenet121,densenet201,mobilenet_v2,mnasnet0_5,shufflenet_v2_x0_5"
PRECISIONS = {"default": ("tf32", "ieee"), "ieee": ("ieee", "ieee"), "tf32": ("tf32", "tf32")}
WARM = 5  # calls before the first timed one: graphs are recorded in them
Call = Callable[[Tensor], Tensor]


# -- peers ---------------------------------------------------------------------------------------


def eager(model: nn.Module, x: Tensor) -> Call:
    return model


def eager_graph(model: nn.Module, x: Tensor) -> Call:
    """Eager's kernels in one CUDA graph, on the one input of the benchmark."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = model(x)

    def call(_: Tensor) -> Tensor:
        graph.replay()
        return y

    return call


def inductor(model: nn.Module, x: Tensor) -> Call:
    return _inductor(model, x)


def reduce_overhead(model: nn.Module, x: Tensor) -> Call:
    return _inductor(model, x, mode="reduce-overhead")


def reduce_overhead_freezing(model: nn.Module, x: Tensor) -> Call:
    return _inductor(model, x, mode="reduce-overhead", freezing=True)


def max_autotune(model: nn.Module, x: Tensor) -> Call:
    return _inductor(model, x, mode="max-autotune", freezing=True)


def _inductor(model: nn.Module, x: Tensor, mode: str | None = None, freezing: bool = False) -> Call:
    import torch._inductor.config as config

    compiled = torch.compile(copy.deepcopy(model), backend="inductor", mode=mode)
    with config.patch(freezing=freezing):
        compiled(x)
    return compiled


def sol(model: nn.Module, x: Tensor) -> Call:
    from sol_dynamo.backend import sol as backend

    return torch.compile(copy.deepcopy(model), backend=backend)


PEERS: dict[str, Callable[[nn.Module, Tensor], Call]] = {
    f.__name__: f
    for f in (
        eager, eager_graph, inductor, reduce_overhead, reduce_overhead_freezing, max_autotune, sol
    )
}  # fmt: skip
DEFAULT = "eager,eager_graph,reduce_overhead,reduce_overhead_freezing,sol"


# -- measuring -----------------------------------------------------------------------------------


@dataclass
class Row:
    """One peer on one network; times in ms."""

    peer: str
    call: Call | None = None
    error: float = 0.0
    first: float = 0.0  # seconds of the first call, compiling included
    times: list[float] = field(default_factory=list)
    failure: str = ""

    def cells(self, ours: Row | None, eager_error: float) -> str:
        if self.failure:
            return f"{self.peer:26} failed: {self.failure}"
        ratio = f"{median(self.times) / median(ours.times):6.2f}" if ours and ours.times else ""
        mark = " TOO LARGE" if self.error > allowed(eager_error) else ""
        return (
            f"{self.peer:26} {median(self.times):8.3f} {min(self.times):8.3f} {ratio:>6}  "
            f"{self.error:.1e} ({self.error / max(eager_error, 1e-12):.2f}){mark}  "
            f"first {self.first:.1f} s"
        )


def build(net: str, batch: int, args: argparse.Namespace) -> tuple[list[Row], Tensor, float]:
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()
    plain, cpu = network(net), images(batch, args.size)
    model, x = plain.cuda(), cpu.cuda()
    reference = exact(model, x)
    eager_error = relative_rms(model(x), reference)
    rows = []
    for peer in args.peers:
        row = Row(peer)
        print(f"{net} {batch}: building {peer}", file=sys.stderr, flush=True)
        try:
            start = time.perf_counter()
            call = PEERS[peer](model, x)
            results = [call(x).clone() for _ in range(2)]
            torch.cuda.synchronize()
            row.first = time.perf_counter() - start
            for _ in range(WARM):
                results.append(call(x).clone())
            if peer == "sol" and not all(torch.equal(r, results[-1]) for r in results):
                row.failure = "two runs differ"
            row.error = max(relative_rms(r, reference) for r in results)
            row.call = call
        except Exception as e:
            cause = getattr(e, "inner_exception", e)
            row.failure = f"{type(cause).__name__}: {cause}".splitlines()[0][:300]
        rows.append(row)
    return rows, x, eager_error


def measure(rows: list[Row], x: Tensor, seconds: float, rounds: int) -> None:
    """Fill `times`: in each round every peer is called for seconds / rounds, a queue at a time."""
    ready = [(r, r.call) for r in rows if r.call is not None]
    for n in range(rounds):
        for row, call in ready[n % len(ready) :] + ready[: n % len(ready)]:
            end = time.perf_counter() + seconds / rounds
            while time.perf_counter() < end:
                row.times += queued(call, x)


def queued(call: Call, x: Tensor, calls: int = 20) -> list[float]:
    """Times of calls one behind the other, in ms, those of the first few left out."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    marks[0].record()
    for mark in marks[1:]:
        call(x)
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in pairwise(marks[3:])]


def profile(call: Call, x: Tensor, most: int) -> str:
    """Kernels by time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    with recorded(activities=[ProfilerActivity.CUDA]) as p:
        for _ in range(10):
            call(x)
        torch.cuda.synchronize()
    events = sorted(p.key_averages(), key=lambda e: -e.self_device_time_total)
    total = sum(e.self_device_time_total for e in events) / 10
    lines = [f"{total:9.1f} us in {sum(e.count for e in events) / 10:.0f} kernels a call"]
    lines += [
        f"{e.self_device_time_total / 10:9.1f} us {e.count / 10:5.0f} x  {e.key[:100]}"
        for e in events[:most]
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    comma: Any = lambda text: text.split(",")  # noqa: E731
    p.add_argument("--net", type=comma, default=SIX)
    p.add_argument("--batch", type=lambda t: [int(b) for b in t.split(",")], default="1,32")
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--peers", type=comma, default=DEFAULT, help=", ".join(PEERS))
    p.add_argument("--precision", choices=PRECISIONS, default="default")
    p.add_argument("--seconds", type=float, default=1, help="timed calls a peer and network")
    p.add_argument("--rounds", type=int, default=4)
    p.add_argument("--profile", type=int, default=0, help="so many of our kernels by time")
    p.add_argument("--save", action="store_true", help="append to RESULTS.md")
    args = p.parse_args(argv)
    convolution, matmul = PRECISIONS[args.precision]
    torch.backends.cudnn.conv.fp32_precision = convolution  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = matmul
    text, wrong = "", False
    with torch.no_grad():
        for net in args.net:
            for batch in args.batch:
                rows, x, eager_error = build(net, batch, args)
                measure(rows, x, args.seconds, args.rounds)
                ours = next((r for r in rows if r.peer == "sol"), None)
                table = f"{net}, batch {batch}, {args.precision}: median, min ms, median : ours\n"
                table += "\n".join(r.cells(ours, eager_error) for r in rows)
                if args.profile and ours and ours.call is not None:
                    table += "\n" + profile(ours.call, x, args.profile)
                print(table, "\n", flush=True)
                text += f"{table}\n\n"
                wrong |= any(
                    bool(r.failure) or r.error > allowed(eager_error)
                    for r in rows if r.peer == "sol"
                )  # fmt: skip
    if args.save:
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        place = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
        with RESULTS.open("a") as f:
            f.write(f"\n## {date}: {place}\n\n```\n{text}```\n")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())

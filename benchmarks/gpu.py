"""Every peer on torchvision networks on a CUDA GPU: checked against float64, then timed in turn.

    python -m benchmarks.gpu --net resnet50,mobilenet_v2 --batch 1,32 --peers eager_graph,sol
    python -m benchmarks.gpu --net resnet50 --precision ieee --profile 20
    python -m benchmarks.gpu --net resnet50,encoder --dtype autocast
    python -m benchmarks.gpu --net resnet50,encoder --train --peers eager,inductor,sol
    python -m benchmarks.gpu --net resnet50 --batch 1 --peers eager,sol --calls 1000   # leaks?

Times are medians of CUDA events around calls that are queued, so that they hold the GPU's work and
whatever of the host's it waits for. As in `bench`, peers are interleaved and a row counts only
beside the others of its run; rows are appended to RESULTS.md with `--save`. Processes with
`--turns` build side by side, which takes minutes, and time one after the other when all have built;
`gpu_rows` starts them.
"""

from __future__ import annotations

import argparse
import atexit
import copy
import datetime
import fcntl
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from .networks import allowed, exact, images, network, relative_rms, training

RESULTS = Path(__file__).with_name("RESULTS.md")
SIX = "resnet50,densenet121,densenet201,mobilenet_v2,mnasnet0_5,shufflenet_v2_x0_5"
PRECISIONS = {"default": ("tf32", "ieee"), "ieee": ("ieee", "ieee"), "tf32": ("tf32", "tf32")}
PATIENCE = 300  # seconds that a process waits for others to build
WARM = 5  # calls before the first timed one: graphs are recorded in them
DTYPES = ("float32", "autocast", "bfloat16")
Call = Callable[[Tensor], Tensor]


# -- what is called ------------------------------------------------------------------------------


def encoder() -> nn.Module:
    """Twelve layers of a transformer encoder, 768 wide, without dropout."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(768, 12, 3072, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 12, enable_nested_tensor=False).eval()


def case(net: str, batch: int, args: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    """A model and its input, on the GPU, in float32."""
    model = encoder() if net == "encoder" else network(net)
    x = torch.randn(batch, 512, 768) if net == "encoder" else images(batch, args.size)
    return (training(model) if args.train else model).cuda(), x.cuda()


def mode(args: argparse.Namespace) -> AbstractContextManager:
    """What a call runs in."""
    if args.dtype == "autocast":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def reference(model: nn.Module, x: Tensor, train: bool) -> Tensor:
    """Float64's result, or its gradients as one vector."""
    with torch.autocast("cuda", enabled=False):
        if not train:
            return exact(model, x)
        wide = copy.deepcopy(model).double()
        step(wide, wide, x.double())
        return gradients(wide)


def step(run: Call, model: nn.Module, x: Tensor) -> Tensor:
    for p in model.parameters():
        p.grad = None
    loss = run(x).float().square().mean()
    loss.backward()
    return loss


def gradients(model: nn.Module) -> Tensor:
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(found)


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

    def call(_: Tensor, weights: nn.Module = model) -> Tensor:  # which the graph reads
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


def _inductor(model: nn.Module, x: Tensor, mode: str = "default", freezing: bool = False) -> Call:
    """Freezing is an option too: Dynamo takes calls of backends with equal options for calls of
    one. By itself that is not enough: Dynamo asks Inductor's config what to do with weights."""
    import torch._inductor.config as config

    options = torch._inductor.list_mode_options(mode) | ({"freezing": True} if freezing else {})
    compiled = torch.compile(model, backend="inductor", options=options or None)
    if freezing:
        with config.patch(freezing=True):
            compiled(x)
    return compiled


def sol(model: nn.Module, x: Tensor) -> Call:
    from sol_dynamo.backend import sol as backend

    return torch.compile(model, backend=backend)


def optimize(model: nn.Module, x: Tensor) -> Call:
    """Ours past Dynamo's guards: what is left of the host's share."""
    import sol_dynamo

    return sol_dynamo.optimize(model, x)


PEERS: dict[str, Callable[[nn.Module, Tensor], Call]] = {
    f.__name__: f
    for f in (
        eager, eager_graph, inductor, reduce_overhead, reduce_overhead_freezing, max_autotune,
        optimize, sol,
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
    held: int = 0  # bytes kept since before it was built: the model's copy, packed weights, arenas
    peak: int = 0  # bytes beyond those while it runs
    failure: str = ""

    def cells(self, ours: Row | None, eager_error: float) -> str:
        if self.failure:
            return f"{self.peer:26} failed: {self.failure}"
        ratio = f"{median(self.times) / median(ours.times):6.2f}" if ours and ours.times else ""
        mark = " TOO LARGE" if self.error > allowed(eager_error) else ""
        return (
            f"{self.peer:26} {median(self.times):8.3f} {min(self.times):8.3f} {ratio:>6}  "
            f"{self.error:.1e} ({self.error / max(eager_error, 1e-12):.2f}){mark}  "
            f"first {self.first:.1f} s, {self.held >> 20} + {self.peak >> 20} MiB"
        )

    def figures(self) -> dict[str, Any]:
        """What `gpu_rows` makes tables of; times in ms, none of a row that failed."""
        return {
            "peer": self.peer, "failure": self.failure, "error": self.error,
            "median": median(self.times) if self.times else None,
            "min": min(self.times, default=None),
        }  # fmt: skip


def build(net: str, batch: int, args: argparse.Namespace) -> tuple[list[Row], Tensor, float]:
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()
    model, x = case(net, batch, args)
    wanted = reference(model, x, args.train)
    if args.dtype == "bfloat16":
        model, x = model.bfloat16(), x.bfloat16()
    rows, eager_error, repeats = [], 0.0, True  # whether eager's steps give the same bits
    for peer in dict.fromkeys(("eager", *args.peers)):  # eager's error is every row's measure
        row = Row(peer)
        print(f"{net} {batch}: building {peer}", file=sys.stderr, flush=True)
        gc.collect()
        before = torch.cuda.memory_allocated()
        try:
            own = copy.deepcopy(model)
            start = time.perf_counter()
            with mode(args):
                run = PEERS[peer](own, x)
                call = (lambda x, run=run, own=own: step(run, own, x)) if args.train else run
                results = []
                for n in range(2 + WARM):
                    y = call(x)
                    results.append(gradients(own) if args.train else y.clone())
                    if n == 1:
                        torch.cuda.synchronize()
                        row.first = time.perf_counter() - start
            same = all(torch.equal(r, results[-1]) for r in results)
            repeats = same if peer == "eager" else repeats
            if peer == "sol" and not same and (repeats or not args.train):
                row.failure = "two runs differ"
            row.error = max(relative_rms(r, wanted) for r in results)
            row.call = call
            del results, y
            _memory(row, x, before, args)
        except Exception as e:
            cause = getattr(e, "inner_exception", e)
            row.failure = f"{type(cause).__name__}: {cause}".splitlines()[0][:300]
        if peer == "eager":
            eager_error = row.error
        if peer in args.peers:
            rows.append(row)
    return rows, x, eager_error


def _memory(row: Row, x: Tensor, before: int, args: argparse.Namespace) -> None:
    """What a peer holds between calls and takes during one; with --calls, whether that grows."""
    assert row.call is not None
    gc.collect()
    row.held = torch.cuda.memory_allocated() - before
    torch.cuda.reset_peak_memory_stats()
    with mode(args):
        row.call(x)
        torch.cuda.synchronize()
        row.peak = torch.cuda.max_memory_allocated() - before - row.held
        if args.calls:
            counts = []
            for _ in range(2):
                gc.collect()
                counts.append(torch.cuda.memory_allocated())
                for _ in range(args.calls):
                    row.call(x)
            gc.collect()
            grown = torch.cuda.memory_allocated() - counts[1]
            print(f"{row.peer}: {grown} bytes more after {args.calls} calls", flush=True)


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


class Turns:
    """Processes of one row each that take turns on a GPU, by a common folder."""

    def __init__(self, text: str):
        """`text`: FOLDER:COUNT; the folder is made, and holds nothing of a run before."""
        folder, _, count = text.rpartition(":")
        self._folder, self._count = Path(folder), int(count)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._mark = self._folder / f"{os.getpid()}.built"
        atexit.register(self._mark.touch)  # who fails keeps nobody waiting

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody else builds or times; after `PATIENCE` seconds others may be building."""
        self._mark.touch()
        end = time.monotonic() + PATIENCE
        while len(list(self._folder.glob("*.built"))) < self._count and time.monotonic() < end:
            time.sleep(0.2)
        with (self._folder / "lock").open("w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            yield
            torch.cuda.synchronize()


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
    p.add_argument("--dtype", choices=DTYPES, default="float32")
    p.add_argument("--train", action="store_true", help="a step: forward, loss, backward")
    p.add_argument("--calls", type=int, default=0, help="so many twice, for memory that grows")
    p.add_argument("--seconds", type=float, default=1, help="timed calls a peer and network")
    p.add_argument("--rounds", type=int, default=4)
    p.add_argument("--profile", type=int, default=0, help="so many of our kernels by time")
    p.add_argument("--turns", type=Turns, help="FOLDER:COUNT of processes that share the GPU")
    p.add_argument("--json", type=Path, help="a file that gets a line for each table")
    p.add_argument("--save", action="store_true", help="append to RESULTS.md")
    args = p.parse_args(argv)
    convolution, matmul = PRECISIONS[args.precision]
    torch.backends.cudnn.conv.fp32_precision = convolution  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = matmul
    text, wrong = "", False
    what = f"{args.precision}, {args.dtype}{', training' if args.train else ''}"
    with torch.set_grad_enabled(args.train):
        for net in args.net:
            for batch in args.batch:
                rows, x, eager_error = build(net, batch, args)
                ours = next((r for r in rows if r.peer == "sol"), None)
                with mode(args), args.turns.alone() if args.turns else nullcontext():
                    measure(rows, x, args.seconds, args.rounds)
                    table = f"{net}, batch {batch}, {what}: median, min ms, median : ours\n"
                    table += "\n".join(r.cells(ours, eager_error) for r in rows)
                    if args.profile and ours and ours.call is not None:
                        table += "\n" + profile(ours.call, x, args.profile)
                print(table, "\n", flush=True)
                text += f"{table}\n\n"
                if args.json:
                    figures = {"net": net, "batch": batch, "allowed": allowed(eager_error)}
                    figures |= {"eager_error": eager_error, "rows": [r.figures() for r in rows]}
                    with args.json.open("a") as f:
                        f.write(json.dumps(figures) + "\n")
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

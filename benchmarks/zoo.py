"""Every classification network of torchvision against eager: error, speed, and what ran on ATen.

    python -m benchmarks.zoo                      # all of them at batch 1 and 8
    python -m benchmarks.zoo --net regnet,vit_b   # those whose names begin so
    python -m benchmarks.zoo --jobs 4             # four at a time, on cores of their own
    python -m benchmarks.zoo --train              # a training step of each instead: errors only

A network is a process of its own, so that none is measured in what another left behind. Both peers
are called in turn in it; a row is right when its error is within the accuracy contract.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from queue import Empty, Queue
from statistics import median

import torch
from torch import Tensor, nn

from sol_dynamo.backend import Backend, sol
from sol_dynamo.report import report

from .bench import build, measure
from .networks import allowed, images, network, relative_rms

FLOOR = 0.97  # of eager's speed: what no network may fall below


def names(prefixes: list[str]) -> list[str]:
    from torchvision import models

    known = models.list_models(module=models)
    return [n for n in known if not prefixes or any(n.startswith(p) for p in prefixes)]


@torch.no_grad()
def one(net: str, args: argparse.Namespace) -> int:
    """Measure one network and print a row for each batch; exit status 1 for a wrong result."""
    os.environ.setdefault("SOL_STRICT", "1")
    torch.set_num_threads(args.threads)
    args.peers = ["eager", "sol"]
    wrong = False
    for batch in args.batch:
        sol.reset()
        start = time.perf_counter()
        (eager, ours), x, eager_error = build(net, batch, args)
        took = time.perf_counter() - start
        if ours.failure:
            print(f"{net:24} {batch:5}  FAILED {ours.failure}", flush=True)
            wrong = True
            continue
        measure((eager, ours), x, args.seconds, args.rounds)
        kernels, left = what_ran(sol)
        ratio = [f(eager.times) / f(ours.times) for f in (min, median)]
        bad = ours.error > allowed(eager_error)
        wrong |= bad
        print(
            f"{net:24} {batch:5} {min(eager.times):9.2f} {min(ours.times):9.2f}"
            f" {ratio[0]:6.2f} {ratio[1]:6.2f}{'  SLOW' if ratio[0] < FLOOR else '':6}"
            f" {ours.error:.1e} {ours.error / eager_error:5.2f}{'  WRONG' if bad else '':7}"
            f" {took:5.1f} {kernels:5} {sum(left.values()):4}  {_list(left)}",
            flush=True,
        )
    return int(wrong)


def train(net: str, args: argparse.Namespace) -> int:
    """Hold a training step (loss, all gradients, running statistics) to float64, without dropout,
    and print a row; exit status 1 for a wrong one."""
    from torchvision.ops import StochasticDepth

    os.environ.setdefault("SOL_STRICT", "1")
    torch.set_num_threads(args.threads)
    model, batch = network(net).train(), max(args.batch[0], 2)
    x = images(batch, args.size)
    for m in model.modules():
        if isinstance(m, (nn.Dropout, StochasticDepth)):
            m.p = 0.0

    def step(own: nn.Module, run: Callable, x: Tensor) -> list[Tensor]:
        """Loss, gradients as one vector, and buffers as one."""
        y = run(x)
        results = [y] if isinstance(y, Tensor) else [t for t in y if t is not None]
        loss = torch.stack([t.square().mean() for t in results]).sum()
        loss.backward()
        gradients = [p.grad.flatten() for p in own.parameters() if p.grad is not None]
        buffers = [b.flatten() for b in own.buffers() if b.is_floating_point()]
        return [loss.detach(), torch.cat(gradients), torch.cat(buffers or [torch.ones(1)])]

    wide, ours = copy.deepcopy(model).double(), copy.deepcopy(model)
    exact = step(wide, wide, x.double())
    eager = step(model, model, x)
    backend = Backend()
    start = time.perf_counter()
    found = step(ours, torch.compile(ours, backend=backend, dynamic=False), x)
    took = time.perf_counter() - start
    errors = [[relative_rms(a, e) for a, e in zip(r, exact, strict=True)] for r in (found, eager)]
    bad = any(a > allowed(e) for a, e in zip(*errors, strict=True))
    kernels, left = what_ran(backend)
    print(
        f"{net:24} {batch:5} "
        + " ".join(f"{a:.1e} : {e:.1e} " for a, e in zip(*errors, strict=True))
        + f"{'WRONG' if bad else '':5} {took:6.1f}"
        + f" {kernels:5} {sum(left.values()):4}  {_list(left)}",
        flush=True,
    )
    return int(bad)


def what_ran(backend: Backend) -> tuple[int, Counter[str]]:
    """The number of our kernels in what was compiled last, and the ops that ran on ATen."""
    kernels, left = 0, Counter[str]()
    for g in backend.graphs:
        if g.runner is None:
            left[g.reason or "?"] += 1
            continue
        told = report(g.compiled.program)
        kernels += len(told.kernels) - len(told.aten_calls)
        left.update(op for k in told.aten_calls for op in k.ops)
    return kernels, left


def _list(left: Counter[str]) -> str:
    return ", ".join(f"{n} {op.removeprefix('aten.')}" for op, n in left.most_common())


def sweep(nets: list[str], args: argparse.Namespace) -> int:
    """Each network in a process of its own, `jobs` at a time on cores of their own."""
    header = (
        f"{'network':24} {'batch':>5} {'eager ms':>9} {'sol ms':>9} {'min':>6} {'median':>6}      "
        f" {'error':7} {':eager':>5}       {'s':>6} {'kern':>5} ATen calls"
    )
    if args.train:
        header = (
            f"{'network':24} {'batch':>5} {'loss, eager':20} {'gradients':20} {'buffers':20}"
            f" {'s':>10} {'kern':>5} ATen calls"
        )
    print(header, flush=True)
    waiting: Queue[str] = Queue()
    for n in nets:
        waiting.put(n)
    failed: list[str] = []
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // args.jobs

    def work(k: int) -> None:
        mine = cores[k * share : (k + 1) * share]
        command = [sys.executable, "-m", "benchmarks.zoo", "--one", "--threads", str(share)]
        command += ["--batch", ",".join(map(str, args.batch)), "--seconds", str(args.seconds)]
        command += ["--train"] if args.train else []
        while True:
            try:
                net = waiting.get_nowait()
            except Empty:
                return
            try:
                done = subprocess.run(
                    [*command, "--net", net, "--size", str(args.size)],
                    capture_output=True,
                    text=True,
                    timeout=args.timeout,
                    preexec_fn=lambda: os.sched_setaffinity(0, mine),
                )
                print(done.stdout, end="", flush=True)
                if done.returncode:
                    failed.append(net)
                if done.returncode > 1 or done.returncode < 0 or not done.stdout:
                    print(f"{net:24} ended with {done.returncode}: {done.stderr[-300:]}")
            except subprocess.TimeoutExpired:
                failed.append(net)
                print(f"{net:24} took more than {args.timeout} s", flush=True)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(args.jobs)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    print(f"{len(nets)} networks, {len(failed)} failed: {' '.join(failed)}")
    return int(bool(failed))


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--net", type=lambda t: t.split(","), default=[])
    p.add_argument("--batch", type=lambda t: [int(b) for b in t.split(",")], default="1,8")
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--seconds", type=float, default=2.0, help="timed calls a peer and batch")
    p.add_argument("--rounds", type=int, default=4)
    p.add_argument("--timeout", type=float, default=300.0, help="seconds a network may take")
    p.add_argument("--train", action="store_true", help="a training step, held to float64")
    p.add_argument("--one", action="store_true", help="measure here, one network by its full name")
    args = p.parse_args()
    if args.one:
        return (train if args.train else one)(args.net[0], args)
    return sweep(names(args.net), args)


if __name__ == "__main__":
    sys.exit(main())

"""Where a network's time goes: every step of its program, its best time, flop/s and bytes/s.

python -m benchmarks.profile_steps --net resnet50 --batch 1 --threads 2 --top 25
"""

from __future__ import annotations

import argparse
import ctypes

import numpy as np
import torch

from sol_dynamo.backend import Backend
from sol_dynamo.ir import Extern
from sol_dynamo.report import report

from .networks import images, network


def steps(program) -> list[tuple[str, int, int]]:
    """(name, flops, bytes) of each native step: a kernel, or a depth-first band of several."""
    rows = report(program).kernels
    bands = {d.first: d for d in program.depth_first}
    found, i = [], 0
    while i < len(rows):
        band = bands.get(i)
        last = band.last if band else i + 1
        part = [r for r, k in zip(rows[i:last], program.kernels[i:last], strict=True)]
        if not isinstance(program.kernels[i], Extern):
            name = part[0].name if len(part) == 1 else f"{part[0].name} .. {part[-1].name}"
            found.append((name, sum(r.flops for r in part), sum(r.bytes for r in part)))
        i = last
    return found


def measure(model, x, repeats: int) -> list[tuple[float, str, int, int]]:
    """(best seconds, name, flops, bytes) of each step."""
    backend = Backend()
    run = torch.inference_mode()(torch.compile(model, backend=backend))
    run(x)
    one = backend.graphs[0].compiled
    named = steps(one.program)
    times = (ctypes.c_double * (len(named) + 1))()
    best = np.full(len(named), np.inf)
    one.executable.times = times  # type: ignore[attr-defined]
    for _ in range(repeats):
        run(x)
        best = np.minimum(best, np.diff(np.array(times)))
    one.executable.times = None  # type: ignore[attr-defined]
    return [(t, *n) for t, n in zip(best.tolist(), named, strict=True)]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--net", required=True)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=20)
    p.add_argument("--top", type=int, default=0, help="only the slowest steps")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    rows = measure(network(a.net), images(a.batch), a.repeats)
    total = sum(t for t, *_ in rows)
    print(f"{a.net} batch {a.batch}: {1e3 * total:.2f} ms in {len(rows)} steps")
    flops = sum(f for _, _, f, _ in rows)
    print(f"  {flops / total / 1e9:.0f} GFLOP/s on {a.threads} threads")
    for t, name, flops, size in sorted(rows, reverse=True)[: a.top] if a.top else rows:
        print(
            f"  {1e3 * t:8.3f} ms {100 * t / total:5.1f} % {flops / t / 1e9:7.1f} GFLOP/s "
            f"{size / t / 1e9:7.1f} GB/s  {name}"
        )


if __name__ == "__main__":
    main()

"""The main job: DenseNet-201 through `sol.optimize`, timed against eager and checked in float64.

Prints what was fused, then for each batch size the time of a call (eager and optimized in turn, so
that a change in the machine's load meets both) and how far either is from float64's result.

    python -m examples.densenet201 [batch ...]        default: 1 8
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch

import sol_dynamo as sol
from benchmarks.networks import allowed, exact, images, network, relative_rms

SECONDS = 15  # of timed calls a batch size
EXPLAINED = 40  # lines shown of what was fused


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.no_grad()
def run(batch: int, explain: bool) -> bool:
    """One batch size; whether the result is within the accuracy contract."""
    py_model = network("densenet201")  # random weights and batch-norm statistics, seeded
    x = images(batch)

    start = time.perf_counter()
    sol_model = sol.optimize(py_model, x.size())
    sol_model.load_state_dict(py_model.state_dict())
    y = sol_model(x)
    print(f"\nbatch {batch}: ready and called once after {time.perf_counter() - start:.1f} s")

    if explain:
        lines = str(sol.explain(py_model, x)).splitlines()
        print("\n".join(lines[:EXPLAINED]))
        if len(lines) > EXPLAINED:
            print(f"... and {len(lines) - EXPLAINED} more lines: sol.explain(model, x)")

    reference = exact(py_model, x)
    eager_error, sol_error = (relative_rms(r, reference) for r in (py_model(x), y))
    times: dict[str, list[float]] = {"eager": [], "sol": []}
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times["sol"]) < 3:
        times["eager"].append(1e3 * seconds(lambda: py_model(x)))
        times["sol"].append(1e3 * seconds(lambda: sol_model(x)))

    print(f"{'':8}{'min ms':>10}{'median ms':>12}{'relative RMS error':>22}")
    for name, error in (("eager", eager_error), ("sol", sol_error)):
        t = times[name]
        print(f"{name:8}{min(t):10.1f}{median(t):12.1f}{error:22.1e}")
    faster = [f(times["eager"]) / f(times["sol"]) for f in (min, median)]
    sound = sol_error <= allowed(eager_error)
    verdict = "within the contract" if sound else "OUTSIDE THE CONTRACT"
    print(f"{'ratio':8}{faster[0]:10.2f}{faster[1]:12.2f}{verdict:>22}")
    return sound


def main() -> int:
    sound = [run(int(b), i == 0) for i, b in enumerate(sys.argv[1:] or ["1", "8"])]
    return 0 if all(sound) else 1


if __name__ == "__main__":
    sys.exit(main())

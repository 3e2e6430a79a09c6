"""Seconds until the first result in a fresh process: cold (empty caches), then warm.

For a backend of torch.compile the figure is its first call minus that of aot_eager, because the
share of Dynamo and AOTAutograd is torch's; for the others it is export, building and first call.

    python -m benchmarks.cold_compile --net mobilenet_v2,resnet50 --peers inductor,sol
    python -m benchmarks.cold_compile --device cuda --net resnet50,densenet121 --streams 2 \
        --peers inductor,sol --caches build/kept --warm 0    # then warm, by what was kept:
    python -m benchmarks.cold_compile --device cuda --net resnet50,densenet121 --streams 2 \
        --peers sol --caches build/kept --cold 0 --warm 5

With `--streams` so many networks are measured at a time, each on its share of the cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from statistics import median

import torch

from .networks import images, network
from .peers import DEFAULT, PEERS

ROOT = Path(__file__).parents[1]
# what costs time that users do not pay: checks, and imports without kept bytecode
CHECKS = ("SOL_STRICT", "SOL_CHECK", "PYTHONDONTWRITEBYTECODE")
CACHES = ("SOL_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
BASE = "aot_eager"


class FirstCallError(RuntimeError):
    """A peer failed in its own process; the message is the error that it printed last."""


def first_call(
    net: str, batch: int, size: int, threads: int, peer: str, caches: str, device: str = "cpu"
) -> float:
    """Seconds of a peer's building and first call in a fresh process with its caches in a folder.

    Errors: `FirstCallError`.
    """
    command = [sys.executable, "-m", "benchmarks.cold_compile", "--child"]
    command += ["--net", net, "--batch", str(batch), "--size", str(size)]
    command += ["--threads", str(threads), "--peers", peer, "--device", device]
    environment = {name: value for name, value in os.environ.items() if name not in CHECKS}
    environment |= {name: str(Path(caches, name)) for name in CACHES}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
        raise FirstCallError(next((e for e in reversed(lines) if "Error: " in e), lines[-1]))
    return float(done.stdout.splitlines()[-1])


@dataclass
class Seconds:
    """First calls of a peer."""

    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = {"cold": self.cold, "warm": self.warm}
        return "  ".join(
            f"{kind} {median(s):7.2f} ({min(s):.2f} to {max(s):.2f})"
            for kind, s in kinds.items()
            if s
        )


def cold_and_warm(
    net: str,
    batch: int,
    size: int,
    threads: int,
    peers: list[str],
    *,
    cold: int = 1,
    warm: int = 1,
    device: str = "cpu",
    kept: Path | None = None,
) -> dict[str, Seconds]:
    """Seconds of each peer that runs, so many times with empty caches, then so many times with what
    it has kept, in turn; less the median of all of aot_eager's, which keeps nothing, where that is
    in it. A peer that fails once is left out. In the folder `kept` the last cold run's caches stay,
    for a later call without cold ones.

    Errors: `KeyError` where aot_eager itself does not run; `ValueError` for less than one cold run
    where nothing was kept.
    """
    if cold < 1 and not (kept and kept.is_dir()):
        raise ValueError(f"{cold} runs with empty caches: what was kept comes from one at least")
    through_dynamo = any(PEERS[p].dynamo for p in peers)
    found = {p: Seconds() for p in [BASE] * through_dynamo + peers}
    place: AbstractContextManager = tempfile.TemporaryDirectory(prefix="cold-")
    with nullcontext(kept) if kept else place as caches:
        for turn in range(cold + warm):
            for peer in list(found):
                left = max(cold - 1 - turn, 0)  # cold runs after this one: the last one's stay
                own = str(Path(caches, peer, str(left)))
                try:
                    took = first_call(net, batch, size, threads, peer, own, device)
                    (found[peer].cold if turn < cold else found[peer].warm).append(took)
                except FirstCallError as e:
                    del found[peer]
                    print(f"{net} {batch} {peer}: {e}", file=sys.stderr)
    base = median(found[BASE].cold + found[BASE].warm) if through_dynamo else 0.0

    def added(peer: str) -> Seconds:
        by = base * PEERS[peer].dynamo
        return Seconds([t - by for t in found[peer].cold], [t - by for t in found[peer].warm])

    return {p: found[p] if p == BASE else added(p) for p in peers if p in found}


def child(net: str, batch: int, size: int, threads: int, peer: str, device: str) -> None:
    torch.set_num_threads(threads)
    model, x = network(net).to(device), images(batch, size).to(device)
    with torch.no_grad():
        if device == "cuda":
            model(x)  # libraries are loaded, whoever is measured
        start = time.perf_counter()
        PEERS[peer].build(model, x, threads)(x).cpu()
    print(time.perf_counter() - start)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_compile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--net", default="mobilenet_v2", help="torchvision networks: a,b")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--cold", type=int, default=1, help="runs with empty caches, for a median")
    parser.add_argument("--warm", type=int, default=1, help="runs with kept caches, for a median")
    parser.add_argument("--peers", default=",".join(p for p in DEFAULT if PEERS[p].dynamo))
    parser.add_argument("--streams", type=int, default=1, help="networks at a time")
    parser.add_argument("--caches", type=Path, help="a folder where the last cold run's stay")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        child(args.net, args.batch, args.size, args.threads, args.peers, args.device)
        return
    print("seconds added to aot_eager's (for backends of torch.compile), else in all")
    cores = sorted(os.sched_getaffinity(0))
    share = max(len(cores) // args.streams, 1)
    free: SimpleQueue[list[int]] = SimpleQueue()
    for n in range(args.streams):
        free.put(cores[n * share : (n + 1) * share] or cores[-1:])

    def measured(net: str) -> tuple[str, dict[str, Seconds]]:
        return net, cold_and_warm(
            net, args.batch, args.size, min(args.threads, share), args.peers.split(","),
            cold=args.cold, warm=args.warm, device=args.device,
            kept=args.caches and args.caches.resolve() / net,
        )  # fmt: skip

    def pin() -> None:  # a thread's cores are those of the processes that it starts
        os.sched_setaffinity(0, free.get())

    with ThreadPoolExecutor(args.streams, initializer=pin) as pool:
        for net, times in pool.map(measured, args.net.split(",")):
            for peer, seconds in times.items():
                print(f"{net:24} {peer:22} {seconds}", flush=True)


if __name__ == "__main__":
    main()

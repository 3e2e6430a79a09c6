"""One core's GFLOP/s in products: linear layers, convolutions and their gradients, against eager.

    python -m benchmarks.products                 # all of them
    python -m benchmarks.products linear weight   # some

One thread, timed by the thread's own clock, so that other work on the machine disturbs less; both
are called in turn. Operands are channels-last, as they are inside a compiled network.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sol_dynamo.backend import Backend

from .networks import allowed, relative_rms

aten = torch.ops.aten
LINEAR = ((1576, 768, 3072), (1576, 3072, 768), (512, 512, 512), (64, 512, 2048), (8, 2048, 1000))
# channels in and out, height and width, taps, stride, groups
LAYERS = (
    *((64, 64, 56, 3, 1, 1), (256, 64, 56, 1, 1, 1), (64, 256, 56, 1, 1, 1)),
    *((128, 128, 28, 3, 1, 1), (256, 256, 14, 3, 1, 1), (1024, 256, 14, 1, 1, 1)),
    *((512, 512, 7, 3, 1, 1), (2048, 512, 7, 1, 1, 1), (256, 512, 56, 1, 2, 1)),
    *((128, 128, 56, 3, 2, 1), (3, 64, 224, 7, 2, 1), (128, 128, 56, 3, 1, 32)),
    *((256, 256, 28, 3, 1, 16), (240, 240, 28, 3, 1, 10)),
)
Case = tuple[str, Callable[..., Tensor], list[Tensor], float]


def last(*shape: int) -> Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last)


def linear() -> Iterator[Case]:
    for m, k, n in LINEAR:
        args = [torch.randn(m, k), torch.randn(n, k), torch.randn(n)]
        yield f"{m}x{k} by {n}", torch.nn.functional.linear, args, 2 * m * k * n


def products_of_columns() -> Iterator[Case]:
    """A linear layer's weight gradient."""
    for m, k, n in LINEAR[:3]:
        yield (
            f"{n}x{m} by {k}",
            lambda dy, x: dy.t() @ x,
            [torch.randn(m, n), torch.randn(m, k)],
            (2 * m * k * n),
        )


def forward(batch: int) -> Iterator[Case]:
    for i, o, size, taps, stride, groups in LAYERS:
        x, w = last(batch, i, size, size), last(o, i // groups, taps, taps)
        a = (None, [stride] * 2, [taps // 2] * 2, [1, 1], False, [0, 0], groups)
        y = aten.convolution(x, w, *a)
        flops = 2 * y.numel() * i // groups * taps**2
        yield _name(i, o, size, taps, stride, groups), _call(*a), [x, w], flops


def gradient(batch: int, which: int) -> Iterator[Case]:
    for i, o, size, taps, stride, groups in LAYERS:
        x, w = last(batch, i, size, size), last(o, i // groups, taps, taps)
        a = ([stride] * 2, [taps // 2] * 2, [1, 1], False, [0, 0], groups)
        dy = torch.randn_like(aten.convolution(x, w, None, *a))
        mask = [which == k for k in range(3)]
        flops = 2 * dy.numel() * i // groups * taps**2
        yield _name(i, o, size, taps, stride, groups), _backward(a, mask), [dy, x, w], flops


def _call(*a: object) -> Callable[..., Tensor]:
    return lambda x, w: aten.convolution(x, w, *a)


def _backward(a: tuple, mask: list[bool]) -> Callable[..., Tensor]:
    return lambda dy, x, w: aten.convolution_backward(dy, x, w, None, *a, mask)[mask.index(True)]


def _name(i: int, o: int, size: int, taps: int, stride: int, groups: int) -> str:
    by = f" by {stride}" if stride > 1 else ""
    return f"{i}->{o}@{size} {taps}x{taps}{by}" + (f" in {groups}" if groups > 1 else "")


KINDS: dict[str, Callable[[], Iterator[Case]]] = {
    "linear": linear,
    "columns": products_of_columns,
    "forward": lambda: forward(1),
    "input": lambda: gradient(8, 0),
    "weight": lambda: gradient(8, 1),
}


@torch.no_grad()
def measure(case: Case, rounds: int) -> str:
    name, f, args, flops = case
    torch.compiler.reset()
    compiled = torch.compile(f, backend=Backend(), dynamic=False)
    exact = f(*(a.double() for a in args))
    errors = [relative_rms(g(*args), exact) for g in (f, compiled)]
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for g, t in zip((f, compiled), times, strict=True):
            start = time.thread_time()
            g(*args)
            t.append(time.thread_time() - start)
    eager, ours = (flops / min(t) / 1e9 for t in times)
    wrong = "  WRONG" if errors[1] > allowed(errors[0]) else ""
    return (
        f"{name:28} eager {eager:6.1f}  sol {ours:6.1f}  {ours / eager:5.2f}"
        f"  error {errors[1]:.1e} : {errors[0]:.1e}{wrong}"
    )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("kinds", nargs="*", metavar="kind", help=f"of {', '.join(KINDS)} (all)")
    p.add_argument("--rounds", type=int, default=8)
    args = p.parse_args()
    if unknown := set(args.kinds) - set(KINDS):
        p.error(f"no kind {min(unknown)!r}; there are {', '.join(KINDS)}")
    torch.set_num_threads(1)
    for kind in args.kinds or KINDS:
        for case in KINDS[kind]():
            print(f"{kind:8} {measure(case, args.rounds)}", flush=True)


if __name__ == "__main__":
    main()

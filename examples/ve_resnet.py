"""A network of torchvision on the device "ve", compiled: on a card, or on the simulator of one.

Prints how long the first call and the next took here, how far results are from float64's next to
eager's on the CPU, what ran on the host, and, where the card is simulated, the simulated time and
share of the peak. The simulator executes every instruction, so that host times say nothing of a
card's.

    python -m examples.ve_resnet [network] [size]      default: resnet50 224
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.networks import allowed, exact, images, network, relative_rms
from sol_dynamo.ve import cycles
from sol_dynamo.ve import module as ve
from sol_dynamo.ve.driver import open_driver


@torch.no_grad()
def run(name: str, size: int) -> bool:
    """Whether the result is within the accuracy contract."""
    model, x = network(name), images(1, size)
    reference, eager = exact(model, x), model(x)
    print(f"{name} on {ve.get_device_name()}, batch 1, {size}x{size}")
    model_of_host = copy.deepcopy(model)
    there = torch.compile(model.to("ve"), backend="sol", dynamic=False)
    on_card = x.to("ve")
    ve.reset_fallbacks()
    for call in ("first call, compiled", "second call"):
        start = time.perf_counter()
        y = there(on_card).cpu()
        print(f"  {call}: {time.perf_counter() - start:.1f} s of this machine's time")
    ours, theirs = relative_rms(y, reference), relative_rms(eager, reference)
    sound = ours <= allowed(theirs)
    verdict = "within the contract" if sound else "OUTSIDE THE CONTRACT"
    print(f"  relative RMS error against float64: {ours:.1e}, eager's {theirs:.1e}: {verdict}")
    print(f"  ops that ran on the host: {dict(ve.fallbacks()) or 'none'}")
    if open_driver().simulated:
        with FlopCounterMode(display=False) as asked:
            model_of_host(x)
        show_cycles(lambda: there(on_card), asked.get_total_flops())
    return sound


def show_cycles(call: Callable[[], object], flops: int) -> None:
    with cycles.counted() as count:
        call()
    print(
        f"  simulated: {1e3 * count.seconds:.2f} ms for {flops / 1e9:.2f} GFLOP of products on"
        f" {count.cores} cores, {count.share_of_peak(flops):.1%} of their float32 peak"
    )


def main() -> int:
    name, *rest = sys.argv[1:] or ["resnet50"]
    return 0 if run(name, int(rest[0]) if rest else 224) else 1


if __name__ == "__main__":
    sys.exit(main())

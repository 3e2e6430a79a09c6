"""A network of torchvision on the device "ve", compiled: on a card, or on the simulator of one.

Prints how long the first call and the next took here, how far results are from float64's next to
eager's on the CPU, what ran on the host, and, where the card is simulated, the simulated time and
share of the peak. The simulator executes every instruction, so that host times say nothing of a
card's.

    python -m examples.ve_resnet [network] [size]      default: resnet50 224
"""

from __future__ import annotations

import sys
import time

import torch

from benchmarks.networks import allowed, exact, images, network, relative_rms
from sol_dynamo.ve import cycles
from sol_dynamo.ve import module as ve
from sol_dynamo.ve.driver import open_driver

SLOWEST = 8  # kernels shown, those that take longest


@torch.no_grad()
def run(name: str, size: int) -> bool:
    """Whether the result is within the accuracy contract."""
    model, x = network(name), images(1, size)
    reference, eager = exact(model, x), model(x)
    print(f"{name} on {ve.get_device_name()}, batch 1, {size}x{size}")
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
        show_cycles(lambda: there(on_card))
    return sound


def show_cycles(call) -> None:
    with cycles.counted() as kernels:
        call()
    milliseconds = 1e3 * sum(k.seconds for k in kernels)
    print(
        f"  simulated: {milliseconds:.2f} ms in {len(kernels)} kernels,"
        f" {cycles.peak(kernels):.1%} of the cores' float32 peak"
    )
    for k in sorted(kernels, key=lambda k: -k.cycles)[:SLOWEST]:
        print(f"    {k.name[:48]:48} {1e3 * k.seconds:8.3f} ms {k.peak_f32:6.1%} (simulated)")


def main() -> int:
    name, *rest = sys.argv[1:] or ["resnet50"]
    return 0 if run(name, int(rest[0]) if rest else 224) else 1


if __name__ == "__main__":
    sys.exit(main())

"""How long kernels would take on a card, by the simulator's model of time.

    with cycles.counted() as kernels:
        model(x)
    print(driver.format_report(kernels))

Only the simulator counts; its figures are simulated, never measured. Nothing here knows the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import module
from .driver import Kernel, open_driver, together


@contextmanager
def counted(device: int | None = None) -> Iterator[list[Kernel]]:
    """What runs on a card meanwhile: the list is filled when the block ends, a kernel once for all
    cores that executed it. Errors: `DriverError` on hardware."""
    driver = open_driver()
    index = module.current_device() if device is None else device
    native = module.native()
    native.start_process(index)
    module.synchronize(index)
    process = native.process_handle(index)
    driver.report(_contexts(driver, process)[0])  # raises on hardware
    for context in _contexts(driver, process):
        driver.lib.vesim_report_clear(context)
    driver.lib.vesim_cycles_enable(process, 1)
    found: list[Kernel] = []
    try:
        yield found
        module.synchronize(index)
        found += together([driver.report(c) for c in _contexts(driver, process)])
    finally:
        driver.lib.vesim_cycles_enable(process, 0)


def _contexts(driver, process: int) -> list[int]:
    count = driver.lib.veo_num_contexts(process)
    return [driver.lib.veo_get_context(process, i) for i in range(count)]


def peak(kernels: list[Kernel]) -> float:
    """The share of the cores' peak in packed float32 that kernels reach together."""
    total = sum(k.cycles for k in kernels)
    return sum(k.peak_f32 * k.cycles for k in kernels) / max(total, 1)

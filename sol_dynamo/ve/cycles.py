"""How long kernels would take on a card, by the simulator's model of time.

    with cycles.counted() as count:
        model(x)
    print(driver.format_report(count.kernels), count.seconds)

Only the simulator counts; its figures are simulated, never measured. Nothing here knows the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from . import module
from .driver import Driver, Kernel, open_driver, together

FLOPS = 384  # of packed float32, a core in a cycle


@dataclass
class Count:
    """What ran on a card: each function once, its time that of the core that took longest."""

    kernels: list[Kernel] = field(default_factory=list)
    cores: int = 0  # that executed any

    @property
    def cycles(self) -> int:
        return sum(k.cycles for k in self.kernels)

    @property
    def seconds(self) -> float:
        return sum(k.seconds for k in self.kernels)

    def share_of_peak(self, flops: float) -> float:
        """Of what the cores that were used could do in float32 meanwhile, if `flops` is all that
        was asked for."""
        return flops / max(self.cycles * self.cores * FLOPS, 1)


@contextmanager
def counted(device: int | None = None) -> Iterator[Count]:
    """What runs on a card meanwhile, known when the block ends. Errors: `DriverError` on
    hardware."""
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
    found = Count()
    try:
        yield found
        module.synchronize(index)
        reports = [r for c in _contexts(driver, process) if (r := driver.report(c))]
        found.kernels, found.cores = together(reports), len(reports)
    finally:
        driver.lib.vesim_cycles_enable(process, 0)


def _contexts(driver: Driver, process: int) -> list[int]:
    count = driver.lib.veo_num_contexts(process)
    return [driver.lib.veo_get_context(process, i) for i in range(count)]

"""Which AVEO driver drives the device: NEC's where there is a card, else the simulator.

SOL_VE_DRIVER names a library instead. Counting cards must stay cheap and free of side effects:
`torch.ve.device_count()` does it before anything is loaded.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

NEC_LIBRARY = "libveo.so.1"
NEC_FOLDERS = ("/opt/nec/ve/veos/lib64", "/usr/lib64", "/usr/lib", "/usr/local/ve/lib64")


@dataclass(frozen=True)
class Choice:
    """A driver: its library ("" for the simulator that is yet to be built) and its cards."""

    path: str
    nodes: tuple[int, ...]
    simulated: bool

    def library(self) -> str:
        """The path to load; builds the simulator where it is needed."""
        if self.path:
            return self.path
        from . import sim

        return str(sim.driver_library())


def choose() -> Choice:
    """The driver for this process; nothing is loaded or built."""
    wanted = os.environ.get("SOL_VE_DRIVER", "")
    if wanted:
        real = Path(wanted).name.startswith("libveo.so")
        return Choice(wanted, cards() if real else simulated_cards(), not real)
    found = nec_library()
    if found and cards():
        return Choice(found, cards(), False)
    return Choice("", simulated_cards(), True)


def nec_library() -> str:
    for folder in NEC_FOLDERS:
        path = Path(folder) / NEC_LIBRARY
        if path.exists():
            return str(path)
    return ""


def cards() -> tuple[int, ...]:
    """The numbers of the vector engines that VEOS shows (/dev/veslot0, ...)."""
    names = (re.fullmatch(r"veslot(\d+)", p.name) for p in Path("/dev").glob("veslot*"))
    return tuple(sorted(int(n.group(1)) for n in names if n))


def simulated_cards() -> tuple[int, ...]:
    """As many as SOL_VE_CARDS says, one by default."""
    text = os.environ.get("SOL_VE_CARDS", "1")
    if not text.isdigit() or not 1 <= int(text) <= 16:
        raise ValueError(f"SOL_VE_CARDS={text!r}: a number of simulated cards, 1 to 16, is needed")
    return tuple(range(int(text)))

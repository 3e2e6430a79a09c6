"""How many cards there are, and whether they are simulated: asked before a driver is loaded.

`import torch` leads here, and `torch.ve.device_count()` may be asked by any program: only files and
variables are looked at. Which library drives the cards is `driver.open_driver()`'s to say, at the
first use; both follow SOL_VE_DRIVER.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

MOST = 16


class Cards(NamedTuple):
    nodes: tuple[int, ...]  # the driver's numbers; device i of torch is nodes[i]
    simulated: bool


def find() -> Cards:
    """The cards of this machine, else simulated ones."""
    wanted = os.environ.get("SOL_VE_DRIVER", "")
    real = real_cards()
    if wanted == "native" or (
        wanted not in ("", "sim") and Path(wanted).name.startswith("libveo.")
    ):
        return Cards(real, False)
    if wanted or not real:
        return Cards(simulated_cards(), True)
    return Cards(real, False)


def real_cards() -> tuple[int, ...]:
    """The numbers of the vector engines that VEOS shows (/dev/veslot0, ...)."""
    names = (re.fullmatch(r"veslot(\d+)", p.name) for p in Path("/dev").glob("veslot*"))
    return tuple(sorted(int(n.group(1)) for n in names if n))


def simulated_cards() -> tuple[int, ...]:
    """As many as SOL_VE_CARDS says, one by default."""
    text = os.environ.get("SOL_VE_CARDS", "") or "1"
    if not text.isdigit() or not 1 <= int(text) <= MOST:
        raise ValueError(f"SOL_VE_CARDS={text!r}: a number of simulated cards, 1 to {MOST}, is due")
    return tuple(range(int(text)))

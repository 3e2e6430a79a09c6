"""Two simulated cards for the tests of the device, unless the caller says otherwise."""

from __future__ import annotations

import os

os.environ.setdefault("SOL_VE_CARDS", "2")  # before anything counts them

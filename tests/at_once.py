"""Threads that take turns as often as Python lets them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


def at_once(work: Callable[[int], None], count: int) -> None:
    """Call `work` with 0, 1, ... in a thread each, and wait for all."""
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(interval)

"""Objects on cards: each loaded once, and unloaded when no program has had it for long.

Programs share kernels, and come back (a graph compiled again, an op whose program was dropped): the
last `KEPT` objects that nobody uses stay. Others go at the next load, when everything that was
asked of the card before is done, so that none is taken from under a call. Knows no programs.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import module

KEPT = 512  # of some 10 KB each
Key = tuple[int, str]  # of a card, and where the file is


@dataclass
class _Object:
    handle: int
    users: int = 0
    symbols: dict[str, int] = field(default_factory=dict)


_loaded: dict[Key, _Object] = {}
_unused: OrderedDict[Key, None] = OrderedDict()  # the one that was used last is at the end
_given_up: deque[list[Key]] = deque()  # by programs that are gone, whoever collected them
_loading = threading.Lock()


class Held:
    """Addresses of functions in some objects, which stay loaded as long as this lives."""

    def __init__(self, device: int, functions: Sequence[tuple[Path, str]]):
        """`functions`: (file, name) each. Errors: the driver's `RuntimeError`."""
        keys: list[Key] = []
        weakref.finalize(self, _given_up.append, keys).atexit = False
        with _loading:
            self.addresses = [_address(device, path, name, keys) for path, name in functions]
            _unload(device)


def _address(device: int, path: Path, name: str, keys: list[Key]) -> int:
    """Of a function, whose object is one more of those held."""
    native, key = module.native(), (device, str(path))
    found = _loaded.get(key)
    if found is None:
        found = _loaded[key] = _Object(native.load_library(device, str(path)))
    found.users += 1
    _unused.pop(key, None)
    keys.append(key)
    address = found.symbols.get(name)
    if address is None:
        address = found.symbols[name] = native.find_symbol(device, found.handle, name)
    return address


def _unload(device: int) -> None:
    """Unload what is too much of a card's objects that nobody holds."""
    while _given_up:
        for key in _given_up.popleft():
            _loaded[key].users -= 1
            if not _loaded[key].users:
                _unused[key] = None
    mine = [key for key in _unused if key[0] == device]
    if len(mine) <= KEPT:
        return
    native = module.native()
    native.settle(device)  # a program may be gone while the card is still at work on its call
    for key in mine[: len(mine) - KEPT // 2]:
        native.unload_library(device, _loaded[key].handle)
        del _loaded[key], _unused[key]

"""Where models from `optimize` run while their inputs and outputs stay on the host.

    sol_dynamo.device.set("ve", 0)  # a model's calls run there: weights are moved once
    sol_dynamo.device.current()     # device(type='ve', index=0)
    sol_dynamo.device.reset()       # back to where the inputs are

It holds for all models and threads, from the next call on. Nothing here knows what running means.
"""

from __future__ import annotations

from typing import Any

import torch

from .target import targets

_current: torch.device | None = None


def set(kind: str | torch.device, index: int = 0) -> None:
    """Run models from `optimize` on this device; "cpu" is `reset()`.

    Errors: `ValueError` for one that is not there, naming those that are.
    """
    global _current
    name = str(kind)
    if isinstance(kind, torch.device) or ":" in name:
        name, _, number = name.partition(":")
        index = int(number) if number.isdigit() else index
    if name == "cpu":
        reset()
        return
    wanted, there = f"{name}:{index}", available()
    if wanted not in there:
        raise ValueError(f"no device {wanted!r} to run models on; there are: {', '.join(there)}")
    _current = torch.device(name, index)


def reset() -> None:
    """Run models where their inputs are."""
    global _current
    _current = None


def current() -> torch.device | None:
    """What `set` was given, or None."""
    return _current


def available() -> list[str]:
    """The devices that `set` takes."""
    found = []
    for name in targets():
        module: Any = getattr(torch, name, None)
        if name == "cpu":
            found.append("cpu")
        elif module is not None and module.is_available():
            found += [f"{name}:{i}" for i in range(module.device_count())]
    return found

"""What Dynamo asks of a device: streams, guards, properties. A table of torch.ve's functions.

Dynamo takes seconds to import, so this happens when it is there already: at the device's first
use, or when a graph or an op is compiled.
"""

from __future__ import annotations

from .. import compat

_registered = False


def register_if_loaded() -> None:
    """Register with Dynamo, once, if the program has imported it."""
    global _registered
    if not _registered and compat.dynamo_loaded():
        register()
        _registered = True


def register() -> None:
    """Register "ve" and each "ve:i"; again is no harm."""
    from . import module

    compat.register_device_interface("ve", module)

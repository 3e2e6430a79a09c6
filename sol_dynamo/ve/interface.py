"""What Dynamo asks of a device: streams, guards, properties. A table of torch.ve's functions.

Dynamo takes seconds to import, so this happens when it is there already: at the device's first
use, or when a backend is asked to compile.
"""

from __future__ import annotations

from .. import compat


def register_if_loaded() -> None:
    """Register with Dynamo if the program has imported it."""
    if compat.dynamo_loaded():
        register()


def register() -> None:
    """Register "ve" and each "ve:i"; again is no harm."""
    from . import module

    compat.register_device_interface("ve", module)

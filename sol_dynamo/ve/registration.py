"""Gives torch its device "ve" while torch itself is imported: a name and a module, in milliseconds.

The name is PrivateUse1, of which a process has one: it is taken only where it is free. It also
makes "ve" torch's accelerator (`torch.accelerator`, autograd's streams), so that a machine with
another one keeps it unless SOL_VE=1 says otherwise. Nothing is built or loaded here.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import torch
from torch.utils.backend_registration import (
    generate_methods_for_privateuse1_backend,
    rename_privateuse1_backend,
)

from .. import compat

log = logging.getLogger("sol_dynamo")

NAME = "ve"


def register() -> bool:
    """Make torch know the device; whether it does. A second call changes nothing."""
    reason = why_not()
    if reason:
        log.info("no device %r: %s", NAME, reason)
        return False
    from . import module

    if compat.private_device_name() != NAME:
        rename_privateuse1_backend(NAME)
        if not compat.names_private_device(NAME):
            log.warning(
                "torch %s has a device %r of its own that comes first: sol_dynamo's device needs"
                " torch 2.11 to 2.14",
                torch.__version__,
                NAME,
            )
            return False
        compat.register_device_module(NAME, module)
        generate_methods_for_privateuse1_backend(for_storage=True)
    return True


def registered() -> bool:
    found = getattr(torch, NAME, None)
    return found is not None and found is sys.modules.get(f"{__package__}.module")


def why_not() -> str:
    """Why torch is not to have the device, or an empty text."""
    wanted = os.environ.get("SOL_VE", "").strip().lower()
    if wanted in ("0", "off", "no", "false"):
        return f"SOL_VE={wanted}"
    name = compat.private_device_name()
    if name != compat.FREE_DEVICE_NAME and not (name == NAME and registered()):
        return f"torch's PrivateUse1 is {name!r} already, and there is one per process"
    if not wanted and (other := other_accelerator()):
        return f"{other} would no longer be torch's accelerator; SOL_VE=1 takes the place"
    return ""


def other_accelerator() -> str:
    """The accelerator that torch was built for and this machine seems to have, or an empty text.

    Asked by files alone: to ask a driver takes long, and may spoil a later fork.
    """
    if torch.version.cuda and _any("/dev/nvidiactl", "/dev/nvgpu", "/dev/dxg", "/dev/nvhost-ctrl"):
        return "CUDA"
    if torch.version.hip and _any("/dev/kfd", "/dev/dxg"):
        return "ROCm"
    if getattr(torch.version, "xpu", None) and _any("/dev/dri"):
        return "XPU"
    if torch.backends.mps.is_built() and sys.platform == "darwin":
        return "MPS"
    return ""


def _any(*paths: str) -> bool:
    return any(Path(p).exists() for p in paths)

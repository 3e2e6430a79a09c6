"""What `import torch` runs: the log names of this package. Nothing heavy may be imported here."""

from __future__ import annotations


def register() -> None:
    """Make TORCH_LOGS=sol known, where torch allows it (before 2.14: TORCH_LOGS=+sol_dynamo)."""
    try:
        from torch._logging._internal import log_registry, register_log
    except ImportError:
        return
    if "sol" not in getattr(log_registry, "log_alias_to_log_qnames", {}):
        register_log("sol", ["sol_dynamo"])

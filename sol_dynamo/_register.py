"""What `import torch` runs: the log names of this package. Nothing heavy may be imported here."""

from __future__ import annotations


def register() -> None:
    """Make TORCH_LOGS=sol known (torch 2.11 to 2.13: TORCH_LOGS=+sol_dynamo)."""
    from .compat import register_log

    register_log("sol", "sol_dynamo")

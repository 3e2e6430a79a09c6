"""The C target: loop nests as vectorized C, one native call per program."""

from __future__ import annotations


def target():
    """The registry's entry; imported when it is first asked for."""
    from .target import CpuTarget

    return CpuTarget()

"""A batch image by image: runs of kernels that treat each image alone run chunk by chunk.

    for kernel: for image: ...  ==>  for image (in parallel): for kernel: ...

The intermediates of one image stay in a core's cache, and threads meet once instead of after every
kernel. Kernels with large weights and little work an image (classifiers) stay outside, where
they see the whole batch.
"""

from __future__ import annotations

from ..ir import Program
from ..target import Caps


def depth_first(program: Program, caps: Caps) -> Program:
    return program

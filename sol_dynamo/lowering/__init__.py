"""FX graph (ATen level) to loop IR: one rule per op, an `Extern` call to ATen where there is none.

Rules are device-free: they say what is computed over logical shapes. Layout is what the `layout`
pass wrote into `meta["sol_strides"]`; views become views of buffers wherever strides can say them,
else an index map that scheduling folds into the readers.
"""

from __future__ import annotations

from .graph import RULES, Lowering, lower, rule

__all__ = ["RULES", "Lowering", "lower", "rule"]

from . import (  # noqa: F401  (they add the rules)
    contraction,
    convolution,
    indexing,
    movement,
    pointwise,
    pooling,
    random,
    reduction,
    sequence,
    upsampling,
)

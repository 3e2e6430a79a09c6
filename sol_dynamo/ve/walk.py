"""How a kernel is walked on the vector engine."""

from __future__ import annotations

from ..ir import Program
from ..schedule.plan import Plan
from .program import dense
from .scalar import without_vectors
from dataclasses import replace


def walk_kernel(plan: Plan) -> None:
    if any(a.extent == 0 for n in plan.kernel.body for a in n.axes if a.kind == "parallel"):
        plan.kernel = replace(plan.kernel, body=())
        return
    module = dense()
    if module is not None and module.schedule_dense(plan):
        return
    plan.kernel = without_vectors(plan.kernel)

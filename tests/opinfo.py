"""PyTorch's own samples of every operator and module, as functions to compile.

`compare(case)` runs a case in eager and compiled by us and says what differs, if anything. What
fails under `aot_eager`, which compiles nothing, too, is torch's and not held against us.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accuracy import ULP2, relative_error
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from sol_dynamo.backend import Backend

OPS = {f"{op.name}.{op.variant_test_name}".rstrip("."): op for op in op_db}
# results are memory as it was found, so there is nothing to compare but shapes
EMPTY = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")
# decompositions of a matrix that are unique up to a sign or a basis: ATen computes them either way
TOLERANCE = {
    torch.float32: (2e-5, 2e-5), torch.float64: (1e-9, 1e-9), torch.float16: (2e-3, 2e-3),
    torch.bfloat16: (2e-2, 2e-2), torch.complex64: (2e-5, 2e-5), torch.complex128: (1e-9, 1e-9),
}  # fmt: skip


@dataclass
class Case:
    """A function of tensors, and what it is called with."""

    name: str
    f: Callable
    tensors: list[torch.Tensor]
    random: bool = False


def cases(name: str, dtype: torch.dtype, first: bool = False, grad: bool = False) -> list[Case]:
    """The samples of an operator in a dtype; the first alone; with gradients."""
    op = OPS[name]
    made = []
    for sample in op.sample_inputs("cpu", dtype, requires_grad=grad):
        leaves, tree = tree_flatten((sample.input, sample.args, sample.kwargs))
        at = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor)]

        def f(*tensors: torch.Tensor, leaves=leaves, tree=tree, at=at) -> Any:
            values = list(leaves)
            for i, t in zip(at, tensors, strict=True):
                values[i] = t
            x, args, kwargs = tree_unflatten(values, tree)
            return op(x, *args, **kwargs)

        made.append(Case(name, f, [leaves[i] for i in at], grad))
        if first:
            break
    return made


def call(f: Callable, tensors: Sequence[torch.Tensor], grad: bool) -> list[Any]:
    """Results, and then the gradients of the sum of the differentiable ones, and of what was
    written to inputs the new values; random numbers begin anew."""
    torch.manual_seed(7)
    with torch.no_grad():
        own = [t.detach().clone(memory_format=torch.preserve_format) for t in tensors]
    for t, o in zip(tensors, own, strict=True):
        o.requires_grad_(grad and t.requires_grad)
    inputs = [o * 1 if o.requires_grad else o for o in own]
    with warnings.catch_warnings(), torch.set_grad_enabled(grad):
        warnings.simplefilter("ignore")
        results, _ = tree_flatten(f(*inputs))
        if grad:
            roots = [r for r in results if isinstance(r, torch.Tensor) and r.requires_grad]
            leaves = [o for o in own if o.requires_grad]
            if roots and leaves:
                seeds = [torch.ones_like(r) for r in roots]
                results += torch.autograd.grad(roots, leaves, seeds, allow_unused=True)
    return [r.detach() if isinstance(r, torch.Tensor) else r for r in results]


def compiled(f: Callable) -> Callable:
    """Ours, with eager's random numbers."""
    options = {"fallback_random": True}
    return torch.compile(f, backend=Backend(), dynamic=False, options=options)


def difference(got: Any, eager: Any, exact: Any) -> str:
    """How a result differs from eager's, or an empty text."""
    if not isinstance(eager, torch.Tensor):
        same = got == eager or (got != got and eager != eager)
        return "" if same else f"{got}, not {eager}"
    if not isinstance(got, torch.Tensor) or got.shape != eager.shape or got.dtype != eager.dtype:
        return f"{_brief(got)}, not {_brief(eager)}"
    if got.layout != eager.layout:
        return f"{got.layout}, not {eager.layout}"
    try:
        rtol, atol = TOLERANCE.get(eager.dtype, (0, 0))
        torch.testing.assert_close(got, eager, rtol=rtol, atol=atol, equal_nan=True)
        return ""
    except AssertionError as e:
        if isinstance(exact, torch.Tensor) and eager.dtype.is_floating_point:
            ours, theirs = relative_error(got, exact), relative_error(eager, exact)
            if ours <= 2 * theirs + ULP2:
                return ""
        return " ".join(str(e).split())


def _brief(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if isinstance(x, torch.Tensor) else str(type(x))


def compare(case: Case, grad: bool = False) -> str:
    """What is wrong with a case compiled by us, or an empty text; "skip: ..." where eager or
    `aot_eager` fails."""
    try:
        eager = call(case.f, case.tensors, grad)
    except Exception as e:
        return f"skip: eager: {type(e).__name__}"
    torch._dynamo.reset()
    try:
        got = call(compiled(case.f), case.tensors, grad)
        wrong = ""
        if not case.name.startswith(EMPTY):
            exact = _exact(case, grad)
            for k, e in enumerate(eager):
                text = difference(got[k], e, exact[k] if k < len(exact) else None)
                wrong = wrong or (text and f"result {k}: {text}")
    except Exception as e:
        wrong = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
    if not wrong:
        return ""
    torch._dynamo.reset()
    try:
        base = call(torch.compile(case.f, backend="aot_eager", dynamic=False), case.tensors, grad)
        for b, e in zip(base, eager, strict=True):
            if text := difference(b, e, None):
                return f"skip: aot_eager: {text[:80]}"
    except Exception as e:
        return f"skip: aot_eager: {type(e).__name__}"
    return wrong


def _exact(case: Case, grad: bool) -> list[Any]:
    """The results in float64, where they can be had."""
    wide = [t.double() if t.dtype == torch.float32 else t for t in case.tensors]
    try:
        return call(case.f, wide, grad)
    except Exception:
        return []


def together(many: Sequence[Case]) -> Case:
    """Several cases as one function."""
    counts = [len(c.tensors) for c in many]

    def f(*tensors: torch.Tensor) -> Any:
        found, start = [], 0
        for c, n in zip(many, counts, strict=True):
            found.append(c.f(*tensors[start : start + n]))
            start += n
        return found

    return Case(many[0].name, f, [t for c in many for t in c.tensors])


def failures(many: Sequence[Case], grad: bool = False, at_once: int = 16) -> list[str]:
    """What is wrong with cases: compiled together, and one by one where that fails."""
    found = []
    for start in range(0, len(many), at_once):
        part = many[start : start + at_once]
        if len(part) > 1 and not compare(together(part), grad):
            continue
        for k, c in enumerate(part):
            text = compare(c, grad)
            if text and not text.startswith("skip"):
                shapes = tree_map(_brief, c.tensors)
                found.append(f"{c.name} sample {start + k} {shapes}: {text[:400]}")
    return found

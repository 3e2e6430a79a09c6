"""PyTorch's own samples of every operator and module, as functions to compile.

`compare(case)` runs a case in eager and compiled by us and says what differs, if anything. What
fails under `aot_eager`, which compiles nothing, too, is torch's and not held against us; nor are
strides that a fake kernel says and ATen's does not give.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accuracy import ULP2, relative_error
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from traced import as_traced

from sol_dynamo.backend import Backend

OPS = {f"{op.name}.{op.variant_test_name}".rstrip("."): op for op in op_db}
# results are memory as it was found, so there is nothing to compare but shapes
EMPTY = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")
# decompositions of a matrix that are unique up to a sign or a basis: ATen computes them either way
TOLERANCE = {
    torch.float32: (2e-5, 2e-5), torch.float64: (1e-9, 1e-9), torch.float16: (2e-3, 2e-3),
    torch.bfloat16: (2e-2, 2e-2), torch.complex64: (2e-5, 2e-5), torch.complex128: (1e-9, 1e-9),
}  # fmt: skip

# of fewer elements, errors are luck: over the gradients of all samples of attention, ours are 0.88
# of eager's in the mean, and of tensors of 9 to 27 elements as many twice as large as half of it
FEW = 64


@dataclass
class Case:
    """A function of tensors, and what it is called with."""

    name: str
    f: Callable
    tensors: list[torch.Tensor]
    precise: bool = False  # held to the contract alone, nearness to eager does not do

    def fresh(self, wide: bool = False) -> Callable:
        """The function; a module as a copy of its own, in float64 if `wide`."""
        if not isinstance(self.f, torch.nn.Module):
            return self.f
        m = copy.deepcopy(self.f)
        return m.double() if wide else m


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

        made.append(Case(name, f, [leaves[i] for i in at]))
        if first:
            break
    return made


def call(f: Callable, tensors: Sequence[torch.Tensor], grad: bool, seed: int = 7) -> list[Any]:
    """Results, and then the gradients of a weighted sum of the differentiable ones by inputs and by
    a module's parameters, and a module's buffers; random numbers begin anew."""
    torch.manual_seed(seed)
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
            if isinstance(f, torch.nn.Module):
                leaves += [p for p in f.parameters() if p.requires_grad]
            if roots and leaves:
                seeds = [_weights(r) for r in roots]
                results += torch.autograd.grad(roots, leaves, seeds, allow_unused=True)
        if isinstance(f, torch.nn.Module):
            results += f.buffers()
    return [r.detach() if isinstance(r, torch.Tensor) else r for r in results]


def _weights(r: torch.Tensor) -> torch.Tensor:
    """What a result's gradient begins with: other than ones, which the gradients of normalizations
    are orthogonal to."""
    if r.layout != torch.strided:
        return torch.ones_like(r)
    return torch.linspace(0.5, 1.5, r.numel()).view(r.shape).to(r.dtype)


def difference(got: Any, eager: Any, exact: Any, random: bool = False) -> str:
    """How a result differs from eager's, or an empty text; of random ones the values may differ.

    Values are close to eager's or, against `exact`, within the contract of accuracy.
    """
    if not isinstance(eager, torch.Tensor):
        same = got == eager or (got != got and eager != eager)
        return "" if same or random else f"{got}, not {eager}"
    if not isinstance(got, torch.Tensor) or got.shape != eager.shape or got.dtype != eager.dtype:
        return f"{_brief(got)}, not {_brief(eager)}"
    if got.layout != eager.layout:
        return f"{got.layout}, not {eager.layout}"
    if not _same_strides(got, eager):
        return f"strides {got.stride()}, not {eager.stride()}"
    if random:
        return ""
    try:
        rtol, atol = TOLERANCE.get(eager.dtype, (0, 0))
        torch.testing.assert_close(got, eager, rtol=rtol, atol=atol, equal_nan=True)
        return ""
    except AssertionError as e:
        if isinstance(exact, torch.Tensor) and eager.dtype.is_floating_point:
            return beyond_contract(got, eager, exact) and " ".join(str(e).split())
        return " ".join(str(e).split())


def beyond_contract(got: torch.Tensor, eager: torch.Tensor, exact: torch.Tensor) -> str:
    """How the error against float64 exceeds twice eager's plus two ulp, or an empty text."""
    try:
        ours, theirs = relative_error(got, exact), relative_error(eager, exact)
    except AssertionError as e:
        return str(e) or "infinities in other places"
    allowed = 2 * theirs + max(ULP2, 2 * torch.finfo(eager.dtype).eps)
    return "" if ours <= allowed else f"error {ours:.2e}, eager's {theirs:.2e}"


def _same_strides(got: torch.Tensor, eager: torch.Tensor) -> bool:
    if eager.layout != torch.strided or eager.numel() == 0:
        return True
    sizes = zip(eager.shape, got.stride(), eager.stride(), strict=True)
    return all(n == 1 or s == t for n, s, t in sizes)


def _brief(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if isinstance(x, torch.Tensor) else str(type(x))


def compare(case: Case, grad: bool = False) -> str:
    """What is wrong with a case compiled by us, or an empty text; "skip: ..." where eager,
    `aot_eager` or a fake kernel is."""
    try:
        eager = call(case.fresh(), case.tensors, grad)
        other = call(case.fresh(), case.tensors, grad, seed=8)
    except Exception as e:
        return f"skip: eager: {type(e).__name__}"
    random = [bool(difference(b, a, None)) for a, b in zip(eager, other, strict=True)]

    def wrong(backend: Any, exact: list[Any]) -> str:
        torch._dynamo.reset()
        try:
            f = torch.compile(case.fresh(), backend=backend, dynamic=False)
            got = call(f, case.tensors, grad)
        except Exception as e:
            return f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
        if case.name.startswith(EMPTY):
            return ""
        if len(got) != len(eager):
            return f"{len(got)} results, not {len(eager)}"
        for k, e in enumerate(eager):
            x = exact[k] if k < len(exact) else None
            text = difference(got[k], e, x, random[k])
            if not text and case.precise and not random[k] and _holds_contract(e, x):
                text = beyond_contract(got[k], e, x)
            if text:
                return f"result {k}: {text}"
        return ""

    ours = wrong(Backend(), _exact(case, grad))
    if not ours:
        return ""
    theirs = wrong("aot_eager", [])
    if theirs:
        return f"skip: aot_eager: {theirs[:80]}"
    return f"skip: fake kernel: {ours[:80]}" if ours == wrong(as_traced, []) else ours


def _holds_contract(eager: Any, exact: Any) -> bool:
    """Whether a result can be held to the contract; nearness to eager judges the others."""
    floating = isinstance(eager, torch.Tensor) and eager.dtype.is_floating_point
    wide = isinstance(exact, torch.Tensor) and exact.dtype == torch.float64
    return floating and wide and eager.numel() >= FEW


def _exact(case: Case, grad: bool) -> list[Any]:
    """The results in float64, where they can be had."""
    wide = [t.double() if t.is_floating_point() else t for t in case.tensors]
    try:
        return call(case.fresh(wide=True), wide, grad)
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


def failures(
    many: Sequence[Case],
    grad: bool = False,
    at_once: int = 16,
    joined: Callable[[list[Case]], Case] = together,
) -> list[str]:
    """What is wrong with cases: compiled together, and one by one where that fails."""
    found = []
    for start in range(0, len(many), at_once):
        part = many[start : start + at_once]
        if len(part) > 1 and not compare(joined(list(part)), grad):
            continue
        for k, c in enumerate(part):
            text = compare(c, grad)
            if text and not text.startswith("skip"):
                shapes = tree_map(_brief, c.tensors)
                found.append(f"{c.name} sample {start + k} {shapes}: {text[:400]}")
    return found

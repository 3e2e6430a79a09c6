"""The accuracy contract: at most twice eager's error against float64, plus 2 ulp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

ULP2 = 2.4e-7


def relative_error(value: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative RMS error; NaN and infinity must be where the exact value has them."""
    value, exact = value.double(), exact.double()
    finite = torch.isfinite(exact)
    assert torch.equal(torch.isnan(value), torch.isnan(exact)), "NaN in other places"
    assert torch.equal(value[~finite & ~torch.isnan(exact)], exact[~finite & ~torch.isnan(exact)])
    scale = exact[finite].norm()
    distance = (value[finite] - exact[finite]).norm()
    return float(distance / scale) if scale else float(distance)


def wide(x: Any) -> Any:
    """Floating tensors (and modules) in float64."""
    if isinstance(x, torch.Tensor) and x.is_floating_point():
        return x.double()
    return x


def check(f: Callable, exact: Callable, *args: torch.Tensor, backend: Any = None) -> Any:
    """Compile f with our backend and hold its outputs to the contract; gives the compiled f."""
    from sol_dynamo.backend import sol

    torch._dynamo.reset()
    compiled = torch.compile(f, backend=backend or sol)
    with torch.no_grad():
        got, eager = compiled(*args), f(*args)
        reference = exact(*map(wide, args))
    flat = lambda x: list(x) if isinstance(x, (tuple, list)) else [x]  # noqa: E731
    for g, e, r in zip(flat(got), flat(eager), flat(reference), strict=True):
        assert g.dtype == e.dtype and g.shape == e.shape
        sizes = zip(g.shape, g.stride(), e.stride(), strict=True)
        assert g.numel() == 0 or all(n == 1 or s == t for n, s, t in sizes), "other strides"
        if not e.is_floating_point():
            assert torch.equal(g, e) or torch.equal(g, r.to(g.dtype))
            continue
        ours, theirs = relative_error(g, r), relative_error(e, r)
        assert ours <= 2 * theirs + ULP2, f"error {ours:.2e}, eager's {theirs:.2e}"
    return compiled

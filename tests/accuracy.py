"""The accuracy contract: at most twice eager's error against float64, plus 2 ulp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

ULP2 = 2.4e-7
TOLERANCE = {  # beyond eager's own rounding; the contract itself is checked in other tests
    torch.float32: (3e-5, 1e-5), torch.complex64: (3e-5, 1e-5), torch.float64: (1e-10, 1e-10),
    torch.bfloat16: (2e-2, 2e-2), torch.float16: (3e-3, 3e-3),
}  # fmt: skip


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


def same(eager: Any, ours: Any, where: str = "result") -> None:
    """Equal in all that a caller can see."""
    if isinstance(eager, (tuple, list)):
        assert len(eager) == len(ours), where
        for k, (e, o) in enumerate(zip(eager, ours, strict=True)):
            same(e, o, f"{where}[{k}]")
    elif isinstance(eager, dict):
        assert eager.keys() == ours.keys(), where
        for k, e in eager.items():
            same(e, ours[k], f"{where}[{k!r}]")
    elif not isinstance(eager, torch.Tensor):
        assert eager == ours, where
    else:
        assert (eager.dtype, eager.shape) == (ours.dtype, ours.shape), where
        if eager.layout == torch.strided and eager.numel() > 1:
            moving = [d for d, size in enumerate(eager.shape) if size > 1]
            strides = [[t.stride(d) for d in moving] for t in (eager, ours)]
            assert strides[0] == strides[1], f"{where}: strides {strides[1]}, not {strides[0]}"
        rtol, atol = TOLERANCE.get(eager.dtype, (0, 0))
        torch.testing.assert_close(
            ours, eager, rtol=rtol, atol=atol, equal_nan=True, msg=lambda m: f"{where}: {m}"
        )


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

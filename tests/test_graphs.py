"""Whole graphs drawn by Hypothesis, compiled and held to the contract against float64."""

from __future__ import annotations

import pytest
import torch
from accuracy import check
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch.nn import functional

UNARY = [
    torch.relu,
    torch.tanh,
    torch.sigmoid,
    torch.abs,
    torch.neg,
    lambda x: torch.exp(-x.abs()),
    lambda x: torch.sqrt(x.abs() + 0.5),
    lambda x: torch.clamp(x, -0.5, 0.75),
    functional.gelu,
    functional.silu,
    lambda x: x * 2 + 1,
]
BINARY = [torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum]


@st.composite
def steps(draw) -> list[tuple]:
    """A list of operations, each on the values before it; shapes stay (n, c, h, w)."""
    count = draw(st.integers(1, 7))
    kinds = ["unary", "binary", "conv", "depthwise", "reduce", "softmax", "cat", "slice", "pool"]
    kinds += ["permute", "matmul", "norm", "shuffle"]
    return [
        (
            draw(st.sampled_from(kinds)),
            draw(st.integers(0, 99)),
            draw(st.integers(0, 99)),
            draw(st.integers(0, 99)),
        )
        for _ in range(count)
    ]


def build(program: list[tuple], weights: dict[str, torch.Tensor]):
    """A function of x that runs the steps; weights are made on first use, in float32."""
    generator = torch.Generator().manual_seed(0)

    def weight(key: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if key not in weights:
            weights[key] = torch.randn(shape, generator=generator) / max(shape[-1], 1) ** 0.5
        return weights[key].to(dtype)

    def f(x: torch.Tensor):
        values = [x]
        for n, (kind, a, b, c) in enumerate(program):
            v, u = values[a % len(values)], values[b % len(values)]
            channels = v.shape[1]
            if kind == "unary":
                v = UNARY[b % len(UNARY)](v)
            elif kind == "binary":
                v = BINARY[c % len(BINARY)](
                    v, u if u.shape == v.shape else v.mean((2, 3), keepdim=True)
                )
            elif kind == "conv":
                k, s = (1, 3)[b % 2], 1 + c % 2
                w = weight(f"w{n}", (1 + c % 19, channels, k, k), v.dtype)
                v = functional.conv2d(v, w, None, s, k // 2)
            elif kind == "depthwise":
                w = weight(f"w{n}", (channels, 1, 3, 3), v.dtype)
                v = functional.conv2d(v, w, None, 1, 1, 1, channels)
            elif kind == "reduce":
                v = (v.sum, v.mean, v.amax)[b % 3]((1, 2, 3)[c % 3], keepdim=True)
            elif kind == "softmax":
                v = torch.softmax(v, (1, 2, 3)[b % 3])
            elif kind == "cat":
                v = torch.cat([v, u if u.shape == v.shape else v * 2], 1)
            elif kind == "slice":
                v = v[:, : max(1, channels // 2)]
            elif kind == "pool":
                if min(v.shape[2:]) >= 2:
                    v = functional.max_pool2d(v, 2) if b % 2 else functional.avg_pool2d(v, 2)
            elif kind == "permute":
                v = v.permute(0, 1, 3, 2)
            elif kind == "matmul":
                w = weight(f"w{n}", (v.shape[3], 1 + c % 21), v.dtype)
                v = v @ w
            elif kind == "norm":
                v = functional.layer_norm(v, v.shape[-1:]) if v.shape[-1] > 1 else v + 1
            elif kind == "shuffle" and channels % 2 == 0:
                n_, _, h, w_ = v.shape
                v = (
                    v.view(n_, 2, channels // 2, h, w_)
                    if v.is_contiguous()
                    else v.reshape(n_, 2, channels // 2, h, w_)
                )
                v = v.transpose(1, 2).reshape(n_, channels, h, w_)
            values.append(v)
        return values[-1]

    return f


graphs = given(
    steps(),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 13), st.integers(1, 18)),
    st.integers(0, 2**31),
)
common = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def holds(program: list[tuple], shape: tuple[int, ...], seed: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    weights: dict[str, torch.Tensor] = {}
    f = build(program, weights)
    f(x)  # makes the weights
    check(f, f, x)


@settings(max_examples=300, derandomize=True, **common)
@graphs
@example([("conv", 0, 1, 7)], (1, 1, 1, 3), 0)  # padding of an input that is packed
@example([("conv", 0, 0, 7)], (1, 2, 1, 3), 0)  # every second point of a packed input
def test_graph(program, shape, seed):
    """The same graphs in each run."""
    holds(program, shape, seed)


@pytest.mark.slow
@settings(max_examples=1000, **common)
@graphs
def test_new_graphs(program, shape, seed):
    """Other graphs in each run."""
    holds(program, shape, seed)

"""A model of equal blocks, each with parameters and a buffer."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("scale", torch.rand(8) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x)) * self.scale + x


def net(blocks: int = 4) -> nn.Module:
    return nn.Sequential(*(Block() for _ in range(blocks))).eval()

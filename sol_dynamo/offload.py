"""A model of the host that runs on another device: its inputs and outputs stay on the host.

    f(x)  ==>  copy of f on the device, with f's weights there (x.to(device)).cpu()

Weights are moved once for each set of them, and again when they change (`runtime.weights`). What a
call writes to buffers comes back. Nothing here knows which device it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from . import compat
from .config import config
from .runtime.weights import WeightSets

Place = tuple[dict[str, Any], str]  # a module's store of parameters or buffers, and a name in it


class Offloaded:
    """The device's copy of a model, and its weights there."""

    def __init__(
        self, model: nn.Module, device: torch.device, compiled: Callable[[nn.Module], Callable]
    ):
        """`compiled` makes a function of the copy."""
        self.device = device
        self._modules = list(model.modules())
        self._places = _places(model)
        there = copy.deepcopy(model)
        self._copies = _places(there)
        self._sets = WeightSets(self._moved, config().weight_sets)
        self._homes = [self._first_of(i) for i in range(len(self._places))]
        self._placed: list[torch.Tensor] | None = None
        self._written: list[int] = []
        self._function = compiled(there)

    def _first_of(self, i: int) -> int:
        """Tied weights are one tensor: the first place that has it."""
        t = _at(self._places[i])
        return next(k for k, p in enumerate(self._places) if _at(p) is t)

    def _moved(self, weights: list[torch.Tensor]) -> list[torch.Tensor]:
        made: list[torch.Tensor] = []
        for i, w in enumerate(weights):
            first = self._homes[i]
            made.append(made[first] if first < i else self._alike(i, w.to(self.device)))
        return made

    def _alike(self, i: int, there: torch.Tensor) -> torch.Tensor:
        parameter = isinstance(_at(self._places[i]), nn.Parameter)
        return nn.Parameter(there, requires_grad=False) if parameter else there

    def fits(self, model: nn.Module) -> bool:
        """Whether the model still has the modules, and places for weights, that were copied."""
        modules = list(model.modules())
        return (
            len(modules) == len(self._modules)
            and all(map(_same, modules, self._modules))
            and len(self._places) == sum(len(list(_stored(m))) for m in modules)
            and [self._first_of(i) for i in range(len(self._places))] == self._homes
        )

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        weights = [_at(p) for p in self._places]
        placed = self._sets.get(weights)
        if placed is not self._placed:
            for (store, name), t in zip(self._copies, placed, strict=True):
                store[name] = t
            self._placed = placed
        buffers = [
            (i, t, t._version) for i, t in enumerate(placed) if not isinstance(t, nn.Parameter)
        ]
        args, kwargs = compat.tree_map((args, kwargs), lambda t: t.to(self.device))
        result = compat.tree_map(self._function(*args, **kwargs), lambda t: t.cpu())
        for i, before, version in buffers:
            store, name = self._copies[i]
            if store[name] is not before or before._version != version:
                weights[i].copy_(store[name])
                store[name] = before
        return result


def _same(a: nn.Module, b: nn.Module) -> bool:
    return a is b


def _at(place: Place) -> torch.Tensor:
    return place[0][place[1]]


def _stored(module: nn.Module) -> Any:
    for store in (module._parameters, module._buffers):
        for name, t in store.items():
            if t is not None:
                yield store, name


def _places(model: nn.Module) -> list[Place]:
    return [place for m in model.modules() for place in _stored(m)]

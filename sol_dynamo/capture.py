"""`optimize`: a model for one input size, called past Dynamo's guards.

A null backend behind Dynamo costs 0.1 to 0.4 ms a call on small networks. An optimized model is
captured once through torch.compile; later calls check what the program depends on (the inputs'
shapes, strides, dtypes and devices, the training flag, grad and autocast modes, every submodule and
weight by identity) and call the program itself. Whatever does not fit goes the normal, slower way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from . import backend


def optimize(model: nn.Module, *inputs: Any, options: dict[str, Any] | None = None) -> SolModule:
    """A copy of `model`, compiled for inputs of these sizes (torch.Size or tuple) or like these
    tensors. The copy has the model's parameters; load others with `load_state_dict`.

    In eval mode its calls run without autograd; in training mode they are torch.compile's.
    Errors: `TypeError` for an input that is neither a size nor a tensor.
    """
    for x in inputs:
        if not isinstance(x, (torch.Tensor, tuple, list)):
            raise TypeError(f"optimize takes sizes or tensors, not {type(x).__name__}: {x!r}")
    return SolModule(copy.deepcopy(model), inputs, options)


class SolModule(nn.Module):
    """See `optimize`. Its state dict is the wrapped model's, key by key."""

    def __init__(self, model: nn.Module, inputs: Sequence[Any], options: dict[str, Any] | None):
        super().__init__()
        self.__dict__["_model"] = model  # not a submodule: keys must not get a prefix
        self._modules = model._modules
        self._parameters = model._parameters
        self._buffers = model._buffers
        self.training = model.training
        self.__dict__["_sizes"] = [
            tuple(x.shape) if isinstance(x, torch.Tensor) else tuple(x) for x in inputs
        ]
        self.__dict__["_options"] = options
        self.__dict__["_compiled"] = torch.compile(
            model, backend=backend.sol, options=options, dynamic=False
        )
        self.__dict__["_direct"] = None
        self.__dict__["_captured"] = False

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_model"], name)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self._model.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self._model.load_state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> SolModule:
        self._model.train(mode)
        self.training = mode
        return self

    def _apply(self, fn: Callable, recurse: bool = True) -> SolModule:
        self._model._apply(fn, recurse)
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        model = self._model
        if model.training:
            return self._compiled(*args, **kwargs)
        with torch.no_grad():
            direct = self.__dict__["_direct"]
            if direct is not None and not kwargs and direct.matches(args):
                return direct(args)
            if kwargs or self._captured or torch.is_autocast_enabled("cpu"):
                return self._compiled(*args, **kwargs)
            return self._first(args)

    def _first(self, args: tuple[Any, ...]) -> Any:
        """Compile by calling, and keep a direct way to the program where there is one."""
        recorder = Recorder(backend.Backend())
        compiled = torch.compile(
            self._model, backend=recorder, options=self._options, dynamic=False
        )
        result = compiled(*args)
        self.__dict__["_compiled"], self.__dict__["_captured"] = compiled, True
        self.__dict__["_direct"] = recorder.direct(self._model, args, result)
        return result


class Recorder:
    """A backend that notes which graph was compiled and what was passed to it."""

    def __init__(self, inner: backend.Backend):
        self.inner = inner
        self.graphs: list[tuple[torch.fx.GraphModule, Callable]] = []
        self.calls: list[tuple[int, list[Any], Any]] = []

    def __call__(
        self, gm: torch.fx.GraphModule, example_inputs: Sequence[Any], **kwargs: Any
    ) -> Callable:
        f = self.inner(gm, example_inputs, **kwargs)
        index = len(self.graphs)
        self.graphs.append((gm, f))

        def call(*args: Any) -> Any:
            result = f(*args)
            if len(self.calls) < 2:
                self.calls.append((index, list(args), result))
            return result

        return call

    def direct(self, model: nn.Module, args: tuple[Any, ...], result: Any) -> Direct | None:
        """A direct call, if one graph made the whole result from tensors that can be found."""
        calls, self.calls = self.calls, [(0, [], None)] * 2  # nothing is kept alive or recorded now
        if len(self.graphs) != 1 or len(calls) != 1:
            return None
        _, values, outputs = calls[0]
        flat = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
        if isinstance(result, torch.Tensor):
            single, wanted = True, [result]
        elif type(result) in (tuple, list):
            single, wanted = False, list(result)
        else:
            return None
        order = []
        for w in wanted:
            found = [i for i, o in enumerate(flat) if o is w]
            if len(found) != 1:
                return None
            order.append(found[0])
        places: list[tuple[Mapping[str, torch.Tensor | None], str] | int] = []
        homes: dict[int, tuple[Mapping[str, torch.Tensor | None], str]] = {}
        for module in model.modules():
            for store in (module._parameters, module._buffers):
                for name, t in store.items():
                    if t is not None:
                        homes.setdefault(id(t), (store, name))
        for v in values:
            at = [i for i, a in enumerate(args) if a is v]
            if at:
                places.append(at[0])
            elif id(v) in homes:
                places.append(homes[id(v)])
            else:
                return None
        if any(not isinstance(a, torch.Tensor) for a in args):
            return None
        return Direct(model, self.graphs[0][1], places, args, order, single, type(result))


class Direct:
    """The program of a model for one kind of input, with its own guards."""

    def __init__(self, model, function, places, args, order, single, kind):
        self.function, self.places, self.order = function, places, order
        self.single, self.kind = single, kind
        self.inputs = [_signature(a) for a in args]
        self.tree = [
            (m._modules, name, child) for m in model.modules() for name, child in m._modules.items()
        ]
        self.modes = [(m, m.training) for m in model.modules() if m.training]
        self.model = model

    def matches(self, args: tuple[Any, ...]) -> bool:
        """Whether the program may be called: same kind of inputs, same modules, same modes."""
        if len(args) != len(self.inputs) or torch.is_autocast_enabled("cpu"):
            return False
        if any(
            not isinstance(a, torch.Tensor) or _signature(a) != s
            for a, s in zip(args, self.inputs, strict=True)
        ):
            return False
        return all(
            store.get(name) is child and not child.training
            for store, name, child in self.tree
            if child is not None
        )

    def __call__(self, args: tuple[Any, ...]) -> Any:
        values = [args[p] if isinstance(p, int) else p[0][p[1]] for p in self.places]
        result = self.function(*values)
        if self.single:
            return result[self.order[0]] if isinstance(result, (tuple, list)) else result
        return self.kind(result[i] for i in self.order)


def _signature(a: torch.Tensor) -> tuple:
    return type(a), a.shape, a.stride(), a.dtype, a.device, a.requires_grad


__all__ = ["SolModule", "optimize"]

"""`optimize`: a model for one input size, called past Dynamo's guards.

A null backend behind Dynamo costs 0.1 to 0.4 ms a call on small networks. An optimized model is
captured once through torch.compile; later calls check what the program depends on and call the
program itself: the inputs' shapes, strides, dtypes, devices and which of them are one tensor, the
training flags, grad and autocast modes, every submodule, weight and number of hooks. Whatever does
not fit goes the normal, slower way. The one thing that is not looked at is a plain Python attribute
of a module (`model.scale = 2.0`): after a change of such, call `optimize` again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import attrgetter, is_
from typing import Any

import torch
from torch import nn

from . import backend, compat, device
from .offload import Offloaded
from .runner import Unfit

Place = tuple[dict[str, Any], str]  # a module's store of parameters or buffers, and a name in it


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
        self.__dict__["_offloaded"] = None
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
        if (there := device.current()) is not None:
            return self._on(there, args, kwargs)
        if model.training:
            return self._compiled(*args, **kwargs)
        with torch.no_grad():
            direct = self.__dict__["_direct"]
            if direct is not None and not kwargs:
                try:
                    return direct(args)
                except Unfit:
                    pass
            if kwargs or self._captured or compat.autocasting():
                return self._compiled(*args, **kwargs)
            return self._first(args)

    def _on(self, there: torch.device, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call on the device that `device.set` chose."""
        if self._model.training:
            raise RuntimeError(
                f"a model that sol_dynamo.device.set({there.type!r}, {there.index}) sends elsewhere"
                " runs in eval mode only: call .eval(), or train model.to(device) there"
            )
        with torch.no_grad():
            known = self.__dict__["_offloaded"]
            if known is None or known.device != there or not known.fits(self._model):
                known = Offloaded(self._model, there, self._compiled_there)
                self.__dict__["_offloaded"] = known
            return known(args, kwargs)

    def _compiled_there(self, model: nn.Module) -> Callable:
        return torch.compile(model, backend=backend.sol, options=self._options, dynamic=False)

    def _first(self, args: tuple[Any, ...]) -> Any:
        """Compile by calling, and keep a direct way to the program where there is one."""
        recorder = Recorder(backend.Backend(fetches=False))
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
        places: list[Place | int] = []
        homes: dict[int, Place] = {}
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
        if any(not isinstance(a, torch.Tensor) or id(a) in homes for a in args):
            return None
        return Direct(model, self.graphs[0][1], places, args, order, single, type(result))


class Direct:
    """The program of a model for one kind of input, with its own guards.

    They are lists that `map` walks without Python code for each module or weight: a network of 200
    modules is checked in some 10 us.
    """

    def __init__(
        self,
        model: nn.Module,
        function: Callable,
        places: list[Place | int],
        args: tuple[torch.Tensor, ...],
        order: list[int],
        single: bool,
        kind: type,
    ):
        self.function, self.order = function, order
        self.stores = [p[0] for p in places if not isinstance(p, int)]
        self.names = [p[1] for p in places if not isinstance(p, int)]
        self.given = [(i, p) for i, p in enumerate(places) if isinstance(p, int)]
        self.single, self.kind = single, kind
        self.inputs = list(map(_signature, args))
        self.same = _first_of_each(args)
        self.modules = list(model.modules())
        self.children = [m._modules for m in self.modules if m._modules]
        self.child_values = list(map(tuple, map(dict.values, self.children)))
        self.hooks = [h for m in self.modules for h in (m._forward_hooks, m._forward_pre_hooks)]
        self.hooks += compat.global_module_hooks()
        self.hook_counts = list(map(len, self.hooks))
        stores = [s for m in self.modules for s in (m._parameters, m._buffers)]
        absent = [(s, name) for s in stores for name, t in s.items() if t is None]
        self.absent = [s for s, _ in absent], [name for _, name in absent]
        home: dict[int, Place] = {}
        self.tied: list[tuple[Place, Place]] = []
        for s in stores:
            for name, t in s.items():
                if t is not None and id(t) in home:
                    self.tied.append((home[id(t)], (s, name)))
                elif t is not None:
                    home[id(t)] = s, name

    def __call__(self, args: tuple[Any, ...]) -> Any:
        """The program's result. Errors: `Unfit` if it is not for these inputs and this model."""
        if not self._inputs_fit(args) or not self._model_fits():
            raise Unfit
        values = list(map(_get, self.stores, self.names))
        if _any_is(values, None):
            raise Unfit
        for i, p in self.given:  # in their order, which makes room for those behind
            values.insert(i, args[p])
        result = self.function(*values)
        if self.single:
            return result[self.order[0]] if isinstance(result, (tuple, list)) else result
        return self.kind(result[i] for i in self.order)

    def _inputs_fit(self, args: tuple[Any, ...]) -> bool:
        return (
            len(args) == len(self.inputs)
            and not compat.autocasting()
            and all(isinstance(a, torch.Tensor) for a in args)
            and list(map(_signature, args)) == self.inputs
            and _first_of_each(args) == self.same
        )

    def _model_fits(self) -> bool:
        return (
            not any(map(_training, self.modules))
            and list(map(tuple, map(dict.values, self.children))) == self.child_values
            and list(map(len, self.hooks)) == self.hook_counts
            and all(map(is_, map(_get, *self.absent), repeat(None)))
            and all(a.get(x) is b.get(y) for (a, x), (b, y) in self.tied)
        )


_training = attrgetter("training")
_get: Callable[[Any, str], Any] = dict.get


def _any_is(values: Iterable[Any], wanted: Any) -> bool:
    return any(map(is_, values, repeat(wanted)))


def _first_of_each(args: tuple[Any, ...]) -> list[int]:
    """For each argument, the first position of the same object."""
    ids = list(map(id, args))
    return list(map(ids.index, ids))


def _signature(a: torch.Tensor) -> tuple:
    return type(a), a.shape, a.stride(), a.dtype, a.device, a.requires_grad, a.is_neg()


__all__ = ["SolModule", "optimize"]

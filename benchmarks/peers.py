"""Who is compared: one function a peer, from a model and an input to something callable.

`build(model, x, threads)` prepares everything (export, compile) and gives a function of the
input. Every peer gets the same thread count, float32 arithmetic and no gradients, and whatever of
its own options a careful user would set. A peer whose package is missing raises ImportError.
"""

from __future__ import annotations

import copy
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    build: Callable[[nn.Module, Tensor, int], Call]
    dynamo: bool = (
        False  # built by Dynamo and AOTAutograd, whose share of the first call is torch's
    )
    compiles: bool = True


def eager(model: nn.Module, x: Tensor, threads: int) -> Call:
    return model


def channels_last(model: nn.Module, x: Tensor, threads: int) -> Call:
    converted: nn.Module = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return lambda x: converted(x.contiguous(memory_format=torch.channels_last))


def aot_eager(model: nn.Module, x: Tensor, threads: int) -> Call:
    """Dynamo and AOTAutograd with nothing behind them: what every backend of torch.compile pays."""
    return torch.compile(copy.deepcopy(model), backend="aot_eager")


def inductor(model: nn.Module, x: Tensor, threads: int) -> Call:
    return _inductor(model, x)


def inductor_freezing(model: nn.Module, x: Tensor, threads: int) -> Call:
    return _inductor(model, x, freezing=True)


def inductor_max_autotune(model: nn.Module, x: Tensor, threads: int) -> Call:
    """Freezing and max-autotune: minutes of compiling for a large network."""
    return _inductor(model, x, freezing=True, max_autotune=True)


def _inductor(model: nn.Module, x: Tensor, **options: bool) -> Call:
    """Compiled now, since Dynamo and Inductor read `freezing` from the global configuration."""
    import torch._inductor.config as config

    compiled = torch.compile(copy.deepcopy(model), backend="inductor")
    with config.patch(options), torch.no_grad():
        compiled(x)
    return compiled


def onnxruntime(model: nn.Module, x: Tensor, threads: int) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)
        torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def openvino(model: nn.Module, x: Tensor, threads: int) -> Call:
    """The result lies in memory of the request: the next call overwrites it."""
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    import openvino as ov

    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it traces with torch.jit
        converted = ov.convert_model(model, example_input=x, input=list(x.shape))
    request = ov.Core().compile_model(converted, "CPU", hints).create_infer_request()

    def call(x: Tensor) -> Tensor:
        result: Any = request.infer([x.numpy()], share_inputs=True, share_outputs=True)
        return torch.from_numpy(result[0])

    return call


def sol(model: nn.Module, x: Tensor, threads: int) -> Call:
    from sol_dynamo.backend import sol as backend  # the object: works where nothing is installed

    return torch.compile(copy.deepcopy(model), backend=backend)


def sol_optimize(model: nn.Module, x: Tensor, threads: int) -> Call:
    import sol_dynamo

    optimized = sol_dynamo.optimize(model, x.size())
    optimized.load_state_dict(model.state_dict())
    return optimized


PEERS = {
    "eager": Peer(eager, compiles=False),
    "channels_last": Peer(channels_last, compiles=False),
    "aot_eager": Peer(aot_eager, dynamo=True),
    "inductor": Peer(inductor, dynamo=True),
    "inductor_freezing": Peer(inductor_freezing, dynamo=True),
    "inductor_max_autotune": Peer(inductor_max_autotune, dynamo=True),
    "onnxruntime": Peer(onnxruntime),
    "openvino": Peer(openvino),
    "sol": Peer(sol, dynamo=True),
    "sol_optimize": Peer(sol_optimize),
}
DEFAULT = tuple(p for p in PEERS if p not in ("aot_eager", "inductor_max_autotune"))

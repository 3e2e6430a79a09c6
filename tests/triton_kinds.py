"""A function for each kind of kernel that the Triton target writes; a script, see `test_triton.py`.

TRITON_INTERPRET=1 python tests/triton_kinds.py   # run in the interpreter, held to the contract
python tests/triton_kinds.py 80 90 100            # compiled for NVIDIA's GPUs of these capabilities
python tests/triton_kinds.py gfx942               # and for one of AMD's
python tests/triton_kinds.py 80 mobilenet_v2      # a network of torchvision's instead
python tests/triton_kinds.py cuda                 # run on a GPU: launched, recorded, replayed
"""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import BuiltinFunctionType
from typing import Any
from unittest.mock import patch

import torch
import triton
from accuracy import relative_error
from torch import Tensor, nn
from torch.nn import functional

from sol_dynamo import candidates, compat, target
from sol_dynamo.backend import Backend
from sol_dynamo.decompositions import group_norm
from sol_dynamo.ir import Extern, Kernel
from sol_dynamo.kernels.triton import product, tune, walk
from sol_dynamo.kernels.triton.compile import compile_program
from sol_dynamo.kernels.triton.segment import Segment
from sol_dynamo.kernels.triton.target import TritonTarget
from sol_dynamo.schedule import taps

os.environ["SOL_STRICT"] = "1"
ULPS = 2 * torch.finfo(torch.float32).eps
DEVICE = "cuda" if "cuda" in sys.argv else "cpu"
CALLS = 4 if DEVICE == "cuda" else 1


def kinds() -> dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]]:
    """Name -> (function, shapes of its inputs)."""
    return {
        "pointwise": (lambda x, y: torch.relu(x * 2 + y).sin(), ((5, 7), (7,))),
        "permuted": (lambda x, y: torch.exp(x.transpose(0, 2)) + y, ((50, 17, 3), (50,))),
        "transposed": (lambda x: x.t().contiguous() + 1, ((100, 33),)),
        "rounded": (lambda x: (x.bfloat16() * 3).float().floor(), ((7, 9),)),
        "rows": (lambda x: x.sum(1), ((9, 3000),)),
        "columns": (lambda x: x.sum(0), ((3000, 9),)),
        "columns and what their rows share": (  # in parts; the last block is not full
            lambda x, y, z: torch.cat([(x * (y - z)).sum(0), x.sum(0)]),
            ((1400, 200), (1400, 200), (1400, 1)),
        ),
        "all": (lambda x: x.mean(), ((1000, 33),)),
        "softmax": (lambda x: torch.softmax(x, -1), ((6, 1000),)),
        "long softmax": (lambda x: torch.softmax(x, -1), ((2, 20000),)),
        "layer norm": (lambda x: functional.layer_norm(x, (100,)), ((6, 100),)),
        "norm of a sum": (  # which others read, too
            lambda x, y: (lambda s: torch.cat([functional.layer_norm(s, (100,)), s.flip(0)]))(
                x + y
            ),
            ((6, 100), (6, 100)),
        ),
        "norm of a flattened product": (
            lambda x, y, w: functional.layer_norm(x + (y @ w).view(4, 6, 100), (100,)),
            ((4, 6, 100), (24, 5), (5, 100)),
        ),
        "greatest": (lambda x: x.amax(1) + x.argmax(1), ((6, 300),)),
        "running": (lambda x: x.cumsum(1), ((6, 30),)),
        "gathered": (lambda x, y: x[y.abs().long() % 5], ((5, 7), (11,))),
        "product": (lambda x, y: torch.relu(x @ y + 1), ((50, 70), (70, 90))),
        "masked product": (
            lambda x, y, z: torch.where(z > 0, torch.zeros((), device=DEVICE), x @ y),
            ((1600, 96), (96, 576), (1600, 576)),
        ),
        "shared product": (lambda x, y: torch.relu(x @ y + y[0]), ((20, 3000), (3000, 40))),
        "shared products": (lambda x, y: x @ y, ((2, 20, 999), (2, 999, 40))),
        "batch of products": (lambda x, y: x @ y, ((3, 20, 70), (3, 70, 33))),
        "sorted": (lambda x: ((x * 2).sort(1)[0] + 1).sort(0)[0] * 3, ((9, 30),)),
        "only calls": (lambda x: x.sort(1)[0].sort(0)[0].sort(1)[0], ((9, 30),)),
        "one sum of products": (
            lambda x, y, z, w, b: torch.relu(x @ y + z @ w + b),
            ((80, 70), (70, 90), (80, 99), (99, 90), (90,)),
        ),
        "one shared sum": (
            lambda x, y, z, w, b: torch.addmm(b, x, y) + (z @ w + w.t() @ w),
            ((70, 999), (999, 70), (70, 555), (555, 70), (70, 1)),
        ),
        "one sum, of which one part is short": (  # in parts
            lambda x, y, z, w: torch.relu(x @ y + z @ w),
            ((128, 32), (32, 128), (128, 2000), (2000, 128)),
        ),
        "sums of sums": (power_iteration, ((8, 48), (48,))),
        "norm of norms": (global_response, ((2, 8, 8, 32), (32,))),
        "norm of groups": (
            lambda x, w, b: torch.relu(group_norm(x, w, b, 3, 1e-5)[0]),
            ((2, 12, 9, 7), (12,), (12,)),
        ),
        "one row": (lambda x, y: x @ y, ((1, 70), (70, 33))),
        "two rows": (functional.linear, ((2, 300), (70, 300))),
        "six rows": (lambda x, y: torch.relu(functional.linear(x, y) + 1), ((6, 600), (33, 600))),
        "rows and columns": (
            lambda x, y, z: functional.linear(x, y, z),
            ((48, 96), (20, 96), (20,)),
        ),
        "bf16 rows": (
            lambda x, y: functional.linear(x.bfloat16(), y.bfloat16()),
            ((3, 70), (40, 70)),
        ),
        "bf16 product": (lambda x, y: x.bfloat16() @ y.bfloat16(), ((50, 70), (70, 90))),
        "f16 product": (lambda x, y: torch.relu(x.half() @ y.half() + 1), ((50, 70), (70, 90))),
    }


def power_iteration(w: Tensor, v: Tensor) -> Tensor:
    """A step towards a matrix's largest singular value; every vector is read again."""
    u = functional.normalize((w * v).sum(1), dim=0)
    v = functional.normalize((w.t() * u).sum(1), dim=0)
    return torch.cat([(w * v).sum(1) * u, u, v])


def global_response(x: Tensor, w: Tensor) -> Tensor:
    """Each channel scaled by its norm over an image, as a part of all channels' norms."""
    norms = x.norm(dim=(1, 2), keepdim=True)
    return w * (x * (norms / (norms.mean(-1, keepdim=True) + 1e-6))) + x


def modules() -> dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]]:
    return {
        "3x3": (nn.Conv2d(16, 32, 3, padding=1), ((2, 16, 9, 9),)),
        "3x3 of few": (nn.Conv2d(96, 24, 3, padding=1), ((1, 96, 5, 5),)),
        "7x7 of three": (nn.Conv2d(3, 32, 7, 2, 3), ((2, 3, 19, 19),)),
        "1x1": (nn.Sequential(nn.Conv2d(256, 512, 1), nn.ReLU()), ((2, 256, 28, 28),)),
        "3x3 of few points": (rectified(64, 256), ((3, 64, 3, 3),)),
        "3x3 of fewer points": (rectified(64, 256), ((2, 64, 3, 3),)),
        "1x1 of few": (nn.Conv2d(256, 512, 1, stride=2, bias=False), ((2, 256, 55, 56),)),
        "shortcut": (Shortcut(64, 96, 3), ((2, 64, 17, 16),)),
        "shortcut of few points": (Shortcut(512, 128, 1), ((1, 512, 7, 7),)),
        "repeated": (Shared(32, 33), ((50, 2, 32),)),
        "grouped": (nn.Conv2d(32, 32, 3, padding=1, groups=2), ((2, 32, 9, 9),)),
        "depthwise": (nn.Conv2d(32, 32, 3, padding=1, groups=32), ((2, 32, 9, 9),)),
        **windows(),
        "pool": (nn.MaxPool2d(3, 2, 1), ((2, 32, 9, 9),)),
        "average": (nn.AdaptiveAvgPool2d(1), ((2, 32, 9, 9),)),
    }


class Shared(nn.Module):
    """Products of each matrix of a batch by one that repeats."""

    def __init__(self, rows: int, columns: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, columns))

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        return torch.bmm(x, self.weight.expand(len(x), -1, -1))


def windows() -> dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]]:
    """Windows that overlap."""
    of_24 = {"padding": 2, "groups": 24}
    return {
        "5x5, each channel": (nn.Conv2d(24, 24, 5, **of_24), ((2, 24, 14, 9),)),
        "5x5 by two": (nn.Conv2d(24, 24, 5, stride=2, **of_24), ((2, 24, 15, 16),)),
        "3x3, dilated": (nn.Conv2d(24, 24, 3, dilation=2, **of_24), ((2, 24, 14, 14),)),
        "greatest of 3x3": (nn.MaxPool2d(3, 1, 1), ((2, 8, 14, 8),)),
        "where 3x3 is greatest": (Positions(3, 1, 1), ((2, 8, 14, 8),)),
        "average inside": (nn.AvgPool2d(5, 1, 2, count_include_pad=False), ((1, 5, 8, 14),)),
    }


def rectified(ins: int, outs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(ins, outs, 3, padding=1), nn.ReLU())


class Shortcut(nn.Module):
    """The end of a block whose shortcut is a convolution."""

    def __init__(self, ins: int, outs: int, size: int):
        super().__init__()
        self.last = nn.Conv2d(ins, outs, size, 2, size // 2)
        self.shortcut = nn.Conv2d(ins, outs, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.last(x.relu()) + self.shortcut(x))


class Positions(nn.MaxPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + functional.max_pool2d(
            x, self.kernel_size, self.stride, self.padding, return_indices=True
        )[1].to(x.dtype)


class TwoWindows(nn.Module):
    """Of one image, added, so that one kernel reads two copies of it."""

    def __init__(self, ins: int, outs: int):
        super().__init__()
        self.near = nn.Conv2d(ins, outs, 7, padding=3)
        self.far = nn.Conv2d(ins, outs, 7, padding=(6, 3), dilation=(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.near(x) + self.far(x)


def networks(names: list[str]) -> dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]]:
    from torchvision import models

    return {n: (models.get_model(n).eval(), ((1, 3, 224, 224),)) for n in names}


def tf32(x: Tensor) -> Tensor:
    """float32 as a TF32 unit reads it: 10 bits of fraction, to nearest, ties away from zero."""
    if x.dtype != torch.float32:
        return x
    step = torch.exp2(torch.floor(torch.log2(x.abs().double())) - 10)
    return (torch.sign(x) * torch.floor(x.abs().double() / step + 0.5) * step).float()


def some_products(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    """Where operands are rounded if torch's flags say so; not the depthwise convolution's."""
    return x @ y, functional.conv2d(w, w[:, :, :1, :1]), functional.conv2d(w, w[:, :1], groups=32)


def misrounded() -> str:
    """How products differ from those of operands rounded to TF32, where its flags are on, or ""."""
    inputs = [torch.randn(s, device=DEVICE) for s in ((40, 50), (50, 60), (32, 32, 3, 3))]
    x, y, w = (t.double() for t in inputs)
    p, q, r = (tf32(t).double() for t in inputs)
    v, s = (t[:, :, :1, :1] for t in (w, r))
    for matmul, convolution in ((0, 1), (1, 0), (0, 0)):
        torch._dynamo.reset()
        torch.backends.cuda.matmul.fp32_precision = "tf32" if matmul else "ieee"
        torch.backends.cudnn.conv.fp32_precision = "tf32" if convolution else "ieee"
        with torch.no_grad():
            got = torch.compile(some_products, backend=Backend(), dynamic=False)(*inputs)
            exact = (
                (p if matmul else x) @ (q if matmul else y),
                functional.conv2d(*((r, s) if convolution else (w, v))),
                functional.conv2d(w, w[:, :1], groups=32),
            )
        for k, (a, b) in enumerate(zip(got, exact, strict=True)):
            if relative_error(a, b) > 3e-6:
                return f"{matmul=} {convolution=}: product {k} off by {relative_error(a, b):.1e}"
    return ""


def misbordered() -> str:
    """How convolutions over few channels differ, which read a copy with a border, or ""."""
    models = (
        nn.Conv2d(3, 64, 7, padding=3),
        nn.Sequential(nn.Conv2d(4, 64, 5, padding=2, bias=False), nn.ReLU()),
        nn.Conv2d(3, 64, (5, 7), padding=(4, 3), dilation=(2, 1)),
        nn.Conv2d(3, 96, 7, padding=3).bfloat16(),
        TwoWindows(3, 64),
    )
    before = dict(target._loaded)
    if DEVICE == "cpu":  # fewer multiprocessors, for which it pays with fewer points
        target._loaded["cpu"] = TritonTarget("cpu", processors=4)
    size = (183, 191) if DEVICE == "cuda" else (33, 31)
    try:
        return next(filter(None, (unlike(m, size, bordered) for m in models)), "")
    finally:
        target._loaded |= before


def bordered(kernels: list[Kernel]) -> bool:
    return any("border" in k.note for k in kernels)


def misfilled() -> str:
    """How a product of eight terms differs, which fills half of a block, or ""."""
    with patch.object(product, "MANY_RESULTS", 1):
        return unlike(nn.Conv2d(8, 24, 1), (9, 7), lambda ks: len(ks[-1].schedules[0].block) == 3)


def overlap(kernels: list[Any]) -> bool:
    return any(s.halo for k in kernels if isinstance(k, Kernel) for s in k.schedules)


def misplaced() -> str:
    """How convolutions differ that sum the taps of a row in a block of neighbours, or ""."""
    models = (
        nn.Conv2d(64, 8, 3, padding=1),
        nn.Sequential(nn.Conv2d(48, 4, (3, 5), padding=(0, 2), bias=False), nn.ReLU()),
        nn.Conv2d(40, 16, (5, 3), (2, 1), (4, 1), (2, 1)),
        nn.Sequential(nn.Conv2d(64, 8, 3, padding=1), nn.Sigmoid()).bfloat16(),
        nn.Conv2d(96, 2, (1, 7), padding=(0, 3)).half(),
    )

    with patch.object(taps, "READ_AGAIN", 0):
        sizes = (13, 19), (7, 66)
        found = (unlike(m, s, overlap, 3, torch.channels_last) for m in models for s in sizes)
        return next(filter(None, found), "")


def unlike(
    model: nn.Module,
    size: tuple[int, int],
    wanted: Callable[[list[Kernel]], bool],
    images: int = 1,
    layout: torch.memory_format = torch.contiguous_format,
) -> str:
    """How a convolution in TF32 or in half precision differs, or what is not as `wanted` of its
    kernels."""
    torch._dynamo.reset()
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    weight = next(model.parameters())
    x = torch.randn(images, weight.shape[1], *size, device=DEVICE).to(memory_format=layout)
    rounded = tf32(x)
    for t in (x, rounded):
        t[0, 0, size[0] // 2, size[1] // 2] = torch.inf  # stays in the windows that hold it
    model, backend = model.to(DEVICE), Backend()
    exact = copy.deepcopy(model).double()
    for p in exact.parameters():
        p.data = tf32(p.data.float()).double() if p.dim() > 1 else p.data
    with torch.no_grad():
        run = torch.compile(model, backend=backend, dynamic=False)
        got, want = run(x.to(weight.dtype)), exact(rounded.to(weight.dtype).double())
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    kernels = backend.graphs[0].compiled.program.kernels
    if not all(isinstance(k, Kernel) for k in kernels) or not wanted([*kernels]):
        return f"{model}: {[k.name for k in kernels]}"
    if not torch.equal(got.isfinite(), want.isfinite()):
        return f"{model}: infinite elsewhere"
    within = want.isfinite()
    error = relative_error(got[within], want[within])
    allowed = 3e-6 if weight.dtype == torch.float32 else 1e-2
    return f"{model}: off by {error:.1e}" if error > allowed else ""


def miscopied() -> str:
    """The same where operands whose terms lie apart are copied."""
    with patch.object(product, "ACROSS", 1e-6):
        return misrounded()


def misaddressed() -> str:
    """How elements more than 2**31 apart are not found, or ""."""
    # on a CPU, of which two pages are ever there
    memory = torch.zeros(2**31 + 1, dtype=torch.uint8, device=DEVICE)
    x = memory[:: 2**30]
    x.copy_(torch.tensor([1, 2, 3], dtype=torch.uint8))
    torch._dynamo.reset()
    got = torch.compile(lambda x: (x + 1, x.sum()), backend=Backend(), dynamic=False)(x)
    return "" if got[0].tolist() == [2, 3, 4] and got[1] == 6 else str(got)


def mistuned() -> str:
    """What is wrong with choosing by timing (each way once, then never again), or ""."""
    timed: list[float] = []
    plain = tune._time

    def time(*given) -> float:
        timed.append(plain(*given))
        return timed[-1]

    inputs = [torch.randn(40, 900, device=DEVICE), torch.randn(900, 50, device=DEVICE)]
    exact, counts = inputs[0].double() @ inputs[1].double(), []
    timing = patch.object(tune, "_time", time)
    with TemporaryDirectory() as folder, patch.dict(os.environ, SOL_CACHE_DIR=folder), timing:
        for _ in range(2):
            torch._dynamo.reset()
            f = torch.compile(torch.matmul, backend=Backend(), mode="max-autotune", dynamic=False)
            if relative_error(f(*inputs), exact) > 1e-6:
                return "the result"
            counts.append(len(timed))
    if not all(0 < t < math.inf for t in timed):
        return f"took {timed} s"
    return "" if 1 < counts[0] == counts[1] else f"timed {counts} times"


def misjudged() -> str:
    """What is wrong with choosing between ATen and kernels of ours by timing (each once, the faster
    one, and then never again), or ""."""
    took: list[float] = []
    plain = tune.seconds

    def seconds(*given) -> float:
        took.append(plain(*given))
        return 1.0 if len(took) % 2 else of_aten  # which comes second

    def f(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return torch.addmm(b, x.relu(), w).relu()

    inputs = [torch.randn(s, device=DEVICE) for s in ((40, 90), (90, 50), (50,))]
    exact = f(*(x.double() for x in inputs))
    patches = patch.object(tune, "seconds", seconds), patch.object(candidates, "LEAST", 1)
    for of_aten, calls in ((0.5, 1), (2.0, 0)):  # noqa: B007  (`seconds` reads it)
        took.clear()
        with TemporaryDirectory() as folder, patch.dict(os.environ, SOL_CACHE_DIR=folder):
            for again in range(2):
                torch._dynamo.reset()
                backend = Backend()
                with patches[0], patches[1], torch.no_grad():
                    run = torch.compile(f, backend=backend, mode="max-autotune", dynamic=False)
                    if relative_error(run(*inputs), exact) > 1e-6:
                        return "the result"
                (graph,) = backend.graphs
                externs = [k for k in graph.compiled.program.kernels if isinstance(k, Extern)]
                if len(externs) != calls or not all("was faster: " in k.reason for k in externs):
                    return f"{len(externs)} calls of ATen, not {calls}"
                if len(took) != 2 or not all(0 < t < math.inf for t in took):
                    return f"took {took} s{' again' * again}"
    return ""


def mistiled() -> str:
    """Several results of a window at a time, as if there were points enough for all threads."""
    with patch.object(walk, "THREADS", 1e-6):
        for name, (f, shapes) in windows().items():
            if text := wrong(f.to(DEVICE), [torch.randn(s, device=DEVICE) for s in shapes]):
                return f"{name}: {text}"
    return ""


def untraced() -> str:
    """What is wrong with a graph of which it is known what it is traced to: when it is called, and
    when it is traced after all, since a weight keeps changing; or ""."""
    blocks = (nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(5))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *blocks, nn.Flatten(), nn.Linear(8 * 36, 5))
    model, x = model.eval().to(DEVICE), torch.randn(2, 3, 8, 8, device=DEVICE)
    tracings, plain = [], compat.aot_autograd

    def counted(**options: Any) -> Callable:
        tracings.append(True)
        return plain(**options)

    def result() -> Tensor:
        with torch.no_grad():
            return run(x.clone())

    counting, results = patch.object(compat, "aot_autograd", counted), []
    users = {"SOL_STRICT": ""}  # stages that are looked at are gone through
    with (
        TemporaryDirectory() as folder,
        counting,
        patch.dict(os.environ, users, SOL_CACHE_DIR=folder),
    ):
        for _ in range(2):
            torch._dynamo.reset()
            run = torch.compile(model, backend=Backend(), dynamic=False)
            results += [result() for _ in range(CALLS)]
        if not all(torch.equal(results[0], r) for r in results):
            return "the same call gave two results"
        if len(tracings) != 1:
            return f"traced {len(tracings)} times, not once"
        for n in range(10):
            with torch.no_grad():
                model[-1].bias.fill_(n)
                exact = copy.deepcopy(model).double()(x.double())
            if relative_error(result(), exact) > 1e-6:
                return f"the result with a weight that changed {n + 1} times"
    return "" if len(tracings) == 2 else f"traced {len(tracings)} times, not twice"


def unsteady() -> str:
    """What is wrong with calls like the one before: with inputs anywhere and results that are kept,
    behind a write to a weight, on another stream; or ""."""
    blocks = (nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(5))
    linear = nn.Linear(8 * 36, 5)  # behind it a kernel of ours, as a graph's own results are
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *blocks, nn.Flatten(), linear, nn.Hardtanh(-99, 99))
    model, kept = model.eval().to(DEVICE), []
    torch._dynamo.reset()
    backend = Backend()
    run = torch.compile(model, backend=backend, dynamic=False)
    streams = [nullcontext()] * 3
    if DEVICE == "cuda":
        streams[1] = torch.cuda.stream(torch.cuda.Stream())
    with torch.no_grad():
        for turn, stream in enumerate(streams):
            linear.bias.add_(turn)
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            with stream:
                for _ in range(2 * CALLS):
                    x = torch.randn(2, 3, 8, 8, device=DEVICE)
                    exact = copy.deepcopy(model).double()(x.double())
                    kept.append((x, run(x), exact))
                if DEVICE == "cuda":
                    torch.cuda.synchronize()
                again = backend.graphs[0].compiled.executable.again
                if (DEVICE == "cuda") != isinstance(again, BuiltinFunctionType):
                    return f"{turn}: a call is {again}"
    for n, (_, y, exact) in enumerate(kept):
        if (error := relative_error(y, exact)) > 1e-6:
            return f"call {n}: error {error:.1e}"
    return "" if len({y.data_ptr() for _, y, _ in kept}) == len(kept) else "results share memory"


def wrong(f: Callable[..., Tensor], inputs: list[Tensor]) -> str:
    """How a compiled function's result differs from eager's, or ""."""
    torch._dynamo.reset()
    backend = Backend()
    with torch.no_grad():
        eager, compiled = f(*inputs), torch.compile(f, backend=backend, dynamic=False)
        results = [compiled(*(x.clone() for x in inputs)) for _ in range(CALLS)]
        if isinstance(f, nn.Module):
            exact = f.double()(*(x.double() for x in inputs))
        else:
            exact = f(*(x.double() for x in inputs))
    if any(g.runner is None or g.compiled.program.kernels == () for g in backend.graphs):
        return "not compiled"
    got = results[0]
    if got.dtype != eager.dtype or got.shape != eager.shape or got.stride() != eager.stride():
        return f"{tuple(got.shape)} {got.stride()}"
    if not all(torch.equal(got, r) for r in results):
        return "the same call gave two results"
    if DEVICE == "cuda" and not all(map(recorded, backend.graphs)):
        return "no graph"
    ulps = max(ULPS, 2 * torch.finfo(got.dtype).eps)
    error, allowed = relative_error(got, exact), 2 * relative_error(eager, exact) + ulps
    return f"error {error:.1e}, allowed {allowed:.1e}" if error > allowed else ""


def recorded(g: Any) -> bool:
    """Whether all of a program's segments are CUDA graphs by now."""
    steps = g.compiled.executable._steps
    return all(s._graphs for s in steps if isinstance(s, Segment))


class EveryKernelCompiled(Exception):
    """Raised in place of an executable."""


def lost(cubin: bytes) -> bool:
    """Whether ptxas made asynchronous products of nothing: ones without operands in memory."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    if not tool.exists():
        return False
    with TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        text = subprocess.run([tool, "-c", file], capture_output=True, text=True, check=True).stdout
    return any("HGMMA" in line and "gdesc[URZ]" in line for line in text.splitlines())


SHARED = {80: 163 << 10, 86: 99 << 10, 90: 227 << 10, 100: 227 << 10}  # bytes of a program


class CompilingOnly(TritonTarget):
    """Compiles each program for some GPUs, and goes no further."""

    def __init__(self, capabilities: list[int | str]):
        super().__init__("cpu")
        self.capabilities = capabilities
        self.overlap = False  # whether a kernel's blocks did

    def build(self, sources, program):
        self.overlap |= overlap([*program.kernels])
        for capability in self.capabilities:
            made = compile_program(sources, program, capability, SHARED.get(capability))
            for name, (_, k) in made.items():
                assert k.asm.get("cubin") or k.asm["hsaco"], name
                assert capability != 90 or not lost(k.asm["cubin"]), f"{name} lost its products"
            assert made or not any(isinstance(k, Kernel) for k in program.kernels)
        raise EveryKernelCompiled


def uncompiled(f: Callable[..., Tensor], inputs: list[Tensor]) -> str:
    """Why a function's kernels don't compile, or ""."""
    torch._dynamo.reset()
    try:
        with torch.no_grad():
            torch.compile(f, backend=Backend(), dynamic=False)(*inputs)
    except Exception as e:
        return "" if "EveryKernelCompiled" in str(e) else str(e)[:2000]
    return "not compiled"


def uncompiled_neighbours(compiling: CompilingOnly) -> str:
    """Why kernels that sum the taps of a row in a block of neighbours do not compile, or ""."""
    x = torch.randn(2, 96, 30, 30).to(memory_format=torch.channels_last)
    with patch.object(taps, "READ_AGAIN", 0):
        for dtype in (torch.float32, torch.bfloat16):
            f = nn.Conv2d(96, 32, 3, padding=1).to(dtype)
            if text := uncompiled(f, [x.to(dtype)]):
                return text
    return "" if compiling.overlap else "no blocks overlap"


def main() -> int:
    given = [a for a in sys.argv[1:] if a != DEVICE]
    capabilities = [int(a) if a.isdigit() else a for a in given if a.isdigit() or a[:3] == "gfx"]
    nets = [a for a in given if not (a.isdigit() or a[:3] == "gfx")]
    check = uncompiled if capabilities else wrong
    if DEVICE == "cpu":
        target._loaded["cpu"] = CompilingOnly(capabilities) if capabilities else TritonTarget("cpu")
    torch.manual_seed(0)
    failed = 0
    nvidia = bool(capabilities) and all(isinstance(c, int) for c in capabilities)
    torch.backends.cudnn.conv.fp32_precision = "tf32" if nvidia else "ieee"
    torch.backends.cuda.matmul.fp32_precision = "tf32" if nvidia else "ieee"
    for name, (f, shapes) in (networks(nets) if nets else {**kinds(), **modules()}).items():
        f = f.to(DEVICE) if isinstance(f, nn.Module) else f
        text = check(f, [torch.randn(s, device=DEVICE) for s in shapes])
        print(f"{name:20} {text or 'ok'}")
        failed += bool(text)
    if isinstance(compiling := target._loaded.get("cpu"), CompilingOnly) and not nets:
        text = uncompiled_neighbours(compiling)
        print(f"{'neighbours':20} {text or 'ok'}")
        failed += bool(text)
    others = {
        "TF32": misrounded,
        "TF32, copied": miscopied,
        "few channels": misbordered,
        "few terms": misfilled,
        "neighbours": misplaced,
        "timing": mistuned,
        "candidates": misjudged,
        "far apart": misaddressed,
        "several results": mistiled,
        "known": untraced,
        "steady": unsteady,
    }
    for name, mistake in ({} if given else others).items():
        text = mistake()
        print(f"{name:20} {text or 'ok'}")
        failed += bool(text)
    return failed


if __name__ == "__main__":
    sys.exit(main())

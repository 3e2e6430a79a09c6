"""Many architectures through `torch.compile(model, backend="sol")`, held to the contract.

    python -m benchmarks.breadth timm transformers torchvision
    python -m benchmarks.breadth transformers:llama timm:swin --parts forward,train --json rows.json
    python -m benchmarks.breadth torchvision:alexnet layers --device ve --parts forward,ops,train

Of each, a small version with random weights: a forward pass without gradients, a training step, a
second batch size or sequence length, and for language models some tokens with a KV cache. One row a
model and part; each model has a process of its own, so that a crash or hang costs one row. timm and
transformers are looked for only when they are asked for. `--calls` lists what is left to ATen.
With `--interpret` the kernels are Triton's, in its interpreter on CPU tensors, which is slow.
With `--device` the compiled model is there, and the parts `ops` and `train_ops` run it op by op;
what it is compared with stays on the CPU, so that a GPU's products are not rounded to TF32. Rows
come as models are done.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from .breadth_models import Case, cases
from .networks import allowed

PARTS = ("forward", "train", "sizes", "generate")
OP_BY_OP = ("ops", "train_ops")  # of a device that has eager kernels of ours
LIMIT = 1e-3  # of a training step whose gradients amplify rounding: how far its loss may be off


@dataclass
class Row:
    """What became of one part of one model."""

    name: str
    part: str
    device: str = "cpu"
    status: str = "ok"  # or: inexact (beyond the contract), wrong, error, timeout
    kernels: int = 0
    aten: int = 0
    graphs: int = 0
    ours: float = 0.0  # error against float64
    eager: float = 0.0
    seconds: float = 0.0  # the first call
    note: str = ""
    first_differs: bool = False  # in its bits, from later calls
    calls: dict[str, int] = field(default_factory=dict)  # "op: reason" of calls to ATen

    def __str__(self) -> str:
        return (
            f"{self.name:32} {self.part:9} {self.status:8} {self.graphs:3} graphs "
            f"{self.kernels:5} kernels {self.aten:5} ATen  error {self.ours:.1e} "
            f"eager's {self.eager:.1e}  first {self.seconds:6.1f} s  {self.note}"
        )


class Wrong(Exception):
    """A result that no rounding explains."""


# -- comparing ---------------------------------------------------------------------------------


def wide(x: Any) -> Any:
    """Floating tensors of any structure in float64."""
    return tree_map(
        lambda t: t.double() if isinstance(t, Tensor) and t.is_floating_point() else t, x
    )


def tensors(x: Any) -> list[Tensor]:
    return [t for t in tree_flatten(x)[0] if isinstance(t, Tensor)]


def error(value: Tensor, exact: Tensor) -> float:
    """Relative RMS error over what is finite in the exact value.

    Errors: `Wrong` if NaN or infinity stand elsewhere.
    """
    value, exact = value.detach().double(), exact.detach().double()
    finite = torch.isfinite(exact)
    if not torch.equal(torch.isnan(value), torch.isnan(exact)):
        raise Wrong("NaN in other places")
    if not torch.equal(finite, torch.isfinite(value)):
        raise Wrong("infinity in other places")
    scale, distance = exact[finite].norm(), (value[finite] - exact[finite]).norm()
    return float(distance / scale) if scale else float(distance)


def compare(row: Row, got: Any, eager: Any, exact: Any) -> None:
    """Note the worst output in a row. Integers (classes, indices of a sort) may differ from
    float64's where eager's do: scores that tie but for rounding. Another device's convolutions may
    lie otherwise.

    Errors: `Wrong` for another structure, shape, dtype, integer or layout.
    """
    ours, theirs, wanted = tensors(got), tensors(eager), tensors(exact)
    if not len(ours) == len(theirs) == len(wanted):
        raise Wrong(f"{len(ours)} outputs, eager has {len(theirs)}, float64 {len(wanted)}")
    worst = -1.0
    for k, (a, b, c) in enumerate(zip(ours, theirs, wanted, strict=True)):
        if a.dtype != b.dtype or a.shape != b.shape:
            raise Wrong(f"output {k}: {a.dtype} {tuple(a.shape)}, not {b.dtype} {tuple(b.shape)}")
        sizes = zip(a.shape, a.stride(), b.stride(), strict=True)
        lies = any(n != 1 and s != t for n, s, t in sizes)
        if a.numel() and lies and row.device == "cpu":
            raise Wrong(f"output {k}: strides {a.stride()}, not {b.stride()}")
        if a.shape != c.shape:
            row.note = "float64 takes another path: compared with eager"
            c = b
        if not a.is_floating_point():
            ours_off, eager_off = (int((t != c.to(a.dtype)).sum()) for t in (a, b))
            if ours_off and not torch.equal(a, b):
                row.note = f"output {k}: {ours_off} of {a.numel()} differ, {eager_off} of eager's"
                if not eager_off:
                    raise Wrong(row.note)
                row.status = "inexact"
            continue
        x, y = error(a, c), error(b, c)
        if x - allowed(y) > worst:
            worst, row.ours, row.eager = x - allowed(y), x, y
    if worst > 0:
        row.status = "inexact" if row.ours < 1e-2 + 20 * row.eager else "wrong"


@dataclass(frozen=True)
class Way:
    """How a model is run: compiled or op by op, and where."""

    compiled: Callable[[Any], Callable]
    device: str = "cpu"

    def there(self, x: Any) -> Any:
        """A model, or tensors of any structure, on the device."""
        if isinstance(x, nn.Module):
            return x if self.device == "cpu" else copy.deepcopy(x).to(self.device)
        return tree_map(lambda t: t.to(self.device) if isinstance(t, Tensor) else t, x)

    def call(self, run: Callable, inputs: Any) -> Any:
        """What a model on the device gives, on the CPU."""
        return here(call(run, self.there(inputs)))


def here(x: Any) -> Any:
    return tree_map(lambda t: t.cpu() if isinstance(t, Tensor) else t, x)


# -- the parts ---------------------------------------------------------------------------------


def call(model: Callable, inputs: Any) -> Any:
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


@contextmanager
def in_float64(model: nn.Module) -> Iterator[None]:
    """While a model of float64 runs: `float()` leaves float64, and tokens are hidden by float32's
    least number, as twice float64's is infinite. transformers' grouped products of experts know no
    float64: one by one. The model is a copy."""
    limits = torch.finfo
    config: Any = getattr(model, "config", None)
    if getattr(config, "_experts_implementation", None) == "grouped_mm":
        config._experts_implementation = "eager"

    def of_float(dtype: torch.dtype | None = None) -> torch.finfo:
        return limits(torch.float32 if dtype in (None, torch.float64) else dtype)

    with patch.object(Tensor, "float", Tensor.double), patch.object(torch, "finfo", of_float):
        yield


def exactly(model: nn.Module, inputs: Any) -> Any:
    """What a model of float64 makes of inputs of float64."""
    with in_float64(model):
        return call(model, wide(inputs))


def forward(case: Case, row: Row, way: Way) -> None:
    """The second call is held to the first's bits; those of a model with symbolic sizes, whose
    graphs run on ATen until sizes come again, once every graph has been called with its own."""
    model = case.model.eval()
    exact_model = copy.deepcopy(model).double()
    with torch.no_grad():
        eager, exact = call(model, case.inputs), exactly(exact_model, case.inputs)
        if not all(map(same_bits, tensors(eager), tensors(call(model, case.inputs)))):
            row.status, row.note = "skipped", "draws numbers"
            return
        run = way.compiled(way.there(model))
        start = time.perf_counter()
        first = way.call(run, case.inputs)
        row.seconds = time.perf_counter() - start
        compare(row, first, eager, exact)
        again = way.call(run, case.inputs)
        if not all(map(same_bits, tensors(first), tensors(again))):
            row.first_differs = True
            settled = [way.call(run, case.inputs) for _ in range(3)]
            if not all(map(same_bits, tensors(settled[1]), tensors(settled[2]))):
                raise Wrong("two runs differ")
            compare(row, settled[2], eager, exact)


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(), b.nan_to_num()) if a.dtype != torch.bool else a.equal(b)


def sizes(case: Case, row: Row, way: Way) -> None:
    """Dynamo makes sizes symbols at the second; the third call with them is compiled for them."""
    model = case.model.eval()
    exact_model = copy.deepcopy(model).double()
    with torch.no_grad():
        run = way.compiled(way.there(model))
        way.call(run, case.inputs)
        eager, exact = call(model, case.resized), exactly(exact_model, case.resized)
        start = time.perf_counter()
        for _ in range(2):
            compare(row, way.call(run, case.resized), eager, exact)
        row.seconds = time.perf_counter() - start
        compare(
            Row("", "", row.device), way.call(run, case.inputs), call(model, case.inputs),
            exactly(exact_model, case.inputs),
        )  # fmt: skip


def step(model: nn.Module, run: Callable, inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and the gradients by name. The loss is linear in the results: their squares would
    say nothing of what a norm has scaled."""
    model.zero_grad(set_to_none=True)
    some = next(model.parameters())
    loss = torch.zeros((), dtype=some.dtype, device=some.device)
    for t in tensors(call(run, inputs)):
        if t.requires_grad:
            t = t.double() if loss.dtype == torch.float64 else t.float()
            weights = torch.linspace(-1, 1, t.numel(), dtype=t.dtype).cos().to(t.device)
            loss = loss + (t.reshape(-1) * weights).mean()
    loss.backward()
    named = model.named_parameters()
    return loss.detach().cpu(), {n: p.grad.clone().cpu() for n, p in named if p.grad is not None}


def train(case: Case, row: Row, way: Way) -> None:
    models = [copy.deepcopy(without_dropout(case.model)).train() for _ in range(3)]
    inputs = case.training or case.inputs
    with in_float64(models[2].double()):
        exact_loss, exact = step(models[2], models[2], wide(inputs))
    torch.manual_seed(0)
    eager_loss, eager = step(models[0], models[0], inputs)
    models[1] = way.there(models[1])
    run = way.compiled(models[1])
    start = time.perf_counter()
    torch.manual_seed(0)
    loss, got = step(models[1], run, way.there(inputs))
    row.seconds = time.perf_counter() - start
    if got.keys() != eager.keys():
        raise Wrong(f"gradients of other parameters: {sorted(got.keys() ^ eager.keys())[:4]}")
    for n, g in got.items():
        lies = g.stride() != eager[n].stride() and row.device == "cpu"
        if lies or g.dtype != eager[n].dtype:
            raise Wrong(f"gradient of {n}: {g.dtype} {g.stride()}, not {eager[n].stride()}")
    whole = lambda gs: torch.cat([gs[n].double().flatten() for n in exact])  # noqa: E731
    row.ours, row.eager = error(whole(got), whole(exact)), error(whole(eager), whole(exact))
    scale = float(whole(exact).norm()) or 1.0
    worst, worst_name = 0.0, ""
    for n in exact:
        size = float(exact[n].norm()) + 1e-4 * scale
        a, b = (float((g[n].double() - exact[n]).norm()) / size for g in (got, eager))
        if a - 20 * b > worst:
            worst, worst_name = a - 20 * b, f"{n}: {a:.1e}, eager's {b:.1e}"
    if row.ours > allowed(row.eager):
        off = float((loss - exact_loss).abs() / exact_loss.abs().clamp_min(1e-6))
        eagers = float((eager_loss - exact_loss).abs() / exact_loss.abs().clamp_min(1e-6))
        row.note = f"loss off by {off:.1e}, eager's {eagers:.1e}"
        row.status = "inexact" if row.ours < 1e-2 + 20 * row.eager else "wrong"
    if worst > LIMIT:
        row.status, row.note = "wrong", f"gradient of {worst_name}"
    buffers = zip(models[1].named_buffers(), models[0].buffers(), models[2].buffers(), strict=True)
    for (n, mine), theirs, exactly in buffers:
        mine = mine.cpu()
        if not mine.is_floating_point():
            if not torch.equal(mine, theirs):
                raise Wrong(f"buffer {n} differs")
        elif error(mine, exactly) > allowed(error(theirs, exactly)) + 1e-5:
            raise Wrong(f"buffer {n}: error {error(mine, exactly):.1e}")


def without_dropout(model: nn.Module) -> nn.Module:
    """Rates are plain attributes of modules (`p` of Dropout and StochasticDepth) and configs."""
    for m in model.modules():
        for holder in (m, getattr(m, "config", None)):
            for name, value in list(getattr(holder, "__dict__", {}).items()):
                if ("drop" in name or name == "p") and isinstance(value, float):
                    setattr(holder, name, 0.0)
    return model


def generate(case: Case, row: Row, way: Way) -> None:
    """The same tokens as eager's, with a cache that grows and, where a model has one, a fixed."""
    model: Any = case.model.eval()
    other: Any = way.there(model)
    plain = other.forward
    prompt = {k: v for k, v in case.inputs.items() if not k.startswith("decoder")}
    prompt.pop("labels", None)
    caches: list[dict[str, Any]] = [{}]
    if getattr(model, "_can_compile_fullgraph", False):
        caches.append({"cache_implementation": "static"})
    with torch.no_grad():
        for options in caches:
            options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, **options}
            options["disable_compile"] = True
            other.forward = plain
            wanted = model.generate(**prompt, **options)
            start = time.perf_counter()
            other.forward = way.compiled(plain)
            for _ in range(2):
                got = other.generate(**way.there(prompt), **options)
                if not torch.equal(got.cpu(), wanted):
                    raise Wrong(f"other tokens ({options.get('cache_implementation', 'dynamic')})")
            row.seconds += time.perf_counter() - start
    other.forward = plain


PART = {"forward": forward, "train": train, "sizes": sizes, "generate": generate,
        "ops": forward, "train_ops": train}  # fmt: skip


# -- one model ---------------------------------------------------------------------------------


def run_part(name: str, part: str, backend_name: str = "sol", device: str = "cpu") -> Row:
    """Errors of any kind become the row's status."""
    from sol_dynamo.backend import SYMBOLS, Backend

    row = Row(name, part, device)
    torch._dynamo.reset()
    backend: Any = Backend() if backend_name == "sol" else backend_name
    try:
        torch.manual_seed(0)
        case = cases(name.split(":")[0])[name.split(":")[1]]()
        skipped = case.skipped(part.removesuffix("_ops"))
        if skipped:
            row.status, row.note = "skipped", skipped
            return row
        compiled = (lambda f: f) if part in OP_BY_OP else partial(torch.compile, backend=backend)
        PART[part](case, row, Way(compiled, device))
    except Wrong as e:
        row.status, row.note = "wrong", str(e)
    except Exception as e:
        traceback.print_exc()
        row.status, row.note = "error", f"{type(e).__name__}: {str(e).strip()[:300]}"
    if backend_name == "sol":
        count(row, backend.graphs)
    if device.startswith("ve"):
        from sol_dynamo.ve import module

        row.calls |= {f"{op}: on the CPU": n for op, n in module.fallbacks().items()}
        module.reset_fallbacks()
        if row.first_differs and all(g.reason != SYMBOLS for g in backend.graphs):
            row.status, row.note = "wrong", "two runs differ"
    return row


def count(row: Row, graphs: Any) -> None:
    """Kernels and calls to ATen of all graphs of a backend."""
    from sol_dynamo.report import report

    calls: Counter[str] = Counter()
    for g in graphs:
        row.graphs += 1
        if g.runner is None:
            calls[f"whole graph ({g.kind}): {g.reason}"] += 1
            continue
        r = report(g.compiled.program)
        row.kernels += len(r.kernels) - len(r.aten_calls)
        row.aten += len(r.aten_calls)
        calls.update(f"{k.ops[0]}: {k.note}" for k in r.aten_calls)
    row.calls = dict(calls)


def in_a_process(name: str, args: argparse.Namespace) -> list[Row]:
    """The rows of a model; what it had not printed when it died or ran too long is an error."""
    command = [sys.executable, "-m", "benchmarks.breadth", "--one", name, "--parts", args.parts,
               "--device", args.device]  # fmt: skip
    command += ["--threads", str(args.threads)]
    environment = {"SOL_STRICT": "1", **os.environ}
    if args.interpret:  # Triton looks when it is imported
        command, environment = [*command, "--interpret"], environment | {"TRITON_INTERPRET": "1"}
    rows: list[Row] = []
    status, note = "error", ""
    try:
        p = subprocess.run(
            command, capture_output=True, text=True, timeout=args.timeout, env=environment
        )
        out, note = p.stdout, "" if p.returncode == 0 else f"exit {p.returncode}"
        if args.errors and p.stderr:
            folder = Path(args.errors)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name.replace(':', '_')}.txt").write_text(p.stderr)
    except subprocess.TimeoutExpired as e:
        out = e.stdout.decode() if isinstance(e.stdout, bytes) else e.stdout or ""
        status, note = "timeout", f"after {args.timeout} s"
    rows = [Row(**json.loads(x[4:])) for x in out.splitlines() if x.startswith("ROW ")]
    missing = [p for p in args.parts.split(",") if p not in {r.part for r in rows}]
    if missing:
        rows.append(Row(name, missing[0], args.device, status, note=note))
    return rows


def one(name: str, parts: str, device: str) -> None:
    for part in parts.split(","):
        print("ROW", json.dumps(asdict(run_part(name, part, device=device))), flush=True)


def interpret() -> None:
    """Kernels for the CPU are Triton's from here on; few programs, since each is slow."""
    from sol_dynamo import target
    from sol_dynamo.kernels.triton.target import TritonTarget

    target._loaded["cpu"] = TritonTarget("cpu", processors=4)


def chosen(wanted: list[str]) -> Iterator[str]:
    for w in wanted:
        library, _, names = w.partition(":")
        known = cases(library)
        for n in names.split(",") if names else known:
            if n not in known:
                raise SystemExit(f"no {n!r} in {library}; there are {', '.join(known)}")
            yield f"{library}:{n}"


def print_calls(rows: list[Row], most: int) -> None:
    """What is left to ATen, by how often over all models."""
    total: Counter[str] = Counter()
    models: dict[str, set[str]] = {}
    for r in rows:
        for call_, n in r.calls.items():
            total[call_] += n
            models.setdefault(call_, set()).add(r.name)
    print(f"{'calls':>6} {'models':>6}  op: reason")
    for call_, n in total.most_common(most):
        print(f"{n:6} {len(models[call_]):6}  {call_}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("models", nargs="*", default=["torchvision"], help="library or library:a,b,c")
    p.add_argument("--parts", default=",".join(PARTS))
    p.add_argument("--device", default="cpu", help="where the compiled model is")
    p.add_argument("--interpret", action="store_true", help="Triton's kernels, on CPU tensors")
    p.add_argument("--timeout", type=float, default=300)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--json", help="a file to which rows are added")
    p.add_argument("--errors", help="a folder for what the processes print on stderr")
    p.add_argument("--calls", type=int, default=0, help="so many of the calls left to ATen")
    p.add_argument("--one", help=argparse.SUPPRESS)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    cudnn: Any = torch.backends.cudnn
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"
    if args.interpret:
        interpret()
    if args.one:
        return one(args.one, args.parts, args.device)
    found: list[Row] = []
    with ThreadPoolExecutor(args.jobs) as pool:
        running = [pool.submit(in_a_process, n, args) for n in chosen(args.models)]
        for done in as_completed(running):
            rows = [r for r in done.result() if r.status != "skipped"]
            print(*rows, sep="\n", flush=True)
            found += rows
            if args.json:
                with open(args.json, "a") as f:
                    f.writelines(json.dumps(asdict(r)) + "\n" for r in rows)
    statuses = Counter(r.status for r in found)
    print(", ".join(f"{n} {s}" for s, n in statuses.most_common()))
    if args.calls:
        print_calls(found, args.calls)


if __name__ == "__main__":
    main()

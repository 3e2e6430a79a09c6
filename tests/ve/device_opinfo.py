"""PyTorch's own first sample of every operator, on the device and on the CPU.

`python tests/ve/device_opinfo.py [names]` prints what disagrees, what ran on the CPU, and how many
operators ran without it. They run in another process: one that crashes it is named, and the rest
goes on. Nothing here knows how operators are computed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

sys.path.insert(0, str(Path(__file__).parents[1]))
from opinfo import EMPTY, OPS, difference

# arguments that stay on the CPU for every device
ON_HOST = {"tensor_split"}


def moved(tree: Any, device: str) -> Any:
    """Tensors of nested containers copied to a device, and "cpu" named as it."""

    def move(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return x.detach().clone().to(device)
        if isinstance(x, torch.device) or (isinstance(x, str) and x == "cpu"):
            return device
        return x

    return tree_map(move, tree)


class Random(TorchDispatchMode):
    """Notes whether an operator that draws random numbers is called."""

    seen = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen |= torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def results(name: str, sample: Any, device: str, seed: int = 7) -> list[Any]:
    x = moved(sample.input, device)
    rest = (sample.args, sample.kwargs)
    args, kwargs = rest if name in ON_HOST else moved(rest, device)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = OPS[name](x, *args, **kwargs)
    leaves: list[Any] = []
    tree_map(leaves.append, out)
    return leaves


def compare(name: str, device: str = "ve") -> str:
    """What differs, or an empty text; "skip: ..." where the CPU's own results cannot be had."""
    sample = next(iter(OPS[name].sample_inputs("cpu", torch.float32, requires_grad=False)))
    try:
        expected = results(name, sample, "cpu")
        with Random() as random:
            results(name, sample, "cpu")
    except Exception as e:
        return f"skip: cpu: {type(e).__name__}"
    try:
        got = results(name, sample, device)
    except Exception as e:
        return f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
    if len(got) != len(expected):
        return f"{len(got)} results, not {len(expected)}"
    for k, (g, e) in enumerate(zip(got, expected, strict=True)):
        if isinstance(g, torch.Tensor):
            if g.device.type != device:
                return f"result {k} lies on {g.device}"
            g = with_strides(g)
        text = difference(g, e, None, random.seen or name.startswith(EMPTY))
        if text:
            return f"result {k}: {text[:200]}"
    return ""


def with_strides(t: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU that lies as the tensor does, gaps and overlaps included."""
    if t.layout != torch.strided:
        return t.cpu()
    span = 1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    flat = t.resolve_conj().resolve_neg() if t.is_conj() or t.is_neg() else t
    flat = torch.as_strided(flat, (span if t.numel() else 0,), (1,), t.storage_offset())
    return flat.cpu().as_strided(t.shape, t.stride(), 0)


def float32_ops() -> list[str]:
    return [n for n in sorted(OPS) if torch.float32 in OPS[n].supported_dtypes("cpu")]


def run(names: list[str]) -> None:
    """A line of JSON for each operator, written before and after it ran."""
    for name in names:
        print(json.dumps({"start": name}), flush=True)
        before = dict(torch.ve.fallbacks())
        torch.manual_seed(3)
        text = compare(name)
        after = torch.ve.fallbacks()
        used = [k for k, n in after.items() if n != before.get(k, 0)]
        print(json.dumps({"name": name, "text": text, "fallbacks": used}), flush=True)


def sweep(names: list[str]) -> dict[str, dict[str, Any]]:
    """What came of each operator; a crash of the process is one of the texts."""
    found: dict[str, dict[str, Any]] = {}
    left = list(names)
    while left:
        command = [sys.executable, "-W", "ignore", __file__, "--run", *left]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        started = ""
        for line in done.stdout.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if "start" in entry:
                started = entry["start"]
            else:
                found[entry["name"]] = entry
        if done.returncode and started not in found and started in left:
            tail = done.stderr.strip().splitlines()[-1:] or [""]
            text = f"crash: exit status {done.returncode} {tail[0][:120]}"
            found[started] = {"name": started, "text": text, "fallbacks": []}
        elif done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        left = [n for n in left if n not in found]
    return found


def main(names: list[str]) -> int:
    found = sweep(names or float32_ops())
    bad = {n: e["text"] for n, e in found.items() if e["text"]}
    for name, text in bad.items():
        print(f"{name:45} {text}")
    for name, e in found.items():
        if e["fallbacks"]:
            print(f"{name:45} on the CPU: {', '.join(e['fallbacks'])}")
    skipped = sum(t.startswith("skip") for t in bad.values())
    crashed = sum(t.startswith("crash") for t in bad.values())
    native = [n for n, e in found.items() if not e["fallbacks"] and not e["text"]]
    print(
        f"{len(found)} operators: {len(found) - len(bad)} agree, {len(bad) - skipped - crashed}"
        f" differ, {crashed} crash, {skipped} skipped; {len(native)} without any fallback"
    )
    return 1 if len(bad) > skipped else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))

"""A training step (forward, loss, backward) of several networks, interleaved with the peers'.

    python -m benchmarks.training --net resnet50,encoder --batch 8 --peers eager,inductor,sol

As in `bench`, a row counts only beside the others of its run; gradients are compared with float64.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from sol_dynamo.backend import Backend

from .networks import images, network, training


def encoder() -> nn.Module:
    """Six layers of a transformer encoder, 256 wide, without dropout."""
    layer = nn.TransformerEncoderLayer(256, 8, 1024, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)


def case(name: str, batch: int, size: int) -> tuple[nn.Module, torch.Tensor]:
    """A model in training mode and its input."""
    if name == "encoder":
        torch.manual_seed(0)
        return encoder().train(), torch.randn(batch, 128, 256)
    return training(network(name)), images(batch, size)


def loss_of(y: torch.Tensor) -> torch.Tensor:
    return y.square().mean()


def step(model: Callable, parameters: list[nn.Parameter], x: torch.Tensor) -> torch.Tensor:
    for p in parameters:
        p.grad = None
    loss = loss_of(model(x))
    loss.backward()
    return loss


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    step(model, list(model.parameters()), x)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def error(found: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    """Relative error of all gradients as one vector."""
    a, b = (torch.cat([t.flatten().double() for t in ts]) for ts in (found, exact))
    return ((a - b).norm() / b.norm()).item()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--net", default="resnet50,mobilenet_v2,encoder")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--peers", default="eager,inductor,sol")
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    for net in args.net.split(","):
        model, x = case(net, args.batch, args.size)
        exact = gradients(copy.deepcopy(model).double(), x.double())
        calls, errors, firsts = {}, {}, {}
        for peer in args.peers.split(","):
            own = copy.deepcopy(model)
            run: Callable = own
            if peer != "eager":
                backend = Backend() if peer == "sol" else peer
                run = torch.compile(own, backend=backend, dynamic=False)
            parameters = list(own.parameters())
            start = time.perf_counter()
            step(run, parameters, x)
            firsts[peer] = time.perf_counter() - start
            found = [p.grad for p in parameters if p.grad is not None]
            errors[peer] = error(found, exact)
            calls[peer] = run, parameters
        times: dict[str, list[float]] = {peer: [] for peer in calls}
        for _ in range(args.rounds):
            for peer, (run, parameters) in calls.items():
                for _ in range(2):
                    start = time.perf_counter()
                    step(run, parameters, x)
                    times[peer].append(time.perf_counter() - start)
        ours = min(times["sol"]) if "sol" in times else None
        for peer, t in times.items():
            ratio = f"{min(t) / ours:6.2f}" if ours else ""
            print(
                f"{net:14} batch {args.batch:3} {peer:10} min {1e3 * min(t):9.2f} ms"
                f"  median {1e3 * statistics.median(t):9.2f} ms  min : ours {ratio}"
                f"  error {errors[peer]:.1e}  first {firsts[peer]:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()

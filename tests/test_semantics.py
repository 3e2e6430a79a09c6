"""What users of torch.compile rely on: each scenario is a function of a compile function, and gives
with ours what it gives in eager, or with `aot_eager` where torch.compile itself is unlike eager.
Where these raise, so do we, with the same error.
"""

from __future__ import annotations

import copy
import io
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accuracy import same
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from sol_dynamo.backend import Backend, sol

Compile = Callable[..., Callable]
SCENARIOS: dict[str, Callable[[Compile], Any]] = {}


def scenario(f: Callable[[Compile], Any]) -> Callable[[Compile], Any]:
    assert f.__name__ not in SCENARIOS
    SCENARIOS[f.__name__] = f
    return f


def outcome(f: Callable[[Compile], Any], compile: Compile) -> Any:
    """What a scenario gives, or its error."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="(?!sol_dynamo)")
        try:
            return f(compile)
        except Exception as e:
            return e


def by(backend: Any) -> Compile:
    return lambda f, **options: torch.compile(f, backend=backend, **options)


def detached(x: Any) -> Any:
    return torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.detach().clone(), x)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def gradients(m: nn.Module) -> list[Any]:
    return [p.grad for p in m.parameters()]


# -- tensors of other kinds ------------------------------------------------------------------------


@scenario
def two_tensor(compile):
    from torch.testing._internal.two_tensor import TwoTensor

    x = TwoTensor(torch.randn(3, 4), torch.randn(3, 4))
    y = compile(lambda x: (x.sin() @ x.t() + 1).relu())(x)
    assert isinstance(y, TwoTensor)
    return y.a, y.b


@scenario
def two_tensor_trained(compile):
    from torch.testing._internal.two_tensor import TwoTensor

    x = TwoTensor(torch.randn(3, 6), torch.randn(3, 6)).requires_grad_()
    m = mlp()
    y = compile(m)(x)
    y.sum().backward()
    return [(t.a, t.b) if isinstance(t, TwoTensor) else t for t in (y, x.grad, *gradients(m))]


@scenario
def two_tensor_parameters(compile):
    from torch.testing._internal.two_tensor import TwoTensor

    m = nn.Linear(4, 3)
    m.weight = nn.Parameter(TwoTensor(m.weight.detach(), m.weight.detach() + 1))
    x = torch.randn(2, 4)
    with torch.no_grad():
        run = compile(m)
        found = []
        for _ in range(3):
            y = run(x)
            found.append((y.a, y.b))
            m.weight.add_(1)
    return found


@scenario
def nested_tensor(compile):
    x = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)], layout=torch.jagged)
    return compile(lambda x: (x * 2).sin())(x).values()


@scenario
def torch_function_mode(compile):
    from torch.overrides import TorchFunctionMode

    class Doubled(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            y = func(*args, **(kwargs or {}))
            return y * 2 if func is torch.sin else y

    f = compile(lambda x: torch.sin(x) + 1)
    with Doubled():
        return f(torch.ones(3))


@scenario
def masked_subclass(compile):
    from torch.masked import masked_tensor

    x = masked_tensor(torch.randn(4), torch.tensor([True, False, True, True]))
    return compile(lambda x: (x + 1).get_data())(x)


@scenario
def strides_of_views(compile):
    x = torch.randn(4, 5)[:, ::2].expand(2, 4, 3)
    return compile(lambda x: (x + 1, x.t() if x.dim() == 2 else x.mT, x.sum(0)))(x)


# -- operators -----------------------------------------------------------------------------------


@torch.library.custom_op("sol_semantics::scale", mutates_args=())
def scale(x: torch.Tensor, by: float) -> torch.Tensor:
    return x * by


@scale.register_fake
def _(x, by):
    return torch.empty_like(x)


scale.register_autograd(
    lambda ctx, g: (g * ctx.by, None),
    setup_context=lambda ctx, inputs, output: setattr(ctx, "by", inputs[1]),
)


@torch.library.custom_op("sol_semantics::fill", mutates_args=("x", "y"))
def fill(x: torch.Tensor, y: torch.Tensor, value: float) -> None:
    x.fill_(value)
    y.add_(x)


@torch.library.custom_op("sol_semantics::many", mutates_args=())
def many(xs: list[torch.Tensor], s: str, k: int | None = None) -> list[torch.Tensor]:
    assert s == "s"
    return [x * (k or 1) for x in xs]


@many.register_fake
def _(xs, s, k=None):
    return [torch.empty_like(x) for x in xs]


@scenario
def custom_op_trained(compile):
    x = torch.randn(3, 4, requires_grad=True)
    y = compile(lambda x: (scale(x.sin(), 3.0) * x).sum())(x)
    y.backward()
    return y, x.grad


@scenario
def custom_op_writes(compile):
    x, y = torch.randn(3), torch.randn(3)

    def f(x, y):
        z = x * 2
        fill(z, y, 3.0)
        fill(x, z, 2.0)
        return z + x, y * 2

    return compile(f, fullgraph=True)(x, y), x, y


@scenario
def custom_op_writes_views(compile):
    x = torch.randn(4, 4)

    def f(x):
        fill(x[0], x[1:3], 3.0)
        y = x * 1
        fill(y[:, 0], y[:, 2], 2.0)
        return y.t()

    return compile(f)(x), x


@scenario
def custom_op_lists(compile):
    def f(x, y):
        a, b = many([x, y.t()], "s", 3)
        (c,) = many([a + 1], s="s")
        return a, b, c

    return compile(f)(torch.randn(3), torch.randn(2, 5))


@scenario
def autograd_function(compile):
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x**2 + 0.5  # on purpose not quite the gradient

    x = torch.randn(5, requires_grad=True)
    y = compile(lambda x: Cube.apply(x.sin()).sum())(x)
    y.backward()
    return y, x.grad


@scenario
def cond_trained(compile):
    def f(x, p):
        return torch.cond(p.sum() > 0, lambda x: (x.sin() * 2,), lambda x: (x.cos(),), (x,))[0]

    found = []
    g = compile(f, fullgraph=True)
    for sign in (1, -1):
        x = torch.randn(4, requires_grad=True)
        y = g(x, torch.full((2,), float(sign)))
        y.sum().backward()
        found.append((y, x.grad))
    return found


@scenario
def cond_with_closure(compile):
    w = torch.randn(4, 4)

    def f(x):
        y = x @ w
        return torch.cond(x.sum() > 0, lambda a: a @ w + y, lambda a: (a - y) @ w, (x,))

    g = compile(f)
    with torch.no_grad():
        return g(torch.ones(2, 4)), g(-torch.ones(2, 4))


@scenario
def while_loop(compile):
    from torch._higher_order_ops.while_loop import while_loop

    def f(x):
        k, y = while_loop(
            lambda k, x: (k < 4) & (x.sum() < 50),
            lambda k, x: (k + 1, (x @ x.t()).relu() @ x * 0.5),
            (torch.tensor(0), x + 1),
        )
        return k, y.sin()

    return compile(f)(torch.ones(3, 3))


@scenario
def scan(compile):
    from torch._higher_order_ops.scan import scan

    def f(x):
        return scan(lambda c, x: (c * 0.5 + x, (c + x).sin()), x[0] * 0, x)

    return compile(f)(torch.randn(5, 3))


@scenario
def associative_scan(compile):
    from torch._higher_order_ops.associative_scan import associative_scan

    return compile(lambda x: associative_scan(torch.add, x, 0, combine_mode="generic"))(
        torch.randn(5, 3)
    )


@scenario
def higher_order_map(compile):
    from torch._higher_order_ops.map import map

    return compile(lambda x, y: map(lambda a, y: (a @ y).relu(), x, y))(
        torch.randn(3, 2, 4), torch.randn(4, 5)
    )


@scenario
def flex_attention(compile):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def causal(b, h, q, k):
        return q >= k

    def f(q, k, v, mask):
        return flex_attention(q, k, v, score_mod=lambda s, b, h, q, k: s + (q - k), block_mask=mask)

    mask = compile(create_block_mask)(causal, None, None, 128, 128, device="cpu")
    q, k, v = (torch.randn(1, 2, 128, 16) for _ in range(3))
    with torch.no_grad():
        return compile(f)(q, k, v, mask)


@scenario
def invoke_subgraph(compile):
    @torch.compiler.nested_compile_region
    def layer(x, w):
        return (x @ w).tanh()

    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(4, 4, requires_grad=True)
    y = compile(lambda x, w: layer(layer(x, w) + 1, w).sum())(x, w)
    y.backward()
    return y, x.grad, w.grad


@scenario
def effectful_print(compile):
    def f(x):
        torch._assert(x.sum() < 1e9, "large")
        torch._check(x.shape[0] == 3)
        return x * 2

    return compile(f, fullgraph=True)(torch.randn(3))


# -- function transforms ------------------------------------------------------------------------


@scenario
def transforms(compile):
    from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

    m = mlp()
    params = dict(m.named_parameters())
    x, t = torch.randn(5, 6), torch.randn(5, 3)

    def loss(p, x, t):
        return F.mse_loss(functional_call(m, p, (x,)), t)

    g = lambda x: (x.sin() * x).sum()  # noqa: E731
    return [
        compile(lambda p, x: functional_call(m, p, (x,)))(params, x),
        compile(lambda p, x, t: grad(loss)(p, x, t))(params, x, t),
        compile(lambda p, x, t: vmap(grad(loss), (None, 0, 0))(p, x, t))(params, x, t),
        compile(lambda x: jacrev(lambda y: y.tanh() @ y)(x))(x[0]),
        compile(lambda x: jacfwd(lambda y: y.tanh() * y.sum())(x))(x[0]),
        compile(lambda x: hessian(g)(x))(x[0]),
        compile(lambda x: vjp(torch.sin, x)[1](x + 1))(x),
        compile(lambda x: jvp(torch.sin, (x,), (x + 1,)))(x),
        compile(lambda x: vmap(lambda r: r.cumsum(0) / r.norm(), in_dims=1, out_dims=1)(x))(x),
    ]


@scenario
def transforms_outside(compile):
    """A compiled function inside of transforms that are not."""
    from torch.func import grad, vmap

    f = compile(lambda x: (x.sin() * x).sum())
    x = torch.randn(3, 4)
    return grad(f)(x[0]), vmap(f)(x)


@scenario
def vmap_random(compile):
    from torch.func import vmap

    y = compile(lambda x: vmap(lambda r: F.dropout(r, 0.5), randomness="different")(x))(
        torch.ones(50, 40)
    )
    return (y == 0).float().mean().sub(0.5).abs() < 0.1, ((y == 0) | (y == 2)).all()


@scenario
def forward_ad(compile):
    import torch.autograd.forward_ad as fwAD

    f = compile(lambda x: x.sin() * 2)
    with fwAD.dual_level():
        return tuple(fwAD.unpack_dual(f(fwAD.make_dual(torch.ones(3), torch.ones(3)))))


# -- capture ------------------------------------------------------------------------------------


@scenario
def graph_breaks(compile):
    def f(x, seen):
        y = x.sin()
        torch._dynamo.graph_break()
        seen.append(float(y.sum()))
        if y.sum() > 0:
            y = y * 2
        for k in range(3):
            y = y + k
            torch._dynamo.graph_break()
        return y.cos()

    seen: list[float] = []
    g = compile(f)
    found = [g(torch.ones(3) * s, seen) for s in (1, -1, 1)]
    return found, [round(s, 4) for s in seen]


@scenario
def graph_break_trained(compile):
    m = mlp()

    def f(x):
        y = m[0](x)
        torch._dynamo.graph_break()
        return m[2](m[1](y)).sum()

    x = torch.randn(2, 6, requires_grad=True)
    compile(f)(x).backward()
    return x.grad, gradients(m)


@scenario
def nested_compile(compile):
    inner = compile(lambda x: x.sin() * 2)
    return compile(lambda x: inner(x + 1).cos())(torch.randn(3))


@scenario
def disabled_part(compile):
    @torch.compiler.disable
    def plain(x):
        assert not torch.compiler.is_compiling()
        return x.numpy().sum().item()

    return compile(lambda x: x * plain(x) + 1)(torch.ones(3))


@scenario
def allowed_in_graph(compile):
    return compile(torch._dynamo.allow_in_graph(lambda x: x.view(-1).sin()))(torch.randn(2, 3))


@scenario
def numpy_inside(compile):
    import numpy as np

    f = compile(lambda x: np.sin(x) @ x.T + x.mean(0, keepdims=True).sum())
    return torch.from_numpy(f(np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)))


@scenario
def generators_and_containers(compile):
    from collections import OrderedDict, namedtuple

    Pair = namedtuple("Pair", "a b")

    def f(d, k=2, *, bias=None):
        return Pair(OrderedDict((n, t * k) for n, t in d.items()), [bias, None, k, "s"])

    y = compile(f)({"x": torch.ones(2), "y": torch.zeros(1)}, k=3, bias=torch.ones(3))
    assert isinstance(y, Pair) and isinstance(y.a, OrderedDict)
    return tuple(y)


@scenario
def exceptions_pass(compile):
    def f(x):
        y = x.sin()
        if x.shape[0] == 3:
            raise KeyError("three")
        return y

    compile(f)(torch.ones(3))


@scenario
def shape_error(compile):
    compile(lambda x: x @ x)(torch.ones(3, 4))


@scenario
def index_error(compile):
    return compile(lambda x, k: x[k] * 2)(torch.ones(3), torch.tensor([0, 1]))


@scenario
def modes(compile):
    names = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
    return [compile(lambda x: x.sin() + 1, mode=name)(torch.ones(3)) for name in names]


@scenario
def state_of_modes_inside(compile):
    def f(x, w):
        with torch.no_grad():
            y = x * w
        z = x * w
        with torch.enable_grad():
            return y, z, torch.is_grad_enabled()

    x, w = torch.ones(3, requires_grad=True), torch.full((3,), 2.0, requires_grad=True)
    y, z, enabled = compile(f)(x, w)
    assert not y.requires_grad and z.requires_grad
    z.sum().backward()
    return y, z, enabled, x.grad


# -- autograd -----------------------------------------------------------------------------------


@scenario
def inference_mode(compile):
    m = mlp()
    run = compile(m)
    found = []
    with torch.inference_mode():
        for _ in range(2):
            y = run(torch.ones(2, 6))
            assert y.is_inference()
            found.append(y.clone())
    y = run(torch.ones(2, 6))  # and after it, training
    y.sum().backward()
    return found, y, gradients(m)


@scenario
def inference_mode_inside(compile):
    @torch.inference_mode()
    def f(x):
        return x.sin() + 1

    return compile(f)(torch.ones(3)) + 0


@scenario
def inference_tensors_as_inputs(compile):
    with torch.inference_mode():
        x = torch.ones(3)
    f = compile(lambda x: (x * 2).sin())
    found = [f(x)]
    with torch.no_grad():
        found.append(f(x))
    return found


def autocast_inside(compile, cached: bool):
    m = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3), nn.Softmax(1))

    def f(x):
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cached):
            return m(x)

    x = torch.randn(4, 6, requires_grad=True)
    y = compile(f)(x)
    y.float().square().sum().backward()
    return rounded([y, x.grad, *gradients(m)])


def rounded(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """float32 values that are no more exact than bfloat16."""
    return [v.detach().bfloat16() for v in values]


@scenario
def autocast_trained(compile):
    return autocast_inside(compile, False), autocast_inside(compile, True)


@scenario
def autocast_around(compile):
    m = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    )
    run = compile(m)
    x = torch.randn(2, 3, 4, 4)
    found = []
    for enabled in (True, False, True):
        m.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = F.cross_entropy(run(x), torch.tensor([0, 2]))
        loss.backward()
        found.append(rounded([loss, *gradients(m)]))
    return found


def checkpointed(compile, reentrant: bool):
    m = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.0), nn.Linear(6, 6))

    def f(x):
        for _ in range(2):
            x = checkpoint(m, x, use_reentrant=reentrant)
        return x.square().sum()

    x = torch.randn(3, 6, requires_grad=True)
    y = compile(f)(x)
    y.backward()
    return y, x.grad, gradients(m)


@scenario
def checkpoint_reentrant(compile):
    return checkpointed(compile, True)


@scenario
def checkpoint_not_reentrant(compile):
    return checkpointed(compile, False)


@scenario
def checkpoint_around(compile):
    """Of a module that is compiled."""
    m = mlp()
    run = compile(m)
    x = torch.randn(3, 6, requires_grad=True)
    y = checkpoint(run, x, use_reentrant=False).sum() + checkpoint(run, x, use_reentrant=True).sum()
    y.backward()
    return y, x.grad, gradients(m)


@scenario
def two_backward_calls(compile):
    m = mlp()
    x = torch.randn(3, 6, requires_grad=True)
    y = compile(m)(x)
    y.sum().backward(retain_graph=True)
    first = detached([x.grad, *gradients(m)])
    y.square().sum().backward()
    return first, x.grad, gradients(m)


@scenario
def backward_after_it_was_freed(compile):
    x = torch.randn(3, 6, requires_grad=True)
    y = compile(mlp())(x).sum()
    y.backward()
    y.backward()


@scenario
def double_backward(compile):
    x = torch.randn(3, requires_grad=True)
    (g,) = torch.autograd.grad(compile(lambda x: (x**3).sum())(x), x, create_graph=True)
    g.sum().backward()
    return x.grad


@scenario
def saved_then_written(compile):
    """Autograd's own error for what backward needs and a user overwrites."""
    w = torch.randn(3, requires_grad=True)
    x = torch.randn(3)
    y = compile(lambda x, w: (x * w).sum())(x, w)
    x.add_(1)
    y.backward()


@scenario
def partial_gradients(compile):
    a, b = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    x, y, z = compile(lambda a, b: (a * 2, b.sin(), (a * b).detach()))(a, b)
    assert not z.requires_grad
    first = torch.autograd.grad(x.sum(), [a, b], allow_unused=True, retain_graph=True)
    return first, torch.autograd.grad(y.sum(), [b])


@scenario
def integer_and_none_results(compile):
    x = torch.randn(5, requires_grad=True)
    v, k, none = compile(lambda x: (*x.sort(), None))(x)
    v[:2].sum().backward()
    return v, k, none, x.grad


@scenario
def non_leaf_inputs(compile):
    x = torch.randn(3, requires_grad=True)
    y = x * 2
    z = compile(lambda y: y.sin() * y)(y)
    z.sum().backward()
    return z, x.grad


@scenario
def saved_tensor_hooks(compile):
    x = torch.randn(3, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t * 1, lambda t: t):
        y = compile(lambda x: x.sin().exp().sum())(x)
    y.backward()
    return x.grad


@scenario
def save_on_cpu(compile):
    m = mlp()
    with torch.autograd.graph.save_on_cpu():
        y = compile(m)(torch.ones(2, 6))
    y.sum().backward()
    return gradients(m)


@scenario
def anomaly_mode(compile):
    x = torch.randn(3, requires_grad=True)
    with torch.autograd.detect_anomaly(check_nan=False):
        compile(lambda x: x.sin().sum())(x).backward()
    return x.grad


@scenario
def accumulated_gradients(compile):
    m = mlp()
    run = compile(m)
    for k in range(3):
        run(torch.full((2, 6), float(k))).sum().backward()
    return gradients(m)


@scenario
def backward_in_the_graph(compile):
    def f(x):
        y = (x.sin() * 2).sum()
        y.backward()
        return y

    x = torch.randn(3, requires_grad=True)
    return compile(f)(x), x.grad


@scenario
def autograd_grad_in_the_graph(compile):
    def f(x):
        return torch.autograd.grad((x.sin() * 2).sum(), x)[0]

    return compile(f)(torch.randn(3, requires_grad=True))


# -- memory: aliases and mutation -----------------------------------------------------------------


@scenario
def inputs_that_alias(compile):
    b = torch.arange(8.0)

    def f(x, y):
        x.mul_(2)
        y.add_(x.sum())
        return x + y, x

    g = compile(f)
    found = [g(b[:4], b[4:]), b.clone(), g(b[:4], b[2:6]), b.clone(), g(b[:4], b[:4]), b.clone()]
    x = torch.arange(4.0)
    return found, g(x, x), x


@scenario
def views_of_inputs_written(compile):
    b = torch.arange(12.0).view(3, 4)

    def f(x):
        x.t()[1].zero_()
        x.view(-1)[2:5] += 10
        x.diagonal().mul_(-1)
        return x.select(1, 0)

    return compile(f)(b[:, 1:]), b


@scenario
def results_that_alias(compile):
    x = torch.arange(6.0).view(2, 3)

    def f(x):
        y = x + 1
        return x.t(), x[0], y, y.view(-1), y[1], x, y.t()[:2]

    found = compile(f)(x)
    x.add_(100)
    found[2].mul_(3)
    return [r.clone() for r in found], [r._base is not None for r in found[:2]]


@scenario
def result_given_twice(compile):
    a, b, c = compile(lambda x: ((y := x.sin()), y, y.t()))(torch.ones(2, 3))
    a.mul_(2)
    return a is b, a, b, c


@scenario
def results_that_are_equal_but_apart(compile):
    a, b, c, d = compile(lambda x: ((y := x.sin()), y.clone(), x.sin(), y + 0))(torch.ones(2, 3))
    a.mul_(2)
    return a, b, c, d


@scenario
def results_of_expanded_memory(compile):
    a, b = compile(lambda x: ((y := x.sin()), y.expand(4, 3)))(torch.ones(3))
    a.mul_(2)
    return a, b


@scenario
def parts_of_a_result(compile):
    found = compile(lambda x: ((y := x.sin().t())[1:], *y.chunk(2), y, y.real, y[1, 1]))(
        torch.ones(4, 6)
    )
    found[0].mul_(2)
    return list(found)


@scenario
def gradients_do_not_alias(compile):
    a, b = (torch.ones(3, requires_grad=True) for _ in range(2))
    compile(lambda a, b: (a + b).sin().sum())(a, b).backward()
    a.grad.mul_(2)
    return a.grad, b.grad


@scenario
def results_that_alias_trained(compile):
    x = torch.randn(2, 3, requires_grad=True)
    y, v, w = compile(lambda x: ((y := x.sin()), y.view(-1), x.t()))(x)
    v.mul_(2)
    (y.sum() + w.sum()).backward()
    return y, v, x.grad


@scenario
def written_view_with_gradient(compile):
    x = torch.randn(2, 3, requires_grad=True)
    base = x * 1

    def f(b):
        b[0].mul_(3)
        b.t()[1].sin_()
        return b.sum() + b[1].exp().sum()

    y = compile(f)(base)
    (y + base.square().sum()).backward()
    return y, base, x.grad


@scenario
def written_leaf_that_needs_a_gradient(compile):
    compile(lambda x: x.mul_(2).sum())(torch.randn(3, requires_grad=True))


@scenario
def written_under_no_grad(compile):
    p = torch.randn(3, requires_grad=True)

    def f(p, g):
        with torch.no_grad():
            p -= 0.1 * g
        return (p * 2).sum()

    g = compile(f)
    y = g(p, torch.ones(3))
    y.backward()
    return y, p, p.grad, p.requires_grad


@scenario
def input_written_with_what_needs_a_gradient(compile):
    w, x = torch.randn(3, requires_grad=True), torch.zeros(3)
    y = compile(lambda x, w: x.add_(w * 2) * 3)(x, w)
    assert x.requires_grad
    (x.sum() + y.sum()).backward()
    return x, y, w.grad


@scenario
def detached_alias_written(compile):
    def f(x):
        x.detach().mul_(2)
        return x * 1

    x = torch.ones(3)
    return compile(f)(x), x


@scenario
def data_written(compile):
    def f(x):
        x.data = x.data * 2
        return x + 1

    x = torch.ones(3)
    return compile(f)(x), x


@scenario
def metadata_written(compile):
    def f(x, y):
        x.t_()
        y.unsqueeze_(0)
        return x * 2, y + 1

    x, y = torch.randn(2, 3), torch.randn(3)
    return compile(f)(x, y), x, y, x.stride(), y.shape


@scenario
def resized(compile):
    def f(x):
        x.resize_(5)
        return x[:3] * 2

    return compile(f)(torch.ones(3))


@scenario
def set_storage(compile):
    def f(x, y):
        x.set_(y)
        return x + 1

    x = torch.ones(3)
    return compile(f)(x, torch.zeros(4)), x


@scenario
def overlapping_inputs(compile):
    x = torch.arange(5.0).as_strided((3, 3), (1, 1))
    y = torch.randn(1, 4).expand(3, 4)
    return compile(lambda x, y: (x * 2, y.sin(), x.sum(1), y.contiguous(), y + 0))(x, y)


@scenario
def overlapping_input_written(compile):
    compile(lambda y: y.add_(1))(torch.randn(1, 4).expand(3, 4))


@scenario
def small_and_empty(compile):
    def f(x, y, z):
        return (x + y, x * z.sum(), z @ z.t(), z.cumsum(0), y.expand(0, 3), z.reshape(3, 0).sum(1))

    args = torch.tensor(2.0), torch.randn(1), torch.randn(0, 3)
    grads = [a.requires_grad_() for a in args]
    found = compile(f)(*args)
    sum(r.sum() for r in found).backward()
    return found, [a.grad for a in grads]


@scenario
def zero_d_written(compile):
    x = torch.tensor(1.0)
    count = torch.tensor(0)

    def f(x, count):
        count += 1
        x.mul_(count)
        return x + count

    g = compile(f)
    return g(x, count), g(x, count), x, count


@scenario
def input_that_is_returned(compile):
    x = torch.randn(3)
    y, z = compile(lambda x: (x, x.add_(1)))(x)
    assert y is x
    return y, z


@scenario
def numbers_that_change(compile):
    f = compile(lambda x, k, s: x * k + s)
    return [f(torch.ones(3), k, s) for k in (1, 2, 5) for s in (0.5, 1.5, True)]


# -- modules ------------------------------------------------------------------------------------


@scenario
def hooks(compile):
    m = mlp()
    seen = []
    m[0].register_forward_hook(lambda mod, a, y: y * 2)
    m[1].register_forward_pre_hook(lambda mod, a: (a[0] + 1,))
    m[2].weight.register_hook(lambda g: g * 3)
    m[0].weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.sum().detach()))
    m[2].register_full_backward_hook(lambda mod, gi, go: seen.append(go[0].sum()))
    x = torch.randn(2, 6, requires_grad=True)
    x.register_hook(lambda g: seen.append(g.sum()))
    y = compile(m)(x)
    y.register_hook(lambda g: g * 0.5)
    y.sum().backward()
    return y, x.grad, gradients(m), seen


@scenario
def hook_inside(compile):
    def f(x):
        y = x.sin()
        y.register_hook(lambda g: g * 2)
        return y.sum()

    x = torch.randn(3, requires_grad=True)
    compile(f)(x).backward()
    return x.grad


@scenario
def parametrized(compile):
    m = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(6, 5)),
        parametrizations.spectral_norm(nn.Linear(5, 5)),
        parametrizations.orthogonal(nn.Linear(5, 5)),
    )
    run = compile(m)
    found = []
    for _ in range(3):
        m.zero_grad()
        y = run(torch.ones(2, 6))
        y.sum().backward()
        found.append(detached([y, *gradients(m)]))
    m.eval()
    with torch.no_grad():
        found.append([run(torch.ones(2, 6))])
        m[0].parametrizations.weight.original0.mul_(2)
        found.append([run(torch.ones(2, 6))])
    return found, dict(m.state_dict())


@scenario
def parametrized_by_hooks(compile):
    m = nn.utils.spectral_norm(nn.Linear(6, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = nn.Sequential(m, nn.utils.weight_norm(nn.Linear(5, 3)))
    y = compile(m)(torch.ones(2, 6))
    y.sum().backward()
    return y, gradients(m)


@scenario
def tied_weights(compile):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, k):
            return self.head(self.embed(k).tanh())

    m = Tied()
    run, optimizer = compile(m), torch.optim.SGD(m.parameters(), 0.1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(run(torch.tensor([1, 3])), torch.tensor([2, 0]))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    with torch.no_grad():
        return losses, run(torch.tensor([1])), m.embed.weight


@scenario
def buffers_written(compile):
    class Average(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("steps", torch.tensor(0), persistent=False)

        def forward(self, x):
            self.mean.lerp_(x.mean(0), 0.5)
            self.steps.add_(1)
            self.last = x[0]
            return x - self.mean

    m = Average()
    run = compile(m)
    return [run(torch.ones(2, 3) * k) for k in range(3)], m.mean, m.steps, m.last


@scenario
def replaced_submodules_and_attributes(compile):
    m = mlp()
    run = compile(m)
    x = torch.ones(2, 6)
    found = [run(x)]
    m[1] = nn.ReLU()
    found.append(run(x))
    m[2].weight = nn.Parameter(torch.ones(3, 8))
    found.append(run(x))
    m[2].bias = None
    found.append(run(x))
    m.double()
    found.append(run(x.double()))
    return found


@scenario
def state_dicts(compile):
    m, other = mlp(), mlp()
    run = compile(m)
    x = torch.ones(2, 6)
    found = [run(x).detach()]
    file = io.BytesIO()
    torch.save(m.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    found.append(compile(other)(x).detach())
    m.load_state_dict(mlp().state_dict())
    found.append(run(x).detach())
    m.load_state_dict({k: v.clone() for k, v in mlp().state_dict().items()}, assign=True)
    found.append(run(x).detach())
    return found


@scenario
def copied_and_pickled(compile):
    m = mlp()
    run = compile(m)
    x = torch.ones(2, 6)
    found = [run(x).detach()]
    other = copy.deepcopy(run)
    found.append(other(x).detach())
    file = io.BytesIO()
    torch.save(run if isinstance(run, nn.Module) else m, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    found.append(loaded(x).detach())
    found.append(pickle.loads(pickle.dumps(run))(x).detach())
    return found


@scenario
def weight_made_by_a_compiled_function(compile):
    m = mlp()
    m[0].weight = nn.Parameter(compile(lambda w: w * 1)(m[0].weight.detach()))
    return m(torch.ones(2, 6))


@scenario
def train_and_eval_switch(compile):
    m = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.0))
    run = compile(m)
    found = []
    for k in range(4):
        m.train(k % 2 == 0)
        found.append(run(torch.randn(5, 6)).detach())
    return found, dict(m.state_dict())


@scenario
def frozen_then_trained(compile):
    m = mlp()
    run = compile(m)
    found = []
    for trained in (False, True, False):
        m[0].requires_grad_(trained)
        m.zero_grad()
        run(torch.ones(2, 6)).sum().backward()
        found.append([g if g is None else g.clone() for g in gradients(m)])
    return found


@scenario
def lazy_module(compile):
    m = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2))
    run = compile(m)
    return run(torch.ones(2, 3)), run(torch.ones(5, 3)), list(m.state_dict())


# -- training loops -----------------------------------------------------------------------------


def trained(compile, make: Callable, scheduler: Callable | None = None, **options: Any) -> Any:
    m = mlp()
    optimizer = make(m.parameters(), **options)
    step = compile(optimizer.step)
    schedule = scheduler(optimizer) if scheduler else None
    for k in range(4):
        optimizer.zero_grad()
        m(torch.full((2, 6), k + 1.0)).square().sum().backward()
        step()
        if schedule:
            schedule.step()
    state = [dict(s) for s in optimizer.state_dict()["state"].values()]
    return detached(list(m.parameters())), detached(state)


@scenario
def optimizers(compile):
    kinds = [
        (torch.optim.Adam, {}), (torch.optim.Adam, {"foreach": False, "amsgrad": True}),
        (torch.optim.AdamW, {"foreach": True}), (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "foreach": True}),
        (torch.optim.RMSprop, {"centered": True}), (torch.optim.Adagrad, {}),
        (torch.optim.NAdam, {}), (torch.optim.RAdam, {}), (torch.optim.Adamax, {}),
        (torch.optim.Rprop, {}), (torch.optim.ASGD, {}), (torch.optim.Adadelta, {}),
    ]  # fmt: skip
    found = []
    for kind, options in kinds:
        torch._dynamo.reset()
        lr = {} if kind is torch.optim.Adadelta else {"lr": 0.01}
        found.append(trained(compile, kind, **lr, **options))
    return found


@scenario
def schedulers(compile):
    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

    return [
        trained(
            compile, torch.optim.Adam, lambda o: LinearLR(o, 0.1, 1.0, 4), lr=torch.tensor(0.1)
        ),
        trained(compile, torch.optim.SGD, lambda o: CosineAnnealingLR(o, 4), lr=torch.tensor(0.1)),
    ]


@scenario
def whole_step(compile):
    m = mlp()
    optimizer = torch.optim.Adam(m.parameters(), 0.01)

    def step(x, t):
        optimizer.zero_grad()
        loss = F.cross_entropy(m(x), t)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 0.5)
        optimizer.step()
        return loss.detach()

    run = compile(step)
    return [run(torch.randn(4, 6), torch.tensor([0, 1, 2, 0])) for _ in range(4)], list(
        m.parameters()
    )


@scenario
def averaged_weights(compile):
    m = mlp()
    average = torch.optim.swa_utils.AveragedModel(m)
    run, optimizer = compile(m), torch.optim.SGD(m.parameters(), 0.1)
    for _ in range(3):
        run(torch.ones(2, 6)).sum().backward()
        optimizer.step()
        average.update_parameters(m)
    return list(average.parameters())


@scenario
def grad_scaler(compile):
    m = mlp()
    run, optimizer = compile(m), torch.optim.SGD(m.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for _ in range(2):
        scaler.scale(run(torch.ones(2, 6)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    return list(m.parameters())


# -- sizes --------------------------------------------------------------------------------------


@scenario
def dynamic_training(compile):
    m = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2))
    run = compile(m, dynamic=True)
    found = []
    for n in (3, 5, 5, 5, 3, 3):
        m.zero_grad()
        x = torch.randn(n, 6, requires_grad=True)
        y = run(x)
        y.square().sum().backward()
        found.append(detached([y, x.grad, *gradients(m)]))
    return found


@scenario
def automatic_dynamic(compile):
    m = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(1), nn.Linear(36, 2)
    )
    run = compile(m)
    found = []
    for n in (2, 4, 4, 6, 6, 6, 1, 1, 0):
        y = run(torch.randn(n, 3, 5, 5)) if n > 1 else m.eval() and run(torch.randn(n, 3, 5, 5))
        if n:
            y.sum().backward()
        found.append(y.detach())
    return found, gradients(m), dict(m.state_dict())


@scenario
def marked_dynamic(compile):
    f = compile(lambda x: x.softmax(1) @ x.t() + x.shape[0], fullgraph=True)
    found = []
    for n in (3, 4, 4, 7, 7, 7):
        x = torch.randn(n, 5)
        torch._dynamo.mark_dynamic(x, 0)
        torch._dynamo.maybe_mark_dynamic(x, 1)
        found.append(f(x))
    return found


@scenario
def growing_cache(compile):
    f = compile(lambda c, x: (torch.cat([c, x], 1), (torch.cat([c, x], 1) * 2).sum(1)))
    c, found = torch.zeros(2, 1, 3), []
    for _ in range(5):
        c, y = f(c, torch.randn(2, 1, 3))
        found.append(y)
    return c, found


@scenario
def sizes_from_data(compile):
    def f(x, k):
        n = k.item()
        torch._check(n >= 0)
        torch._check(n < x.shape[0])
        return x.narrow(0, 0, n) * 2, torch.zeros(n).sum(), x[x > 0].sin()

    with torch._dynamo.config.patch(
        capture_scalar_outputs=True, capture_dynamic_output_shape_ops=True
    ):
        g = compile(f, fullgraph=True)
        return [g(torch.randn(5), torch.tensor(k)) for k in (2, 3, 0, 1)]


@scenario
def exported(compile):
    m = mlp().eval()
    x = torch.randn(3, 6)
    program = torch.export.export(m, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    run = compile(program.module())
    return run(x), run(torch.ones(5, 6)), run(torch.ones(5, 6))


@scenario
def scripted_and_traced(compile):
    m = torch.jit.trace(mlp().eval(), torch.ones(1, 6))
    with torch.no_grad():
        return compile(lambda x: m(x) * 2)(torch.ones(2, 6))


# -- threads ------------------------------------------------------------------------------------


@scenario
def threads_train(compile):
    run = compile(lambda x, w: (x @ w).tanh().sum())
    found: list[Any] = [None] * 4

    def work(k: int) -> None:
        for _ in range(5):
            w = torch.full((3, 2), k + 0.1, requires_grad=True)
            run(torch.ones(2, 3), w).backward()
            found[k] = w.grad

    work(0)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return found


def differs(a: Any, b: Any) -> bool:
    try:
        same(a, b)
        return False
    except AssertionError:
        return True


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name):
    """What eager gives; or `aot_eager`, where torch.compile itself gives something else."""
    f = SCENARIOS[name]
    eager = outcome(f, lambda f, **_: f)
    base = outcome(f, by("aot_eager"))
    ours = outcome(f, by(Backend()))
    if isinstance(ours, Exception):
        accepted = [_error(e) for e in (eager, base) if isinstance(e, Exception)]
        if _error(ours) not in accepted:
            raise ours
        return
    for expected in (eager, base):
        assert not isinstance(expected, Exception), f"no {expected!r}"
    same(base if differs(eager, base) else eager, ours)


def _error(e: Exception) -> tuple[type, str]:
    return type(e), str(e).splitlines()[0].replace("'aot_eager'", "'sol'")


def test_unknown_mode():
    for mode, text in (
        ("max-autotun", r"'max-autotun'; did you mean 'max-autotune'\?"),
        ("any", r"'any'\. Valid: default, reduce-overhead"),
    ):
        torch._dynamo.reset()
        with pytest.raises(Exception, match=f"unknown mode {text}"):
            torch.compile(lambda x: x + 1, backend=sol, mode=mode)(torch.ones(3))


def test_the_backend_is_one_object():
    """Also for a compiled model that was saved: guards compare backends."""
    assert pickle.loads(pickle.dumps(sol)) is sol is copy.deepcopy(sol)
    assert isinstance(pickle.loads(pickle.dumps(Backend())), Backend)

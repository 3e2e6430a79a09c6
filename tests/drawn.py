"""Programs drawn at random: tensors of all dtypes, views, mutation, reductions, contractions.

A program is a list of steps (name, a, b, c); `a` and `b` choose among the values so far, `b` and
`c` also dimensions, sizes and constants. A step that does not apply to its values does nothing, so
that every list is a program, and shrinks.

Inputs are small whole numbers. What is computed of them by arithmetic stays exact, in every order
of evaluation; only such values are compared, rounded, converted to integers or searched for the
greatest, because one rounding more or less would make another answer of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

LARGEST = 5000  # elements of a value
LAYOUTS = ("contiguous", "transposed", "every second", "expanded")
DTYPES = (
    *(torch.float32, torch.float64, torch.bfloat16, torch.float16),
    *(torch.int64, torch.int32, torch.uint8, torch.bool),
)
Step = tuple[str, int, int, int]


class Drawn(NamedTuple):
    """An input: small whole numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str
    seed: int


def tensor(d: Drawn) -> Tensor:
    generator = torch.Generator().manual_seed(d.seed)
    low = 0 if d.dtype in (torch.uint8, torch.bool) else -4
    high = 2 if d.dtype == torch.bool else 5
    shape = list(d.shape)
    if d.layout == "transposed":
        shape.reverse()
    elif d.layout == "every second" and shape:
        shape[-1] *= 2
    elif d.layout == "expanded" and shape:
        shape[0] = 1
    x = torch.randint(low, high, shape, generator=generator).to(d.dtype)
    if d.layout == "transposed":
        return x.permute(tuple(reversed(range(x.dim()))))
    if d.layout == "every second" and shape:
        return x[..., ::2]
    return x.expand(d.shape)


class Machine:
    """Runs a program on tensors; with `wide`, every floating value is float64."""

    def __init__(self, inputs: Sequence[Tensor], wide: bool = False):
        self.wide = wide
        self.values = list(inputs)
        self.home = list(range(len(inputs)))  # the memory that each value lies in
        self.exact = [True] * len(inputs)  # of each memory
        self.n = 0  # the step at work: constants are named by it

    def run(self, program: Sequence[Step]) -> list[Tensor]:
        """The results: the last values, views among them."""
        for self.n, (name, a, b, c) in enumerate(program):
            p, q = a % len(self.values), b % len(self.values)
            self._step(name, p, q, b, c)
        return self.values[-4:]

    def _step(self, name: str, p: int, q: int, b: int, c: int) -> None:
        step = STEPS[name]
        v, u = self.values[p], self.values[q]
        read = (p, q) if step.reads_both else (p,)
        exact = all(self.exact[self.home[i]] for i in read)
        if step.needs_exact and not exact:
            return
        made = step.f(self, v, u, b, c)
        if step.writes:
            self.exact[self.home[p]] &= exact
            return
        if made is None or made.numel() > LARGEST:
            return
        self.values.append(made)
        if step.is_view:
            self.home.append(self.home[p])
        else:
            self.home.append(len(self.exact))
            self.exact.append(exact and not step.rounds)

    def float(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64 if self.wide and dtype.is_floating_point else dtype

    def weight(self, dtype: torch.dtype, *shape: int) -> Tensor:
        """A constant of small whole numbers."""
        n = 1
        for s in shape:
            n *= s
        numbers = torch.arange(n).mul(7 + self.n).remainder(5) - 2
        return numbers.reshape(shape).to(self.values[0].device, dtype)


class Kind(NamedTuple):
    f: Callable[[Machine, Tensor, Tensor, int, int], Tensor | None]
    needs_exact: bool = False  # a rounding more or less would change its result
    rounds: bool = False  # its result is not exact, whatever it is given
    reads_both: bool = False
    is_view: bool = False  # may be a view of its first argument
    writes: bool = False  # to its first argument


STEPS: dict[str, Kind] = {}


def step(**traits: bool) -> Callable:
    def register(f: Callable) -> Callable:
        STEPS[f.__name__] = Kind(f, **traits)
        return f

    return register


def is_float(v: Tensor) -> bool:
    return v.is_floating_point()


def is_int(v: Tensor) -> bool:
    return not is_float(v) and v.dtype != torch.bool


def dim(v: Tensor, b: int) -> int:
    return b % v.dim() - (v.dim() if b % 3 == 0 else 0)


def fits(v: Tensor, u: Tensor) -> bool:
    """Whether two shapes broadcast."""
    sizes = zip(reversed(v.shape), reversed(u.shape), strict=False)
    return all(m == n or 1 in (m, n) for m, n in sizes)


# -- views ----------------------------------------------------------------------------------------


@step(is_view=True)
def transposed(m, v, u, b, c):
    return v.transpose(dim(v, b), dim(v, c)) if v.dim() > 1 else None


@step(is_view=True)
def sliced(m, v, u, b, c):
    if not v.dim():
        return None
    index = [slice(None)] * v.dim()
    index[dim(v, b)] = slice(c % 3, None, 1 + c // 3 % 2)
    return v[tuple(index)]


@step(is_view=True)
def selected(m, v, u, b, c):
    if not v.dim() or not v.shape[dim(v, b)]:
        return None
    return v.select(dim(v, b), c % v.shape[dim(v, b)])


@step(is_view=True)
def expanded(m, v, u, b, c):
    return v.expand(1 + c % 3, *(2 + b % 2 if n == 1 else n for n in v.shape))


@step(is_view=True)
def unsqueezed(m, v, u, b, c):
    return v.unsqueeze(b % (v.dim() + 1)) if v.dim() < 5 else None


@step(is_view=True)
def flattened(m, v, u, b, c):
    return v.reshape(-1) if b % 2 or not v.dim() else v.flatten(0, c % v.dim())


@step(is_view=True)
def split_in_two(m, v, u, b, c):
    d = dim(v, b) if v.dim() else 0
    if not v.dim() or v.shape[d] % 2:
        return None
    shape = list(v.shape)
    d %= v.dim()
    return v.reshape(*shape[:d], 2, shape[d] // 2, *shape[d + 1 :])


@step(is_view=True)
def on_the_diagonal(m, v, u, b, c):
    return v.diagonal(c % 3 - 1, 0, 1) if v.dim() > 1 else None


@step(is_view=True)
def windows(m, v, u, b, c):
    if not v.dim() or v.dim() > 4 or v.shape[dim(v, b)] < 2:
        return None
    return v.unfold(dim(v, b), 2, 1 + c % 2)


@step(is_view=True)
def last_chunk(m, v, u, b, c):
    return v.chunk(2, dim(v, b))[-1] if v.dim() else None


# -- elementwise ----------------------------------------------------------------------------------


@step()
def arithmetic(m, v, u, b, c):
    if v.dtype == torch.bool:
        return ~v
    k = b % 6
    if k == 1 and v.dtype == torch.uint8:
        return v * 3
    return (-v, v.abs(), v.clamp(-2, 3), v * 2 + 1, v.clamp(min=1), v - 1)[k]


@step()
def relu(m, v, u, b, c):
    return torch.relu(v) if v.dtype != torch.bool else None


@step(rounds=True)
def smooth(m, v, u, b, c):
    if not is_float(v):
        return torch.sqrt(v.abs() + 0.5).to(m.float(torch.float32)) if is_int(v) else None
    k = b % 8
    if k == 0:
        return torch.exp(-v.abs())
    if k == 1:
        return torch.sqrt(v.abs() + 0.5)
    if k == 2:
        return v / 3
    return (torch.tanh, torch.sigmoid, functional.silu, functional.gelu, torch.sin)[k - 3](v)


@step(reads_both=True)
def combined(m, v, u, b, c):
    if not fits(v, u) or v.dtype == u.dtype == torch.bool:
        return None
    return (torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum)[c % 5](v, u)


@step(reads_both=True, needs_exact=True)
def compared(m, v, u, b, c):
    return (torch.lt, torch.eq, torch.ge)[c % 3](v, u) if fits(v, u) else None


@step(reads_both=True, needs_exact=True)
def chosen(m, v, u, b, c):
    return torch.where(v > 0, v, u) if fits(v, u) else None


@step(needs_exact=True)
def masked(m, v, u, b, c):
    return v.masked_fill(v > 1, c % 2)


@step(needs_exact=True)
def rounded(m, v, u, b, c):
    return (torch.floor, torch.trunc, torch.sign, torch.round)[b % 4](v) if is_float(v) else None


@step(needs_exact=True)
def converted(m, v, u, b, c):
    target = DTYPES[c % len(DTYPES)]
    if target == torch.uint8 and v.dtype != torch.bool:  # of negative numbers it is undefined
        v = v.abs()
    return v.to(m.float(target))


@step(needs_exact=True)
def of_integers(m, v, u, b, c):
    if not is_int(v):
        return None
    k = 1 + c % 5
    return (v // k, v % k, v << k % 3, v >> 1, v & k, v ^ 3)[b % 6]


@step(reads_both=True, needs_exact=True)
def bitwise(m, v, u, b, c):
    if is_float(v) or is_float(u) or not fits(v, u):
        return None
    return (torch.bitwise_and, torch.bitwise_or, torch.bitwise_xor)[c % 3](v, u)


# -- reductions -----------------------------------------------------------------------------------


@step()
def summed(m, v, u, b, c):
    if c % 4 == 0 or not v.dim():
        return v.sum()
    return v.sum(dim(v, b), keepdim=bool(c % 2))


@step()
def greatest(m, v, u, b, c):
    if not v.dim() or not v.shape[dim(v, b)]:
        return None
    f = v.amax if c // 2 % 2 else v.amin
    return f(dim(v, b), keepdim=bool(c % 2))


@step(needs_exact=True)
def position(m, v, u, b, c):
    if not v.dim() or not v.shape[dim(v, b)] or v.dtype == torch.bool:
        return None
    return v.argmax(dim(v, b), keepdim=bool(c % 2))


@step(rounds=True)
def averaged(m, v, u, b, c):
    if not is_float(v) or not v.dim() or v.shape[dim(v, b)] < 2:
        return None
    d = dim(v, b)
    return v.mean(d, keepdim=True) if c % 2 else v.var(d, correction=c // 2 % 2)


@step(needs_exact=True)
def any_or_all(m, v, u, b, c):
    f = v.any if c % 2 else v.all
    return f(dim(v, b)) if v.dim() and c // 2 % 2 else f()


@step()
def running(m, v, u, b, c):
    return v.cumsum(dim(v, b)) if v.dim() else None


@step(rounds=True)
def normalized(m, v, u, b, c):
    if not is_float(v) or not v.dim() or v.shape[-1] < 2:
        return None
    d = dim(v, b)
    if c % 3 == 0:
        return functional.layer_norm(v, v.shape[-1:])
    return torch.softmax(v, d) if c % 3 == 1 else torch.log_softmax(v, d)


# -- contractions ---------------------------------------------------------------------------------


@step()
def projected(m, v, u, b, c):
    if not is_float(v) or not v.dim():
        return None
    w = m.weight(v.dtype, v.shape[-1], 1 + c % 19)
    return v @ w if b % 2 else functional.linear(v, w.t())


@step()
def batched(m, v, u, b, c):
    return v @ v.transpose(1, 2) if is_float(v) and v.dim() == 3 else None


@step()
def convolved(m, v, u, b, c):
    if not is_float(v) or v.dim() not in (3, 4) or not v.shape[1]:
        return None
    if min(v.shape[2:]) < 3:
        return None
    k = (3,) * (v.dim() - 2)
    groups = v.shape[1] if b % 3 == 0 else 1
    outs = v.shape[1] if groups > 1 else 1 + c % 17
    w = m.weight(v.dtype, outs, v.shape[1] // groups, *k)
    f = functional.conv1d if v.dim() == 3 else functional.conv2d
    return f(v, w, None, 1 + c % 2, b % 2, 1, groups)


@step()
def pooled(m, v, u, b, c):
    if not is_float(v) or v.dim() != 4 or min(v.shape[2:]) < 2:
        return None
    return functional.max_pool2d(v, 2) if c % 2 else functional.avg_pool2d(v, 2)


# -- indices and concatenations -------------------------------------------------------------------


def places(v: Tensor, c: int) -> Tensor:
    """A constant index of rows, with repetitions and negative numbers."""
    n = v.shape[0]
    numbers = [(k * (c + 2)) % n - (n if k % 3 == 2 else 0) for k in range(1 + c % 4)]
    return torch.tensor(numbers, device=v.device)


@step()
def looked_up(m, v, u, b, c):
    if not v.dim() or not v.shape[0]:
        return None
    i = places(v, c)
    if b % 3 == 0:
        return v[i]
    return v.index_select(0, i % v.shape[0]) if b % 3 == 1 else v[:, i % 2] if two(v) else None


def two(v: Tensor) -> bool:
    return v.dim() > 1 and v.shape[1] >= 2


@step(needs_exact=True)
def gathered(m, v, u, b, c):
    if not v.dim() or not v.shape[dim(v, b)]:
        return None
    index = v.to(torch.int64).abs() % v.shape[dim(v, b)]
    return v.gather(dim(v, b), index)


@step(reads_both=True)
def joined(m, v, u, b, c):
    if not v.dim():
        return torch.stack((v, v))
    return torch.cat((v, u if u.shape == v.shape else v * 2), dim(v, c))


@step()
def padded(m, v, u, b, c):
    if not v.dim() or v.dtype == torch.bool:
        return None
    return functional.pad(v, (b % 3, c % 3), value=1)


@step()
def flipped(m, v, u, b, c):
    if not v.dim():
        return None
    return v.flip(dim(v, b)) if c % 2 else v.roll(c - 4, dim(v, b))


# -- mutation -------------------------------------------------------------------------------------


def overlaps(v: Tensor) -> bool:
    """Whether two elements may be one: writing to such a tensor is an error in eager."""
    order = sorted(zip(v.stride(), v.shape, strict=True))
    end = 0
    for stride, n in order:
        if n > 1 and stride <= end:
            return True
        end += stride * (n - 1)
    return False


@step(writes=True)
def scaled_in_place(m, v, u, b, c):
    if not overlaps(v) and v.dtype != torch.bool:
        v.mul_(2) if c % 2 else v.add_(1)


@step(writes=True, reads_both=True)
def added_in_place(m, v, u, b, c):
    if overlaps(v) or v.dtype == torch.bool or not fits(v, u):
        return
    if torch.broadcast_shapes(v.shape, u.shape) != v.shape:
        return
    if torch.can_cast(torch.result_type(v, u), v.dtype):
        v.add_(u) if c % 2 else v.mul_(u)


@step(writes=True, reads_both=True, needs_exact=True)
def copied_in_place(m, v, u, b, c):
    if overlaps(v) or not fits(v, u) or v.dtype == torch.uint8:
        return
    if torch.broadcast_shapes(v.shape, u.shape) == v.shape:
        v.copy_(u)


@step(writes=True)
def part_filled(m, v, u, b, c):
    if v.dim() and not overlaps(v):
        v[..., c % 3 :: 2] = b % 2


@step(writes=True)
def rows_assigned(m, v, u, b, c):
    if v.dim() and v.shape[0] and not overlaps(v):
        v[places(v, c)] = c % 2


@step(writes=True)
def rows_accumulated(m, v, u, b, c):
    if v.dim() and v.shape[0] and not overlaps(v) and v.dtype != torch.bool:
        i = places(v, c) % v.shape[0]
        v.index_put_((i,), torch.ones_like(v[i]), accumulate=True)


# -- what a program gives -------------------------------------------------------------------------


def function(program: Sequence[Step], wide: bool = False) -> Callable[..., list[Tensor]]:
    """The program as a function of its inputs, for torch.compile."""
    return lambda *inputs: Machine(inputs, wide).run(program)


def weighted_sum(x: Tensor) -> Tensor:
    weights = torch.arange(x.numel()).remainder(5).sub(1).reshape(x.shape)
    return (x.double() * weights).sum()


def outcome(f: Callable[..., list[Tensor]], inputs: Sequence[Tensor], train: bool) -> list[Any]:
    """Results, then what inputs are afterwards, or gradients: of a weighted sum of the floating
    results with respect to floating inputs (contiguous: AOTAutograd lays them out as it likes;
    zeros where there is none: it gives either)."""
    if not train:
        with torch.no_grad():
            results = f(*inputs)
        return [*results, *inputs]
    leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]
    results = f(*(x * 1 if x.requires_grad else x for x in leaves))
    wanted = [x for x in leaves if x.requires_grad]
    roots = [weighted_sum(r) for r in results if r.requires_grad]
    if not wanted or not roots:
        return [r.detach() for r in results]
    total = torch.stack(roots).sum()
    gradients = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
    return [*(r.detach() for r in results), *(g.contiguous() for g in gradients)]

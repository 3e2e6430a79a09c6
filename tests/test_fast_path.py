"""Calls that are like the one before but for their inputs take the fast path, others do not."""

from __future__ import annotations

import copy
import gc
import sys
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest
import torch
from accuracy import same
from at_once import at_once
from blocks import net
from torch import nn

import sol_dynamo
from sol_dynamo import fast_path
from sol_dynamo.backend import Backend
from sol_dynamo.kernels.c.execute import NativeExecutable
from sol_dynamo.runner import Runner
from sol_dynamo.runtime import steady
from sol_dynamo.runtime.weights import WeightSets

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="versions of dictionaries tell what modules hold"
)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[Runner]:
    """The programs that were called by the slow path."""
    found: list[Runner] = []
    plain = Runner.__call__

    def called(self: Runner, args: list[Any]) -> list[Any]:
        found.append(self)
        return plain(self, args)

    monkeypatch.setattr(Runner, "__call__", called)
    return found


def compiled(model: Any) -> tuple[Callable, Backend]:
    torch._dynamo.reset()
    backend = Backend()
    return torch.compile(model, backend=backend), backend


def check(run: Callable, model: Callable, *xs: Any) -> None:
    with torch.no_grad():
        got, wanted = run(*xs), model(*xs)
    several = isinstance(wanted, tuple)
    for a, b in zip(got if several else [got], wanted if several else [wanted], strict=True):
        if isinstance(b, torch.Tensor):
            same(a, b)
        else:
            assert a == b


def test_the_third_call_is_fast(slow: list[Runner]) -> None:
    model = net()
    run, _ = compiled(model)
    for _ in range(6):
        check(run, model, torch.randn(3, 8))
    assert len(slow) == 2


WRITES: dict[str, Callable[[nn.Module], Any]] = {
    "in place": lambda m: m[1].linear.bias.add_(1),
    "uncounted": lambda m: m[0].linear.weight.data.mul_(2),
    "memory": lambda m: setattr(m[0].linear.weight, "data", torch.rand(8, 8)),
    "object": lambda m: setattr(m[3], "scale", torch.rand(8)),
    "module": lambda m: setattr(m[2], "linear", nn.Linear(8, 8)),
    "store": lambda m: m[1].linear._parameters.update(bias=nn.Parameter(torch.rand(8))),
    "loaded": lambda m: m.load_state_dict(net().state_dict()),
    "assigned": lambda m: m.load_state_dict(net().state_dict(), assign=True),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_change_is_seen_by_the_next_call(slow: list[Runner], write: str) -> None:
    model = net()
    run, _ = compiled(model)
    for _ in range(4):
        check(run, model, torch.randn(3, 8))
    assert len(slow) == 2
    with torch.no_grad():
        WRITES[write](model)
    for _ in range(4):
        check(run, model, torch.randn(3, 8))
    assert len(slow) in (3, 4)  # the weights' set is another one, or the same that was made anew


def test_writes_that_only_refresh_tells(slow: list[Runner]) -> None:
    model = net()
    model[0].linear.weight = nn.Parameter(torch.rand(8, 8))
    wide = nn.Sequential(nn.Linear(8, 4096), nn.Linear(4096, 8), *model).eval()
    run, _ = compiled(wide)
    for _ in range(4):
        check(run, wide, torch.randn(3, 8))
    wide[0].weight.detach().numpy()[77, 1] = 40.0
    sol_dynamo.refresh(wide)
    check(run, wide, torch.randn(3, 8))
    assert len(slow) == 3


def test_models_take_turns(slow: list[Runner]) -> None:
    """In one graph, in any order: no call gets another model's weights."""
    models = [net() for _ in range(3)]
    torch._dynamo.reset()
    backend = Backend()
    runs = [torch.compile(m, backend=backend) for m in models]
    order = [0, 0, 0, 1, 0, 0, 1, 1, 1, 2, 1, 2, 2, 2, 0, 2, 0, 1, 2] * 2
    for i in order:
        check(runs[i], models[i], torch.randn(3, 8))
    assert len(backend.graphs) == 1
    assert len(slow) < len(order)


def test_taking_turns_all_the_time_stops_the_search(
    slow: list[Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = []
    plain = steady.call
    monkeypatch.setattr(steady, "call", lambda *a: searches.append(1) or plain(*a))
    models = [net(), net()]
    torch._dynamo.reset()
    backend = Backend()
    runs = [torch.compile(m, backend=backend) for m in models]
    for n in range(60):
        i = n // 2 % 2  # two calls of each: the way that the second one finds is never taken
        check(runs[i], models[i], torch.randn(3, 8))
    assert len(searches) == fast_path.PATIENCE
    assert len(slow) == 60


def test_an_error_between_fetching_and_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that were fetched last are not those of the program's last call then."""
    first, second = net(), net()
    torch._dynamo.reset()
    backend = Backend()
    runs = [torch.compile(m, backend=backend) for m in (first, second)]
    for _ in range(4):
        check(runs[0], first, torch.randn(3, 8))

    def failing(self: WeightSets, given: list[Any]) -> Any:
        raise MemoryError

    with monkeypatch.context() as m:
        m.setattr(WeightSets, "_find", failing)
        with pytest.raises(MemoryError), torch.no_grad():
            runs[1](torch.randn(3, 8))
    for _ in range(3):
        check(runs[1], second, torch.randn(3, 8))
    assert len(backend.graphs) == 1


def test_threads_with_models_of_their_own() -> None:
    models = [net() for _ in range(4)]
    torch._dynamo.reset()
    backend = Backend()
    runs = [torch.compile(m, backend=backend) for m in models]
    for run, model in zip(runs, models, strict=True):
        check(run, model, torch.randn(3, 8))
    failures: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for n in range(150):
                k = i if n % 50 else (i + 1) % len(models)
                check(runs[k], models[k], torch.randn(3, 8))
        except BaseException as e:
            failures.append(e)

    at_once(work, len(models))
    assert not failures


def test_with_gradients_on_the_way_is_the_slow_path(slow: list[Runner]) -> None:
    model = net().requires_grad_(False)
    run, _ = compiled(model)
    for _ in range(5):
        x = torch.randn(3, 8)
        same(run(x), model(x))
    assert len(slow) == 5


def test_inference_mode(slow: list[Runner]) -> None:
    model = net()
    run, _ = compiled(model)
    with torch.inference_mode():
        for _ in range(5):
            x = torch.randn(3, 8)
            same(run(x), model(x))
    assert len(slow) == 2


class Odd(nn.Module):
    """What AOTAutograd's wrappers have to do with, or the program does not give by itself."""

    def __init__(self, kind: str):
        super().__init__()
        self.blocks = net()
        self.kind = kind
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        z = self.blocks(x)
        if self.kind == "input written":
            y.add_(z)
            return z * 2
        if self.kind == "view of an input":
            return z, y.view(-1)
        if self.kind == "input returned":
            return z, x
        if self.kind == "constants":
            return z, 3, None, x.shape[0]
        if self.kind == "views of one result":
            return z.view(-1), z[1:]
        if self.kind == "the same twice":
            return z, z
        if self.kind == "no input's use":
            return self.blocks[0].linear.weight * 2, z
        if self.kind == "buffer written":
            self.count.add_(1)
            return z + self.count
        return z + y


KINDS = (
    "plain", "input written", "view of an input", "input returned", "constants",
    "views of one result", "the same twice", "no input's use", "buffer written",
)  # fmt: skip
LONG = ("input written", "view of an input", "buffer written")


@pytest.mark.parametrize("one", [False, True], ids=["two", "one"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_surrounds_a_program_is_done_by_each_call(
    slow: list[Runner], kind: str, one: bool
) -> None:
    """`one`: both inputs are one tensor."""
    model = Odd(kind).eval()
    other = copy.deepcopy(model)
    run, _ = compiled(model)
    for _ in range(6):
        x = torch.randn(3, 8)
        y = x if one else torch.randn(3, 8)
        u = x.clone()
        v = u if one else y.clone()
        with torch.no_grad():
            got, wanted = run(x, y), other(u, v)
        if not isinstance(got, tuple):
            got, wanted = (got,), (wanted,)
        for a, b in zip(got, wanted, strict=True):
            if isinstance(b, torch.Tensor):
                same(a, b)
            else:
                assert a == b
        same(x, u)
        same(y, v)
        same(model.count, other.count)
        if kind == "view of an input":
            assert got[1].data_ptr() == y.data_ptr()
        if kind == "input returned":
            assert got[1] is x
        if kind == "views of one result":
            assert got[0].untyped_storage().data_ptr() == got[1].untyped_storage().data_ptr()
    assert len(slow) == (6 if kind in LONG else 2)


def test_results_are_new_at_each_call() -> None:
    model = net()
    run, _ = compiled(model)
    with torch.no_grad():
        xs = [torch.randn(3, 8) for _ in range(5)]
        ys = [run(x) for x in xs]
        for x, y in zip(xs, ys, strict=True):
            same(y, model(x))


def test_a_program_that_calls_aten(slow: list[Runner]) -> None:
    """Its calls of ATen must not see the caller's autocast mode."""

    class Triangular(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.qr(self.blocks(x)).R + 1

    model = Triangular().eval()
    run, _ = compiled(model)
    for _ in range(12):
        check(run, model, torch.randn(8, 8))
    assert len(slow) == 12


def test_autocast() -> None:
    model = net()
    run, _ = compiled(model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(5):
            x = torch.randn(3, 8)
            torch.testing.assert_close(run(x), model(x), rtol=2e-2, atol=2e-2)


def test_prepared_weights_go_with_the_model() -> None:
    model, x = net(), torch.randn(3, 8)
    run, backend = compiled(model)
    for _ in range(4):
        check(run, model, x)
    runner = backend.graphs[0].runner
    assert runner is not None and runner.parts is not None
    entry = ref(runner.parts.sets.last)
    assert entry() is not None
    del model
    torch._dynamo.reset()
    keep, run = run, None
    del keep
    gc.collect()
    assert entry() is None


def test_weights_that_change_often_become_inputs(slow: list[Runner]) -> None:
    model = net()
    run, backend = compiled(model)
    for _ in range(3):
        check(run, model, torch.randn(3, 8))
    before = backend.graphs[0].runner.parts
    for _ in range(12):
        with torch.no_grad():
            model[0].scale.add_(0.1)
        check(run, model, torch.randn(3, 8))
        check(run, model, torch.randn(3, 8))
    assert backend.graphs[0].runner.parts is not before


def test_the_target_says_what_it_cannot_do_again(
    slow: list[Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU's program that has no graph for a call: the slow path is still there."""
    asked = []
    monkeypatch.setattr(NativeExecutable, "again", lambda *a: asked.append(1))
    model = net()
    run, _ = compiled(model)
    for _ in range(30):
        check(run, model, torch.randn(3, 8))
    assert len(slow) == 30
    assert len(asked) == fast_path.PATIENCE


def test_errors_of_a_program_are_the_callers(
    slow: list[Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net()
    run, _ = compiled(model)
    for _ in range(4):
        check(run, model, torch.randn(3, 8))

    def failing(*_: Any) -> None:
        raise OverflowError("enough")

    with monkeypatch.context() as m:
        m.setattr(NativeExecutable, "again", failing)
        for _ in range(3):
            with pytest.raises(OverflowError, match="enough"), torch.no_grad():
                run(torch.randn(3, 8))
    check(run, model, torch.randn(3, 8))
    assert len(slow) == 2


def test_calls_by_themselves(slow: list[Runner], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who calls without Dynamo, whose guards keep some of this out."""
    found: list[tuple[Callable, WeightSets]] = []
    given: list[tuple[Any, ...]] = []
    plain = steady.call

    def call(guard: Any, sets: WeightSets, *more: Any) -> Callable:
        fast = plain(guard, sets, *more)
        found.append((fast, sets))
        return lambda args: given.append(args) or fast(args)

    monkeypatch.setattr(steady, "call", call)
    model = net()
    run, _ = compiled(model)
    for _ in range(4):
        check(run, model, torch.randn(3, 8))
    ((fast, sets),), args = found, given[-1]
    with torch.no_grad():
        same(fast(args)[0], model(args[-1]))
        assert fast((net(), *args[1:])) is None
        with torch.enable_grad():
            assert fast(args) is None
        last, sets._last = sets.last, None
        assert fast(args) is None
        sets._last = last
        same(fast(args)[0], model(args[-1]))
        with pytest.raises(TypeError):
            fast(*args)


def test_a_set_of_weights_goes_with_one_of_them(slow: list[Runner]) -> None:
    """What calls it fast does not hold it."""
    model = net()
    run, backend = compiled(model)
    for _ in range(6):
        check(run, model, torch.randn(3, 8))
    assert len(slow) == 2
    entry = ref(backend.graphs[0].runner.compiled.sets.last)
    model[0].linear.weight = nn.Parameter(torch.rand(8, 8))
    assert entry() is None
    check(run, model, torch.randn(3, 8))


def test_calls_hold_nothing(slow: list[Runner]) -> None:
    model, x = net(), torch.randn(3, 8)
    run, backend = compiled(model)
    for _ in range(4):
        check(run, model, x)
    made = backend.graphs[0].runner.compiled
    sets, executable = made.sets, made.executable
    assert sets.last is not None
    # (torch itself takes eight references to None a call)
    objects = [False, x, sets, sets.last, sets.last.prepared, sets.last.stale, model, executable]

    def counts() -> list[int]:
        return [sys.getrefcount(o) for o in objects]

    before = counts()
    with torch.no_grad():
        for _ in range(200):
            y = run(x)
    gone = ref(y)
    del y
    assert gone() is None and len(slow) == 2
    grown = [a - b for a, b in zip(counts(), before, strict=True)]
    assert max(map(abs, grown)) < 100, grown


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "broken"])
def test_a_model_that_leaves_another_grad_mode(broken: bool) -> None:
    """A wrapper of AOTAutograd sets it, which shows in no tensor."""

    class Switching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.blocks(x)
            torch.set_grad_enabled(True)
            if broken:
                torch._dynamo.graph_break()
            return y + self.blocks[0].linear.bias

    model = Switching().eval()
    found = []
    for fetches in (False, True):
        torch._dynamo.reset()
        run = torch.compile(model, backend=Backend(fetches=fetches))
        for _ in range(6):
            with torch.no_grad():
                y = run(torch.randn(3, 8))
                found.append((fetches, torch.is_grad_enabled(), y.requires_grad))
    # as the slow path does, which with older versions of torch loses the mode
    assert len({after for _, *after_ in found for after in [tuple(after_)]}) == 1


@pytest.mark.parametrize("weights", [40, 69, 100, 150])
def test_samples_that_take_turns_are_believed(weights: int) -> None:
    """A change that one look sees is not lost to the next one, which would look elsewhere."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.ParameterList(nn.Parameter(torch.ones(128)) for _ in range(weights))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for p in self.w:
                x = x * (p * p)
            return x

    model, x = Wide().eval(), torch.ones(2, 128)
    run, _ = compiled(model)
    with torch.no_grad():
        for n in (0, 1, 7, 14, 15):
            for _ in range(4):
                run(x)
            at = 2 * (63 * n // 15)  # a sampled word, which torch does not see written
            model.w[3].data[at : at + 2] *= 3.0
            old = 0
            while old < 100 and not torch.equal(run(x), model(x)):
                old += 1
            assert old < 15, n

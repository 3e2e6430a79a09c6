"""Decision 2: whatever happens to weights after compiling, the next result uses the new ones.

One file, since each test is one way in which weights change, and the list is read as a whole.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import threading
from collections.abc import Callable
from weakref import ref

import pytest
import torch
from torch import nn

import sol_dynamo
from sol_dynamo.backend import sol
from sol_dynamo.runtime import tensors, weights
from sol_dynamo.runtime.weights import WeightSets


def network() -> nn.Module:
    torch.manual_seed(0)
    m = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 10),
    ).eval()
    m[1].running_mean.normal_()
    m[1].running_var.uniform_(0.5, 2)
    return m


X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def step(m: nn.Module) -> None:
    optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
    m(X).square().sum().backward()
    optimizer.step()


def load(m: nn.Module) -> None:
    state = {k: v + 0.25 if v.is_floating_point() else v for k, v in m.state_dict().items()}
    m.load_state_dict(state)


def data_assigned(m: nn.Module) -> None:
    m[0].weight.data = torch.randn_like(m[0].weight)


def data_written(m: nn.Module) -> None:
    m[0].weight.data.mul_(2)


def copied(m: nn.Module) -> None:
    with torch.no_grad():
        m[4].weight.copy_(torch.randn_like(m[4].weight))


def numpy_written(m: nn.Module) -> None:
    m[4].weight.detach().numpy()[3, 500] += 5
    sol_dynamo.refresh(m)


def submodule_replaced(m: nn.Module) -> None:
    m[4] = nn.Linear(1024, 10)


def statistics_updated(m: nn.Module) -> None:
    m.train()
    with torch.no_grad():
        m(X)
    m.eval()


CHANGES = [
    step,
    load,
    data_assigned,
    data_written,
    copied,
    numpy_written,
    submodule_replaced,
    statistics_updated,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("way", ["compile", "optimize"])
def test_change_is_seen(change, way):
    torch._dynamo.reset()
    m = network()
    f = torch.compile(m, backend=sol)
    if way == "optimize":
        f = sol_dynamo.optimize(m, X.size())
        m = f._model
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(f(X), m(X), rtol=1e-4, atol=1e-4)
    before = m(X).detach().clone()
    change(m)
    with torch.no_grad():
        assert not torch.allclose(m(X), before)
        torch.testing.assert_close(f(X), m(X), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(f(X), m(X), rtol=1e-4, atol=1e-4)


def test_four_equal_blocks_share_one_compile():
    """block.compile() on equal blocks is one graph called with four sets of weights."""
    torch._dynamo.reset()
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(32, 32)

        def forward(self, x):
            return torch.relu(self.linear(x))

    blocks = nn.Sequential(*(Block() for _ in range(4))).eval()
    reference = copy.deepcopy(blocks)
    for b in blocks:
        b.compile(backend=sol)
    x = torch.randn(5, 32)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(blocks(x), reference(x))
        blocks[2].linear.weight.mul_(3)
        reference[2].linear.weight.mul_(3)
        torch.testing.assert_close(blocks(x), reference(x))
    assert 1 <= len(sol.graphs) <= 4


def test_freed_address_is_not_mistaken():
    """A new weight at an old one's address is a new weight."""
    torch._dynamo.reset()
    m = nn.Linear(64, 64).eval()
    f = torch.compile(m, backend=sol)
    x = torch.randn(3, 64)
    with torch.no_grad():
        f(x)
        for _ in range(8):
            m.weight = None
            gc.collect()
            m.weight = nn.Parameter(torch.randn(64, 64))
            torch.testing.assert_close(f(x), m(x))


def test_inference_tensors():
    """Weights without a version counter are watched by their elements."""
    torch._dynamo.reset()
    with torch.inference_mode():
        m = network()
        f = torch.compile(m, backend=sol)
        torch.testing.assert_close(f(X), m(X), rtol=1e-4, atol=1e-4)
        m[0].weight.mul_(2)
        torch.testing.assert_close(f(X), m(X), rtol=1e-4, atol=1e-4)


# ==== WeightSets alone: what was prepared is never used after weights change, however they do ====


@pytest.fixture(params=["native", "python"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setattr(tensors, "_native", lambda: None)
    return request.param


class Counted:
    """Three times the weights, packed; counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, ws: list[torch.Tensor]) -> list[torch.Tensor]:
        self.calls += 1
        assert not torch.is_grad_enabled() and not any(w.requires_grad for w in ws)
        return [(w * 3).contiguous() for w in ws]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 20, 3, bias=False)
        self.bn = nn.BatchNorm2d(20)
        self.fc = nn.Linear(20, 150)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))


def listed(model: nn.Module) -> list[torch.Tensor]:
    """In a compiled graph: what evaluation uses, so not `num_batches_tracked`."""
    return [*model.parameters(), *(b for b in model.buffers() if b.dim())]


def right(sets: WeightSets, model: nn.Module) -> bool:
    ws = listed(model)
    prepared = sets.get(ws)
    return all(
        torch.equal(p, w.detach() * 3) and p.dtype == w.dtype
        for p, w in zip(prepared, ws, strict=True)
    )


# ---- Each way in which weights change ------------------------------------------------------------


def backward(model: nn.Module) -> None:
    model(torch.randn(4, 3, 6, 6)).square().sum().backward()


def stepped(optimizer: type[torch.optim.Optimizer], **options) -> Callable[[Net], None]:
    def change(model: Net) -> None:
        backward(model)
        optimizer(model.parameters(), lr=0.01, **options).step()

    return change


def fused_step_of_few_elements(model: Net) -> None:
    backward(model)
    model.conv.weight.grad = torch.zeros_like(model.conv.weight)
    model.conv.weight.grad[7, 1, 1, 1] = 1
    versions = [p._version for p in model.parameters()]
    torch.optim.SGD([model.conv.weight], lr=0.01, fused=True).step()
    assert [p._version for p in model.parameters()] == versions  # or it is no test


def load_state_dict(model: Net) -> None:
    model.load_state_dict(Net().state_dict())


def load_state_dict_assign(model: Net) -> None:
    model.load_state_dict(Net().state_dict(), assign=True)


def set_data(model: Net) -> None:
    model.fc.weight.data = torch.randn(150, 20)


def set_data_to_a_view(model: Net) -> None:
    model.conv.weight.data = model.conv.weight.data.transpose(2, 3)


def data_mul(model: Net) -> None:
    model.fc.weight.data.mul_(2)


def exponential_average(model: Net) -> None:
    for p, q in zip(model.parameters(), Net().parameters(), strict=True):
        p.data.mul_(0.99).add_(q.data, alpha=0.01)


def copy_(model: Net) -> None:
    with torch.no_grad():
        model.fc.weight.copy_(torch.randn(150, 20))


def one_element(model: Net) -> None:
    with torch.no_grad():
        model.fc.weight[77, 7] = 5


def one_element_in_inference_mode(model: Net) -> None:
    with torch.inference_mode():
        model.fc.weight[77, 7] = 5


def through_detach(model: Net) -> None:
    model.fc.weight.detach()[3, 3] = 9


def initialize(model: Net) -> None:
    nn.init.orthogonal_(model.fc.weight)


def numpy_write_all(model: Net) -> None:
    model.fc.weight.detach().numpy()[:] *= 2


def replaced_module(model: Net) -> None:
    model.fc = nn.Linear(20, 150)


def replaced_parameter(model: Net) -> None:
    model.fc.weight = nn.Parameter(torch.randn(150, 20))


def batch_norm_statistics(model: Net) -> None:
    model.train()
    version = model.bn.running_var._version
    model(torch.randn(4, 3, 6, 6))
    assert model.bn.running_var._version == version  # torch does not count these writes
    model.eval()


def to_half(model: Net) -> None:
    model.half()


def to_channels_last(model: Net) -> None:
    model.to(memory_format=torch.channels_last)
    model.conv.weight.data.mul_(2)


def share_memory(model: Net) -> None:
    model.share_memory()
    model.fc.bias.data.mul_(2)


def storage_swapped(model: Net) -> None:  # as sharded training does
    storage = model.fc.weight.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    storage.resize_(size)
    ctypes.memset(storage.data_ptr(), 0, size)


def set_to_other_memory(model: Net) -> None:
    with torch.no_grad():
        model.fc.weight.set_(torch.randn(150, 20))


def vector_to_parameters(model: Net) -> None:
    flat = nn.utils.parameters_to_vector(model.parameters())
    nn.utils.vector_to_parameters(flat * 2, model.parameters())


WRITES = [
    stepped(torch.optim.SGD), stepped(torch.optim.AdamW, fused=True),
    stepped(torch.optim.Adam, fused=True), stepped(torch.optim.SGD, fused=True),
    stepped(torch.optim.AdamW, foreach=True),
    fused_step_of_few_elements, load_state_dict, load_state_dict_assign, set_data,
    set_data_to_a_view, data_mul, exponential_average, copy_, one_element,
    one_element_in_inference_mode, through_detach, initialize, numpy_write_all, replaced_module,
    replaced_parameter, batch_norm_statistics, to_half, to_channels_last, share_memory,
    storage_swapped, set_to_other_memory, vector_to_parameters,
]  # fmt: skip


@pytest.mark.parametrize("change", WRITES)
@pytest.mark.parametrize("calls", [1, 5])
def test_a_change_is_seen_at_the_next_call(how, change, calls):
    torch.manual_seed(0)
    model, prepare = Net().eval(), Counted()
    sets = WeightSets(prepare)
    for _ in range(calls):
        assert right(sets, model)
    assert prepare.calls == 1
    change(model)
    assert right(sets, model)
    assert prepare.calls == 2
    assert right(sets, model) and prepare.calls == 2


def test_numpy_write_of_one_element_and_refresh(how):
    model, other = Net().eval(), Net().eval()
    prepare = Counted()
    sets = WeightSets(prepare)
    assert right(sets, model) and right(sets, other) and prepare.calls == 2
    model.fc.weight.detach().numpy()[77, 7] = 123
    weights.refresh(model)
    assert right(sets, other) and prepare.calls == 2
    assert right(sets, model) and prepare.calls == 3
    weights.refresh()
    assert right(sets, model) and right(sets, other) and prepare.calls == 5
    # a view in the same memory stands for the weight
    model.fc.weight.detach().numpy()[77, 7] = 124
    weights.refresh_all([model.fc.weight.data[3:]])
    assert right(sets, model) and right(sets, other) and prepare.calls == 6


def test_refresh_of_what_nobody_prepared():
    weights.refresh(nn.Linear(2, 2))
    sets = WeightSets(Counted())
    sets.refresh([torch.ones(2).to_sparse(), torch.ones(0)])


def test_address_freed_and_reused(how):
    prepare = Counted()
    sets = WeightSets(prepare)
    old, objects = set(), set()
    back = 0
    for i in range(40):
        w = torch.full((40, 40), float(i))
        back += w.data_ptr() in old or id(w) in objects
        assert sets.get([w])[0][7, 7] == 3 * i
        old.add(w.data_ptr())
        objects.add(id(w))
        del w
    assert back and len(sets) == 0


def test_parameter_data_freed_and_reused(how):
    sets = WeightSets(Counted())
    p = nn.Parameter(torch.zeros(40, 40))
    for i in range(40):  # the entry keeps the memory: a new one cannot have its address
        p.data = torch.full((40, 40), float(i))
        assert sets.get([p])[0][7, 7] == 3 * i


def test_pruned_weights(how):
    """Only elements that are not zero can show a scaling; masks also leave negative zeros."""
    model = Net().eval()
    with torch.no_grad():
        mask = torch.zeros(150, 20)
        mask[91, 13] = 1
        model.fc.weight.mul_(mask)
    sets = WeightSets(Counted())
    for _ in range(4):
        assert right(sets, model)
        model.fc.weight.data.mul_(2)
        assert right(sets, model)


def test_inference_tensors_are_watched_entirely(how):
    with torch.inference_mode():
        model = Net().eval()
    prepare = Counted()
    sets = WeightSets(prepare)
    assert right(sets, model) and right(sets, model) and prepare.calls == 1
    with torch.inference_mode():
        model.fc.weight[77, 7] = 5
    assert right(sets, model) and right(sets, model) and prepare.calls == 2
    assert sets.unstable == set(range(len(listed(model))))  # they are better inputs
    assert not any(p.is_inference() for p in sets.get(listed(model)))


def test_prepared_tensors_outlive_inference_mode(how):
    sets = WeightSets(Counted())
    model = Net().eval()
    with torch.inference_mode():
        assert right(sets, model)
    x = torch.ones(150, 20, requires_grad=True)
    (sets.get(listed(model))[3] * x).sum().backward()
    assert x.grad is not None


def test_tied_and_shared_weights(how):
    sets = WeightSets(Counted())
    p = nn.Parameter(torch.randn(40, 40))
    ws = [p, p, p.data[3:], p.data.t()]
    for change in (lambda: None, lambda: p.data.mul_(2), lambda: ws[3].add_(1)):
        change()
        assert all(torch.equal(a, b * 3) for a, b in zip(sets.get(ws), ws, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8])
def test_dtypes(how, dtype):
    sets = WeightSets(Counted())
    w = torch.arange(1, 2001).remainder(30).add(1).to(dtype)
    for _ in range(2):
        assert torch.equal(sets.get([w])[0], w * 3)
        w.data.add_(1)
        assert torch.equal(sets.get([w])[0], w * 3)


def test_unusual_tensors():
    class Sub(torch.Tensor):
        pass

    from torch._subclasses.fake_tensor import FakeTensorMode

    prepare = Counted()
    sets = WeightSets(lambda ws: prepare([w for w in ws if w.layout is torch.strided]))
    with FakeTensorMode():
        fake = [torch.ones(3), nn.Parameter(torch.ones(300))]
        assert sets.get(fake) is sets.get(fake)
    ws = [torch.randn(9).as_subclass(Sub), torch.eye(3).to_sparse(), torch.empty(3, device="meta")]
    assert sets.get(ws) is sets.get(ws) and prepare.calls == 2
    ws[0].data.mul_(2)
    assert torch.equal(sets.get(ws)[0], ws[0] * 3)
    assert WeightSets(prepare).get([]) == []


# ---- Sets ----------------------------------------------------------------------------------------


def test_equal_blocks_have_a_set_each(how):
    blocks = [Net().eval() for _ in range(4)]
    prepare = Counted()
    sets = WeightSets(prepare)
    for _ in range(3):
        assert all(right(sets, b) for b in blocks)
    assert prepare.calls == 4 == len(sets)
    blocks[2].fc.weight.data.mul_(2)
    assert all(right(sets, b) for b in blocks) and prepare.calls == 5
    assert sets.unstable == set()


def test_the_last_used_are_kept(caplog):
    blocks = [Net().eval() for _ in range(4)]
    prepare = Counted()
    sets = WeightSets(prepare, limit=3)
    for i in (0, 1, 2, 0, 3):  # 3 takes the place of 1
        assert right(sets, blocks[i])
    assert prepare.calls == 4 and len(sets) == 3
    for i in (0, 2, 3):
        assert right(sets, blocks[i])
    assert prepare.calls == 4 and not caplog.records
    assert right(sets, blocks[1]) and prepare.calls == 5
    assert "weight_sets" in caplog.text


def test_nothing_is_kept_of_dead_weights(how):
    sets = WeightSets(Counted())
    models = [Net().eval() for _ in range(3)]
    assert all(right(sets, m) for m in models)
    prepared = [ref(p) for p in sets.get(listed(models[2]))]
    copy.deepcopy(models[2]).state_dict()
    del models[2]
    gc.collect()
    assert len(sets) == 2 and all(p() is None for p in prepared)
    assert right(sets, models[0]) and right(sets, models[1])
    models[0].fc = nn.Linear(20, 150)  # one weight is enough
    gc.collect()
    assert len(sets) == 1 and right(sets, models[0])


def test_weights_given_back_as_they_are_do_not_live_forever(how):
    sets = WeightSets(lambda ws: ws)  # as an executor that reads some of them unpacked
    model = Net().eval()
    assert torch.equal(sets.get(listed(model))[0], model.conv.weight)
    gone = ref(model.conv.weight)
    del model
    gc.collect()
    assert gone() is None and len(sets) == 0


def test_sets_die_with_the_graph():
    sets = WeightSets(Counted())
    model = Net().eval()
    right(sets, model)
    gone = ref(sets)
    del sets
    gc.collect()
    assert gone() is None
    del model


def test_positions(how):
    a, b = torch.randn(70), torch.randn(80)
    prepare = Counted()
    sets = WeightSets(prepare, positions=[2, 0])
    for x in (torch.ones(3), torch.ones(9)):
        assert torch.equal(sets.get([a, x, b])[0], b * 3)
    assert prepare.calls == 1
    a.data.mul_(2)
    assert torch.equal(sets.get([a, None, b])[1], a * 3) and prepare.calls == 2


def test_a_failed_preparation_leaves_nothing():
    model = Net().eval()
    prepare = Counted()

    def fails_once(ws):
        if not prepare.calls:
            prepare.calls += 1
            raise ValueError("no memory")
        return prepare(ws)

    sets = WeightSets(fails_once)
    with pytest.raises(ValueError):
        right(sets, model)
    assert len(sets) == 0 and right(sets, model)


def test_a_change_while_preparing_is_seen(how):
    p = nn.Parameter(torch.ones(300))

    def slow(ws):
        made = [w * 3 for w in ws]
        if p[0] == 1:
            p.data.mul_(2)  # another thread's optimizer
        return made

    sets = WeightSets(slow)
    sets.get([p])
    assert sets.get([p])[0][0] == 6


# ---- Weights that keep changing ------------------------------------------------------------------


def test_training_is_unstable_and_evaluation_after_each_epoch_is_not(how):
    model = Net().eval()
    sets = WeightSets(Counted())
    for _ in range(5):
        for _ in range(20):
            assert right(sets, model)
        stepped(torch.optim.SGD)(model)
    assert sets.unstable == set()
    for _ in range(3):
        assert right(sets, model)
        stepped(torch.optim.SGD)(model)
    assert right(sets, model)
    assert sets.unstable == {0, 1, 2, 3, 4}  # the parameters, not batch norm's statistics


def test_one_weight_that_keeps_changing(how):
    model, cache = Net().eval(), torch.zeros(100, 10)
    ws = [*listed(model), cache]
    sets = WeightSets(Counted())
    for i in range(4):
        assert sets.get(ws)[-1].sum() == 3 * 10 * i
        cache[i] = 1
    assert sets.unstable == {len(ws) - 1}


def test_a_buffer_that_is_replaced_at_each_call(how):
    model = Net().eval()
    sets = WeightSets(Counted())
    cache = torch.zeros(1, 10)
    for i in range(5):
        assert sets.get([*listed(model), cache])[-1].sum() == 3 * 10 * i
        cache = torch.cat([cache, torch.ones(1, 10)])
    assert sets.unstable == {len(listed(model))}


def test_two_parameter_sets_in_training_count_apart(how):
    blocks = [Net().eval() for _ in range(4)]
    sets = WeightSets(Counted())
    for block in blocks:
        assert right(sets, block)
    for block in blocks:
        stepped(torch.optim.SGD)(block)
    assert all(right(sets, b) for b in blocks)
    assert sets.unstable == set()  # each changed once


# ---- Threads -------------------------------------------------------------------------------------


def test_threads(how):
    blocks = [Net().eval() for _ in range(3)]
    sets = WeightSets(Counted(), limit=2)
    wrong: list[BaseException] = []

    def use(i: int) -> None:
        try:
            mine = Net().eval()
            for n in range(60):
                assert right(sets, blocks[(i + n) % 3])
                assert right(sets, mine)
                if n % 7 == i:
                    mine.fc.weight.data.mul_(1.5)
                if n % 11 == i:
                    mine = Net().eval()  # the old one's entry goes, from this thread
                if n % 13 == i:
                    weights.refresh(mine)
        except BaseException as e:
            wrong.append(e)

    running = [threading.Thread(target=use, args=(i,)) for i in range(4)]
    for t in running:
        t.start()
    for t in running:
        t.join()
    assert not wrong, wrong


def test_a_weight_that_keeps_changing_becomes_an_input():
    """Packing it again at each call would cost more than it saves; results are right throughout."""
    model = torch.nn.Sequential(torch.nn.Conv2d(5, 19, 3, padding=1), torch.nn.Conv2d(19, 7, 1))
    f = torch.compile(model.eval(), backend=sol)
    x = torch.rand(2, 5, 9, 8)
    torch._dynamo.reset()
    with torch.no_grad():
        f(x)
        first = sol.graphs[-1].compiled
        for _ in range(8):
            model[0].weight.add_(0.25)
            torch.testing.assert_close(f(x), model(x))
    second = sol.graphs[-1].compiled
    assert first.program.buffers["arg0_1"].scope == "weight"
    assert second.program.buffers["arg0_1"].scope == "input"
    assert [b.scope for b in second.program.buffers.values() if b.scope == "weight"]  # the others


def test_no_dispatch_mode_sees_weights_prepared():
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            seen.append(op)
            return op(*args, **(kwargs or {}))

    sets = WeightSets(lambda weights: [weights[0] + 1])
    with Seen():
        (made,) = sets.get([torch.ones(2)])
        made + made
    assert made.tolist() == [2, 2] and seen.count(torch.ops.aten.add.Tensor) == 1


def test_layouts_are_told_as_torch_has_them():
    """Shapes, strides and dtypes of each; nothing else, and none of the calls before."""
    from sol_dynamo.compat import Layouts

    assert Layouts([]).fit([])
    layouts = Layouts([((2, 3), (3, 1), torch.float32), ((), (), torch.int64)])
    x, n = torch.ones(2, 3), torch.tensor(1)
    for _ in range(2):
        assert layouts.fit([x, n])
        assert layouts.fit([nn.Parameter(x), n]) and layouts.fit([x[:], n])
        with torch.inference_mode():
            assert layouts.fit([torch.zeros(2, 3), n])
        for other in (
            torch.ones(3, 2).t(), torch.ones(2, 4)[:, :3], torch.ones(3, 3), torch.ones(2, 3, 1),
            x.double(), x.int(),
        ):  # fmt: skip
            assert not layouts.fit([other, n])
        assert not layouts.fit([x, n.int()]) and not layouts.fit([x, n[None]])
    x.resize_(3, 2)
    assert not layouts.fit([x, n])

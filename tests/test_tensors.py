"""Native reading of tensors agrees with Python's, and a snapshot sees every change it promises."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from sol_dynamo.runtime import tensors
from sol_dynamo.runtime.tensors import Counts, Snapshot, pointers


@pytest.fixture(params=["native", "python"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything must hold for both implementations."""
    if request.param == "python":
        monkeypatch.setattr(tensors, "_native", lambda: None)
    else:
        assert tensors._native() is not None, "the layout was not recognized here"
    return request.param


class Plain(torch.Tensor):
    pass


def kinds() -> list[torch.Tensor]:
    base = torch.randn(64, 48)
    dtypes = [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.int64]
    dtypes += [torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.uint8]
    with torch.inference_mode():
        uncounted = torch.randn(5, 5)
    return [
        *(torch.ones(3, 5, dtype=d) for d in dtypes),
        base, base[3:], base[:, 7], base.t(), base.expand(2, 64, 48), base.data[5:],
        nn.Parameter(base), nn.Parameter(base[1:]), nn.Parameter(base, requires_grad=False),
        nn.Parameter(base) * 2, torch.tensor(3.0), torch.empty(0), torch.empty(4, 0, 2),
        torch.randn([1, 2] * 4), torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.from_numpy(np.arange(7)), uncounted, uncounted[1:], base.to(torch.complex64).conj(),
        Plain(base), torch.empty(3, device="meta"), nn.Buffer(base[2:]),
    ]  # fmt: skip


# ---- Pointers ------------------------------------------------------------------------------------


def test_pointers_are_data_ptr(how):
    ts = kinds()
    out = (ctypes.c_void_p * len(ts))()
    for i in range(len(ts)):
        out[i] = 1
    pointers(ts, out)
    assert [p or 0 for p in out] == [t.data_ptr() for t in ts]
    pointers([], out)


def test_pointers_of_what_has_none(how):
    out = (ctypes.c_void_p * 2)()
    with pytest.raises((RuntimeError, NotImplementedError)):
        pointers([torch.ones(2), torch.ones(2).to_sparse()], out)
    with pytest.raises(AttributeError):
        pointers([torch.ones(2), 3], out)  # type: ignore[list-item]

    def under_vmap(x):
        try:
            pointers([x], out)
        except RuntimeError:
            return x
        raise AssertionError("a wrapper of vmap has no memory")

    torch.vmap(under_vmap)(torch.ones(3))


# ---- The layout ----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [-8, -2, 8, 1 << 40])
@pytest.mark.parametrize("field", tensors._OFFSETS)
def test_a_wrong_offset_is_noticed(field, by, monkeypatch):
    native = tensors._native()
    assert native is not None
    wrong = tensors.Layout.from_buffer_copy(native.layout)
    setattr(wrong, field, getattr(wrong, field) + by)
    monkeypatch.setattr(tensors, "_calibrate", lambda: wrong)
    try:
        with pytest.raises(tensors.LayoutError):
            tensors._Native()
    finally:
        monkeypatch.undo()
        tensors._Native()  # the library is one for the process: give it the right layout again


def test_an_unknown_layout_means_python(monkeypatch, caplog):
    def fail() -> tensors.Layout:
        raise tensors.LayoutError("2 places look like the dtype")

    monkeypatch.setattr(tensors, "_calibrate", fail)
    tensors._native.cache_clear()
    try:
        with caplog.at_level("INFO", logger="sol_dynamo"):
            assert not Snapshot([torch.ones(2)]).native
        assert "2 places look like the dtype" in caplog.text
    finally:
        tensors._native.cache_clear()


def test_the_callers_modes_do_not_matter():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            return f(*args, **(kwargs or {}))

    tensors._native.cache_clear()
    with Mode(), torch.inference_mode(), torch.device("meta"):
        assert tensors._native() is not None


def test_memory_is_probed_without_faults():
    block = mmap.mmap(-1, 4 * mmap.PAGESIZE)  # what lies behind it may or may not be readable
    with tensors._memory() as memory:
        last = ctypes.addressof(ctypes.c_char.from_buffer(block)) + 4 * mmap.PAGESIZE - 24
        assert memory.read(last, 256)[:24] == bytes(24) and len(memory.words(last, 64)) >= 3
        assert memory.read(0, 64) == b"" and memory.read(1 << 46, 8) == b""
        text = ctypes.create_string_buffer(b"some bytes")
        assert memory.read(ctypes.addressof(text), 10) == b"some bytes"


CHECK = """
import torch
from sol_dynamo.runtime import tensors
w = [torch.ones(100) for _ in range(3)]
s = tensors.Snapshot(w)
assert s.native is {native} and s.changed(w) == -1
w[1].data.mul_(2)
assert s.changed(w) == 1
"""


@pytest.mark.parametrize(
    "compiler,native",
    [
        pytest.param("zig", True, marks=pytest.mark.skipif(not find_spec("ziglang"), reason="-")),
        ("none", False),
    ],
)
def test_other_hosts(compiler, native, tmp_path):
    environment = {**os.environ, "PATH": "/nonexistent", "SOL_CACHE_DIR": str(tmp_path)}
    environment.pop("SOL_CC", None)
    if compiler == "none":
        environment["SOL_CC"] = "/no/compiler"
    code = CHECK.format(native=native)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


# ---- Snapshots -----------------------------------------------------------------------------------


def test_nothing_changed(how):
    ts = kinds()
    for weights in (ts, [t for t in ts if type(t) is not Plain], [], ts[:1], [ts[3], ts[3]]):
        snapshot = Snapshot(weights)
        assert snapshot.native is (how == "native" and not any(type(t) is Plain for t in weights))
        for _ in range(20):
            assert snapshot.changed(weights) == -1
        assert snapshot.changes(weights) == [] and snapshot.calls == 20


def test_sparse_and_fake(how):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.ones(3, 4)
    weights = [torch.ones(5), torch.ones(3).to_sparse(), fake, torch.ones(2, 2).to_sparse_csr()]
    snapshot = Snapshot(weights)
    assert snapshot.changed(weights) == -1 and not snapshot.native
    assert snapshot.changed([*weights[:3], torch.ones(2, 2).to_sparse_csr()]) == 3


def weight(kind: str) -> torch.Tensor:
    big = torch.randn(256, 256)
    made = {
        "large": lambda: big,
        "large, mostly zeros": lambda: big * (torch.rand(256, 256) < 0.001),
        "negative zeros": lambda: -torch.zeros(256, 256) + 0 * big.abs().neg(),
        "small": lambda: torch.randn(8, 8),
        "scalar": lambda: torch.tensor(1.5),
        "odd bytes": lambda: torch.arange(1, 68, dtype=torch.int8) % 50 + 1,
        "half": lambda: big.half(),
        "bfloat16": lambda: big.bfloat16(),
        "complex": lambda: big.to(torch.complex128),
        "transposed": lambda: big.t(),
        "channels last": lambda: torch.randn(8, 8, 3, 3).to(memory_format=torch.channels_last),
        "columns": lambda: big[:, 5:77],
        "one column": lambda: big[:, 9],
        "short column": lambda: big[:60, 9],
        "bytes of a row": lambda: torch.randint(1, 9, (999, 999), dtype=torch.uint8)[::7, ::3],
        "7 dimensions": lambda: torch.randn(2, 3, 2, 3, 2, 3, 2),
        "unaligned": lambda: torch.randn(1000)[1:],
        "parameter": lambda: nn.Parameter(big),
    }
    return made[kind]()


WEIGHTS = [
    "large", "large, mostly zeros", "small", "scalar", "odd bytes", "half", "bfloat16", "complex",
    "transposed", "channels last", "columns", "one column", "short column", "bytes of a row",
    "7 dimensions", "unaligned", "parameter",
]  # fmt: skip


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_change_of_all_elements_shows_at_the_next_call(how, kind):
    # however many calls have turned the samples before
    torch.manual_seed(0)
    others = [torch.randn(33, 33) for _ in range(200)]
    for calls in range(17):
        w = weight(kind)
        weights = [*others, w]
        snapshot = Snapshot(weights)
        for _ in range(calls):
            assert snapshot.changed(weights) == -1
        version = w._version
        w.data.mul_(2)
        assert w._version == version
        assert snapshot.changed(weights) == 200 and snapshot.changes(weights) == [200]
        w.data.copy_(w.data / 2)
        assert snapshot.changed(weights) == -1


def test_zeros_of_either_sign_are_no_samples(how):
    w = weight("negative zeros")
    assert w.signbit().all()
    w[200, 3] = 1.0
    many = [torch.ones(65) for _ in range(1500)]  # so many that samples take turns
    for weights in ([w], [w, *many]):
        snapshot = Snapshot(weights)
        w.data.mul_(2)  # changes one element, the only one that it can
        assert snapshot.changed(weights) == 0


@pytest.mark.parametrize("kind", ["small", "scalar", "short column"])
def test_a_change_of_one_element_of_a_small_weight_shows(how, kind):
    for i in range(weight(kind).numel()):
        weights = [torch.ones(3), weight(kind)]
        snapshot = Snapshot(weights)
        weights[1].data[np.unravel_index(i, tuple(weights[1].shape))] += 1
        assert snapshot.changed(weights) == 1


@pytest.mark.parametrize("where", [0, -1])
def test_first_and_last_element_of_a_large_weight(how, where):
    many = [torch.rand(1001) + 1 for _ in range(2000)]  # so many that samples take turns
    for weights, calls in (([torch.rand(100_001) + 1], 1), (many, 15)):
        snapshot = Snapshot(weights)
        weights[0].data[where] += 1
        assert 0 in [snapshot.changed(weights) for _ in range(calls)]
        assert snapshot.changes(weights) == [0]


def test_memory_between_the_elements_is_not_the_weights(how):
    table = torch.randn(300, 300)
    w = table[:, 10:20]
    snapshot = Snapshot([w])
    table.data[:, :10] += 1
    table.data[:, 20:] += 1
    assert snapshot.changed([w]) == -1


def data_shares_storage(w):
    w.data = w.data.t()


def moves_on(w):
    w.data = w.data[1:]


def other_data(w):
    w.data = w.data.clone()


def other_dtype(w):
    w.data = w.data.view(torch.int32) if not w.requires_grad else w.data.double()


def storage_grows(w):
    w.untyped_storage().resize_(w.untyped_storage().nbytes() + 64)


def storage_goes(w):
    w.untyped_storage().resize_(0)


def shared_memory(w):
    w.share_memory_()


def set_(w):
    w.data.set_(torch.randn(20, 20))


def counted(w):
    with torch.no_grad():
        w[3, 4] = 0


def through_a_view(w):
    with torch.no_grad():
        w[3].view(-1)[2:4].add_(1)


def numpy_writes_all(w):
    w.detach().numpy()[:] += 1


METADATA = [
    data_shares_storage, moves_on, other_data, other_dtype, storage_grows, storage_goes,
    shared_memory, counted, through_a_view, numpy_writes_all,
]  # fmt: skip


@pytest.mark.parametrize("change", METADATA)
@pytest.mark.parametrize("make", [torch.Tensor, nn.Parameter])
def test_changes(how, change, make):
    weights = [torch.randn(7), make(torch.randn(20, 20)), torch.randn(9, 99)]
    snapshot = Snapshot(weights)
    assert snapshot.changed(weights) == -1
    change(weights[1])
    assert snapshot.changed(weights) == 1 and snapshot.changes(weights) == [1]


def test_dimensions_outside_the_object(how):
    w = torch.randn(2, 3, 2, 3, 2, 3)
    snapshot = Snapshot([w])
    w.data = w.data.transpose(1, 3)  # equal sizes, other strides
    assert snapshot.changed([w]) == 0


def test_inference_tensors_are_compared_entirely(how):
    with torch.inference_mode():
        w = torch.randn(100, 101)
        weights = [torch.ones(3), w]
        snapshot = Snapshot(weights)
        for i in range(0, w.numel(), 997):
            assert snapshot.changed(weights) == -1
            w.view(-1)[i] += 1
            assert snapshot.changed(weights) == 1
            w.view(-1)[i] -= 1
            snapshot = Snapshot(weights)


def test_another_object(how):
    w = torch.randn(5)
    snapshot = Snapshot([torch.ones(2), w])
    assert snapshot.changed([torch.ones(2), w]) == 0
    a, b = torch.ones(2), torch.ones(3)
    snapshot = Snapshot([a, b])
    assert snapshot.changed([a, w]) == 1 and snapshot.changed([a, None]) == 1
    assert snapshot.changed([a]) >= 0 and snapshot.changed([a, b, w]) >= 0
    assert snapshot.changes([a]) == [0, 1]


def test_a_dead_object_is_never_taken_for_another(how):
    for _ in range(100):
        died: list[int] = []
        weights = [torch.ones(3), torch.randn(4, 4)]
        snapshot = Snapshot(weights, on_death=lambda d=died: d.append(1))  # type: ignore[misc]
        old = id(weights[1])
        del weights[1]
        assert died == [1]
        again = [torch.randn(4, 4) for _ in range(5)]
        for p in again:
            assert snapshot.changed([weights[0], p]) >= 0
            assert snapshot.changes([weights[0], p]) == [1]
        if old in map(id, again):
            return
    raise AssertionError("no address came back: nothing was tested")


def test_a_dead_object_in_a_cycle(how):
    died = []
    module = nn.Linear(3, 3)
    module.itself = [module]
    snapshot = Snapshot(list(module.parameters()), on_death=lambda: died.append(1))
    del module
    gc.collect()
    assert died and snapshot.changed([torch.ones(2), torch.ones(2)]) == 0


def test_positions(how):
    w = [torch.randn(6), torch.randn(70)]
    snapshot = Snapshot(w, positions=[3, 1])
    arguments = [torch.ones(1), w[1], 17, w[0], "more"]
    assert snapshot.changed(arguments) == -1
    w[1].data.mul_(3)
    assert snapshot.changed(arguments) == 1 and snapshot.changes(arguments) == [1]
    assert snapshot.changed(arguments[:3]) >= 0 and snapshot.changes(arguments[:3]) == [0, 1]


def test_all_changes_are_told(how):
    weights = [torch.randn(n) for n in (3, 300, 3000, 5, 500)]
    snapshot = Snapshot(weights)
    weights[0].data += 1
    weights[2].add_(1)
    weights[4].data += 1
    assert snapshot.changes(weights) == [0, 2, 4]
    assert snapshot.changed(weights) in (0, 2, 4)


def test_memory_is_given_back():
    def resident() -> int:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no /proc")
    weights = [torch.randn(100) for _ in range(500)]
    for _ in range(20):
        Snapshot(weights)
    before = resident()
    for _ in range(100):
        Snapshot(weights)
    assert resident() - before < 20 << 20  # one takes half a megabyte


# ---- Counts --------------------------------------------------------------------------------------

HOLDERS = {
    "object": lambda t: t, "alias": lambda t: t.detach(), "view": lambda t: t[1:],
    "storage": lambda t: t.untyped_storage(), "array": lambda t: t.numpy(),
    "graph": lambda t: nn.Parameter(torch.ones(4)) * t,
}  # fmt: skip
CHANGES = {
    "gradients": lambda t: t.requires_grad_(), "memory": lambda t: t.set_(torch.ones(2)),
    "size": lambda t: t.untyped_storage().resize_(0), "shape": lambda t: t.t_(),
}  # fmt: skip


def counted() -> tuple[Counts, list[torch.Tensor]]:
    held = [torch.ones(3, 4), torch.zeros(2, 4)]
    held.append(torch.empty(0).set_(held[0]))
    made = Counts.of(held, [t.untyped_storage() for t in held[:2]])
    assert made is not None and made.same()
    return made, held


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("holder", HOLDERS)
def test_whoever_holds_a_tensor_is_counted(holder: str, which: int) -> None:
    counts, ts = counted()
    for _ in range(3):
        held = HOLDERS[holder](ts[which])
        assert not counts.same()
        del held
        assert counts.same()


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("change", CHANGES)
def test_what_becomes_of_a_tensor_is_seen(change: str, which: int) -> None:
    counts, ts = counted()
    CHANGES[change](ts[which])
    assert not counts.same()
    counts.take()
    assert counts.same()


def test_what_is_not_read_is_not_counted(monkeypatch) -> None:
    assert Counts.of([Plain(torch.ones(2))], []) is None
    native = tensors._native()
    monkeypatch.setattr(native, "counts_uses", False)
    assert Counts.of([torch.ones(2)], []) is None
    monkeypatch.setattr(tensors, "_native", lambda: None)
    assert Counts.of([torch.ones(2)], []) is None

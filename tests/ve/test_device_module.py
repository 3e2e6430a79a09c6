"""torch.ve and how it comes to be: at import, cheaply, where nothing else is in its place."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from device import check_python

# names of torch.cuda that a device's module has as well
NAMES = [
    "Event",
    "OutOfMemoryError",
    "Stream",
    "StreamContext",
    "current_device",
    "current_stream",
    "default_generators",
    "default_stream",
    "device",
    "device_count",
    "device_of",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "get_rng_state_all",
    "init",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_accumulated_memory_stats",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "set_per_process_memory_fraction",
    "set_rng_state",
    "set_rng_state_all",
    "set_stream",
    "stream",
    "synchronize",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_torch_cuda(name):
    assert hasattr(torch.ve, name) and name in torch.ve.__all__
    assert hasattr(torch.cuda, name)


def test_importing_torch_builds_and_loads_nothing():
    check_python(
        """
        import sys, torch
        assert torch.ve.is_available() and torch.ve.device_count() >= 1
        assert not torch.ve.is_initialized() and torch.ve.current_device() == 0
        assert torch.device("ve:0").type == "ve" and torch.ve is sys.modules["torch.ve"]
        for name in ("sol_dynamo.ve.extension._device", "sol_dynamo.ve.driver",
                     "sol_dynamo.backend", "torch._dynamo", "torch._inductor"):
            assert name not in sys.modules, name
        torch.manual_seed(1)
        torch.randn(3, requires_grad=True).sum().backward()
        assert not torch.ve.is_initialized()
        torch.ve.init()
        assert torch.ve.is_initialized() and torch.accelerator.is_available()
        assert torch.accelerator.current_accelerator().type == "ve"
        """
    )


@pytest.mark.parametrize(
    "use",
    [
        'torch.ones(2).to("ve")',
        'torch.ones(2).ve()',
        'torch.empty(3, device="ve")',
        'torch.tensor([1.0], device="ve")',
        'torch.nn.Linear(2, 2).to("ve")',
        'torch.nn.Linear(2, 2).ve()',
        'torch.nn.Linear(2, 2, device="ve")',
        'torch.UntypedStorage(4, device="ve")',
        'torch.ve.Stream()',
        'torch.ve.Event()',
        'torch.ve.current_stream()',
        'torch.ve.get_rng_state()',
        'torch.ve.set_device(0)',
        'torch.accelerator.current_stream()',
        'torch.accelerator.synchronize()',
        'torch.ones(2).untyped_storage().ve()',
    ],
)  # fmt: skip
def test_first_use(use):
    check_python(f"import torch\n{use}\nassert torch.ve.is_initialized()")


def test_backward_on_the_cpu_before_the_first_use():
    """Autograd's threads are made for the devices that there were then."""
    check_python(
        """
        import torch
        torch.randn(3, requires_grad=True).sum().backward()
        x = torch.ones(3, device="ve", requires_grad=True)
        (x * 2).sum().backward()
        assert x.grad.tolist() == [2, 2, 2]
        y = torch.ones(3, device="ve", requires_grad=True)
        torch.autograd.grad((y.cpu() * y.cpu()).sum(), y, create_graph=True)[0].sum().backward()
        assert y.grad.tolist() == [2, 2, 2]
        """
    )


def test_opting_out():
    check_python(
        """
        import torch
        from sol_dynamo.ve import registration
        assert not hasattr(torch, "ve") and not registration.registered()
        assert "SOL_VE=0" in registration.why_not()
        torch.utils.rename_privateuse1_backend("mine")
        """,
        SOL_VE="0",
    )


def test_another_name_stays():
    code = """
        import os, torch
        torch.utils.rename_privateuse1_backend("mine")
        os.environ["SOL_VE"] = "1"
        from sol_dynamo.ve import registration
        assert not registration.register()
        print(registration.why_not())
    """
    assert "'mine' already" in check_python(code, SOL_VE="0")


def test_another_accelerator_stays():
    code = """
        import os, torch
        from sol_dynamo.ve import registration
        os.environ.pop("SOL_VE")
        registration.other_accelerator = lambda: "CUDA"
        assert "CUDA" in registration.why_not() and not registration.register()
        os.environ["SOL_VE"] = "1"
        assert registration.why_not() == "" and registration.register()
        assert torch.ones(2, device="ve").sum().item() == 2
        assert registration.register()  # again changes nothing
    """
    check_python(code, SOL_VE="0")


def test_no_compiler_is_said_clearly(tmp_path):
    """Where the C++ part cannot be built, the device is not available, and the error says why."""
    code = """
        import torch
        print(torch.ve.is_available())
        try:
            torch.ones(2, device="ve")
        except RuntimeError as e:
            print(e)
    """
    out = check_python(code, PATH=str(tmp_path), SOL_CACHE_DIR=str(tmp_path / "cache"), SOL_CXX="")
    assert out.startswith("False") and "install g++" in out


def test_forked_children():
    """A child of a process that used the device is told to be spawned; it can do all else."""
    check_python(
        """
        import os, torch
        x = torch.ones(3, device="ve")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert torch.ve._is_in_bad_fork() and not torch.ve.is_initialized()
                torch.manual_seed(3)
                assert torch.ones(2).sum() == 2
                try:
                    torch.ones(3, device="ve")
                except RuntimeError as e:
                    status = 0 if "spawn" in str(e) else 2
                del x
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert x.sum().item() == 3
        """
    )


def test_children_of_a_process_that_has_not_used_it():
    check_python(
        """
        import os, torch
        pid = os.fork()
        if pid == 0:
            os._exit(0 if torch.ones(3, device="ve").sum().item() == 3 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """
    )


def test_the_process_ends_well_with_work_in_flight():
    check_python(
        """
        import torch
        p = torch.ones(1 << 22).pin_memory("ve") if torch.ve.init() is None else None
        xs = [p.to("ve", non_blocking=True) for _ in range(5)]
        with torch.ve.stream(torch.ve.Stream()):
            ys = [x.clone() for x in xs]
        torch.ve.Event().record()
        """
    )


def test_properties():
    p = torch.ve.get_device_properties()
    assert p.total_memory >= 48 << 30 and p.multi_processor_count >= 8 and p.vector_length == 256
    assert torch.ve.get_device_name(0) == p.name and "SX-Aurora" in p.name
    assert p.simulated == ("simulated" in p.name)
    assert torch.ve.get_device_capability() in ((1, 0), (3, 0))


def test_models_of_the_simulator():
    code = """
        import torch
        p = torch.ve.get_device_properties()
        print(p.name, p.major, p.multi_processor_count, torch.ve.mem_get_info()[1] >> 30)
    """
    assert "VE30 (simulated) 3 16 96" in check_python(code, SOL_VE_MODEL="VE30")
    assert "VE10 (simulated) 1 8 48" in check_python(code, SOL_VE_MODEL="VE10")


def test_methods_of_tensors_and_modules():
    x = torch.ones(2)
    assert x.ve().is_ve and not x.is_ve and x.ve(0).get_device() == 0
    assert torch.nn.Linear(2, 2).ve().weight.is_ve
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    assert packed.ve().is_ve
    assert torch.get_device_module("ve") is torch.ve


def test_the_entry_point_names_it():
    """What `import torch` runs is `_register.register`; without the package there is no device."""
    code = "import torch; print(hasattr(torch, 've'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.stdout.strip() == "False"


def test_a_module_that_moves_keeps_its_parameters():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(5, 4)
            self.head = torch.nn.Linear(4, 5, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x):
            return self.head(self.table(x))

    net, other = Tied(), Tied()
    other.load_state_dict(net.state_dict())
    x = torch.tensor([1, 3])
    other(x).sum().backward()  # on the CPU, so that its gradients move with it
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    weight = other.table.weight
    assert other.to("ve").head.weight is weight and other.table.weight is weight
    assert weight.is_ve and weight.grad.is_ve and weight.requires_grad
    for m in (net, other):
        m.zero_grad()
        m(x.to(m.table.weight.device)).square().sum().backward()
    optimizer.step()
    torch.optim.SGD(net.parameters(), 0.1).step()
    torch.testing.assert_close(other.cpu().table.weight, net.table.weight)
    assert other.head.weight is weight and not weight.is_ve


def test_tensors_that_cannot_become_others():
    x = torch.ones(2)
    with pytest.raises(RuntimeError, match="incompatible tensor type"):
        x.to("ve").data = torch.eye(2).to_sparse()
    with pytest.raises(RuntimeError, match="incompatible tensor type"):
        torch.eye(2).to_sparse().data = x.to("ve")

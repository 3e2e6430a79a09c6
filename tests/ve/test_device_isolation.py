"""Memory of the device is not the host's: reading it through a pointer faults."""

from __future__ import annotations

import signal

from device import check_python, run_python


def test_dereferencing_faults():
    done = run_python(
        """
        import ctypes, torch
        x = torch.arange(8.0).to("ve")
        print("address", x.data_ptr() != 0, flush=True)
        print(ctypes.c_float.from_address(x.data_ptr()).value)
        """
    )
    assert "address True" in done.stdout
    assert done.returncode == -signal.SIGSEGV, (done.returncode, done.stdout, done.stderr)


def test_the_same_program_without_it_ends_well():
    out = check_python(
        """
        import ctypes, torch
        x = torch.arange(8.0).to("ve")
        y = x.cpu()
        print(ctypes.c_float.from_address(y.data_ptr()).value, x.sum().item())
        """
    )
    assert out.split() == ["0.0", "28.0"]

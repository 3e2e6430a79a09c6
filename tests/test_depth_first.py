"""Runs of kernels that go image by image: which memory moves with the image, and which does not."""

from __future__ import annotations

import pytest
import torch
from accuracy import check
from torch.nn import functional

from sol_dynamo.backend import sol
from sol_dynamo.target import get_target


def images() -> int:
    """A batch that is large enough to be cut."""
    return 2 * get_target("cpu").caps.cores


def two_convolutions(x, v, w):
    return functional.conv2d(functional.conv2d(x, v), w)


def tensors(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=g) for s in shapes]


@pytest.mark.parametrize("more", [0, 1])
def test_an_input_with_a_row_for_each_image_is_not_a_batch(more):
    """Filters that are inputs, as many as there are images; one more is the near miss."""
    n, rows = images(), images() + more
    args = tensors((n, 3, 6, 6), (rows, 3, 3, 3), (rows, rows, 1, 1))
    check(two_convolutions, two_convolutions, *args)
    assert sol.graphs[-1].compiled.program.depth_first


def test_an_argument_taken_as_a_batch_and_as_a_whole():
    def f(x):
        return functional.conv2d(functional.conv2d(x, x), x[:, :, :1, :1])

    n = images()
    check(f, f, *tensors((n, n, 3, 3)))


def test_a_weight_with_a_row_for_each_image():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            first, second, place = tensors((4, 3, 3, 3), (5, 4, 3, 3), (images(), 4, 4, 4))
            self.first, self.second = torch.nn.Parameter(first), torch.nn.Parameter(second)
            self.place = torch.nn.Parameter(place)

        def forward(self, x):
            first, second, place = (p.to(x.dtype) for p in (self.first, self.second, self.place))
            return functional.conv2d(functional.conv2d(x, first) + place, second)

    net = Net()
    check(net, net, *tensors((images(), 3, 6, 6)))


def test_what_counts_its_images_sees_all_of_them():
    """A value that depends on the number of the image, between two convolutions."""

    def f(x, v, w):
        y = functional.conv2d(x, v)
        y = torch.select_scatter(y, torch.ones_like(y[0]), 0, 3)
        return functional.conv2d(y, w)

    check(f, f, *tensors((images(), 3, 6, 6), (4, 3, 3, 3), (5, 4, 3, 3)))


def test_an_input_that_is_packed_for_each_image():
    """The second operand of a product, whose rows are brought together before the run."""

    def f(x, y):
        return torch.softmax(torch.bmm(torch.sin(x), y.transpose(1, 2)), -1)

    n = images()
    check(f, f, *tensors((n, 12, 8), (n, 12, 8)))
    program = sol.graphs[-1].compiled.program
    (packed,) = (b for b in program.buffers.values() if b.name.endswith("_packed"))
    assert program.depth_first and packed.shape[0] == n and packed.name in program.chunked


def test_memory_of_one_run_that_another_reads_whole():
    """Products of each image with itself, then of each with all."""

    def f(x):
        y = torch.softmax(torch.bmm(x, x.transpose(1, 2)), -1)
        z = torch.bmm(y, x)
        return torch.softmax(z.flatten(1) @ x.flatten(1).T, -1)

    check(f, f, *tensors((images(), 6, 10)))
    assert sol.graphs[-1].compiled.program.depth_first


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x.tril(), x.triu(1)),
        lambda x: (x * torch.arange(len(x)).unsqueeze(1), x + 1),
        lambda x: (x.select_scatter(x[0] * 2, 0, 1), x.exp()),
    ],
)
def test_the_number_of_an_image_is_no_value_of_one_image(f):
    n = 2 * images()
    check(f, f, *tensors((n, n)))
    assert not sol.graphs[-1].compiled.program.depth_first


def test_random_numbers_differ_from_image_to_image():
    x = torch.zeros(2 * images(), 6)
    torch._dynamo.reset()
    run = torch.compile(lambda x: (torch.rand_like(x) + x, torch.rand_like(x) * 2 + x), backend=sol)
    for y in run(x):
        assert len(y.unique()) == y.numel()

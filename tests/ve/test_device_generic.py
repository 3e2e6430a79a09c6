"""PyTorch's device-generic tests, instantiated for the device by torch.testing's own machinery.

Operators (all samples, error inputs, gradients), modules, optimizers and autocast, from torch's
databases of them. `make test` takes some of each, `make test-all` all.
"""

from __future__ import annotations

import copy
import os
import warnings

import pytest
import torch

pytest.importorskip("expecttest")  # torch.testing's databases import it
os.environ["PYTORCH_TESTING_DEVICE_FOR_CUSTOM"] = "privateuse1"
from torch.nn.parameter import is_lazy
from torch.testing._internal.autocast_test_lists import AutocastTestLists, TestAutocast
from torch.testing._internal.common_device_type import instantiate_device_type_tests, ops
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import TrainEvalMode, module_db, modules
from torch.testing._internal.common_optimizers import optim_db, optims
from torch.testing._internal.common_utils import TestCase, TestGradients
from torch.utils._pytree import tree_leaves, tree_map

from sol_dynamo.eager import pieces

BOUNDS = {"rtol": 2e-5, "atol": 2e-5}
SPARSE = ("to_sparse", "sparse.mm.reduce", "sparse.sampled_addmm")  # results the device has not
RANDOM = {"bernoulli", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "normal",
          "rand_like", "randint", "randint_like", "randn", "randn_like", "uniform",
          "nn.functional.alpha_dropout", "nn.functional.dropout", "nn.functional.dropout2d",
          "nn.functional.dropout3d", "nn.functional.feature_alpha_dropout",
          "nn.functional.rrelu", "nn.functional.fractional_max_pool2d",
          "nn.functional.fractional_max_pool3d", "svd_lowrank", "pca_lowrank",
          "nn.functional.multi_head_attention_forward",
          "nn.functional.scaled_dot_product_attention"}  # fmt: skip
MEMORY_AS_FOUND = ("empty", "new_empty")
HOST_ONLY = ("jiterator",)  # CUDA's alone, in truth
# samples draw negative bases, whose gradients by a real exponent are NaN on every device
NOT_SMOOTH = {"__rpow__"}


def usable(op) -> bool:
    if op.variant_test_name == "partial_views":  # of storages that other devices have not
        return False
    return not (op.name in SPARSE or op.name.startswith(HOST_ONLY))


OPS = [op for op in op_db if usable(op)]
FEW = OPS[::25]


def moved(tree, device):
    def move(x):
        if isinstance(x, torch.Tensor):
            return x.detach().clone().to(device).requires_grad_(x.requires_grad)
        return device if isinstance(x, (str, torch.device)) and str(x) == "cpu" else x

    return tree_map(move, tree)


def on_device(sample) -> bool:
    """Whether anything of a sample says where the result is to be."""
    leaves = tree_leaves((sample.input, sample.args, sample.kwargs))
    return any(isinstance(x, torch.Tensor) or str(x) == "cpu" for x in leaves)


class OpTests(TestCase):
    """What each operator gives on the device is what it gives on the CPU."""

    def check_samples(self, device, dtype, op):
        for sample in op.sample_inputs("cpu", dtype):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.manual_seed(1)
                expected = op(sample.input, *sample.args, **sample.kwargs)
                x = moved(sample.input, device)
                rest = (sample.args, sample.kwargs)
                args, kwargs = rest if op.name == "tensor_split" else moved(rest, device)
                torch.manual_seed(1)
                got = op(x, *args, **kwargs)
            pairs = list(zip(tree_leaves(got), tree_leaves(expected), strict=True))
            for g, e in pairs:
                if not isinstance(e, torch.Tensor):
                    assert op.name in RANDOM or g == e or g != g
                    continue
                if no_statistics(op, e):
                    continue
                assert g.device.type == ("ve" if on_device(sample) else "cpu")
                assert g.dtype == e.dtype and g.shape == e.shape
                if op.name not in RANDOM and not op.name.startswith(MEMORY_AS_FOUND):
                    torch.testing.assert_close(g.cpu(), e, equal_nan=True, **BOUNDS)

    def check_errors(self, device, op):
        """The device refuses what must be refused, and what the CPU refuses too."""
        for case in op.error_inputs(device):
            sample = case.sample_input
            if case.error_type is Exception or (op.name == "cat" and "out" in sample.kwargs):
                continue  # operators that answer NotImplemented; copies that the CPU can do
            with self.assertRaisesRegex(case.error_type, case.error_regex):
                out = op(sample.input, *sample.args, **sample.kwargs)
                for t in tree_leaves(out):  # a conversion to a number may be what fails
                    assert not isinstance(t, torch.Tensor) or t.is_ve

    def check_noncontiguous(self, device, dtype, op):
        """Of tensors with gaps, as torch.testing makes them, the result is the same."""
        for sample in first(op.sample_inputs("cpu", dtype), 3):
            other = sample.noncontiguous()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = op(other.input, *other.args, **other.kwargs)
                args, kwargs = moved((other.args, other.kwargs), device)
                x = tree_map(lambda t: strided(t, device), other.input)
                got = op(x, *args, **kwargs)
            for g, e in zip(tree_leaves(got), tree_leaves(expected), strict=True):
                if isinstance(e, torch.Tensor) and not no_statistics(op, e):
                    assert g.shape == e.shape and g.dtype == e.dtype
                    torch.testing.assert_close(g.cpu(), e, equal_nan=True, **BOUNDS)

    def check_out(self, device, dtype, op):
        """The argument `out` gets the result, in its own strides, or in new ones if it is empty."""
        for sample in first(op.sample_inputs("cpu", dtype), 2):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = op(sample.input, *sample.args, **sample.kwargs)
                if not isinstance(expected, torch.Tensor) or not on_device(sample):
                    return
                kinds = [torch.empty_like, every_other, lambda e: e.new_empty(0)]
                for make in kinds:
                    own = make(expected)
                    op(sample.input, *sample.args, out=own, **sample.kwargs)
                    out, x = make(expected.to(device)), moved(sample.input, device)
                    args, kwargs = moved((sample.args, sample.kwargs), device)
                    assert op(x, *args, out=out, **kwargs) is out
                    assert out.shape == own.shape and out.stride() == own.stride()
                    # not `own`: some of the CPU's kernels store gelu and pools beside it
                    torch.testing.assert_close(out.cpu(), expected, equal_nan=True, **BOUNDS)


def no_statistics(op, expected) -> bool:
    """A batch norm of evaluation gives no statistics on the CPU, but on other devices, as torch's
    fake kernels say."""
    return "batch_norm" in op.name and expected.shape == (0,)


def every_other(like):
    """Every other element of memory that is twice as large."""
    return like.new_zeros((*like.shape, 2))[..., 1]


def first(samples, count):
    return [s for s, _ in zip(samples, range(count), strict=False)]


def strided(t, device):
    """A tensor on the device that lies as it does on the CPU."""
    if not isinstance(t, torch.Tensor):
        return t
    span = 1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True))
    flat = t.as_strided((span if t.numel() else 0,), (1,)).to(device)
    return flat.as_strided(t.shape, t.stride())


def comparable(op) -> bool:
    return op.name not in RANDOM and not op.name.startswith(MEMORY_AS_FOUND)


WITH_OUT = [op for op in OPS if op.supports_out and comparable(op)]
# as_strided reads what lies between elements, view_as_complex refuses it
NO_GAPS = ("as_strided", "view_as_complex")
ELEMENTS_ONLY = [op for op in OPS if comparable(op) and not op.name.startswith(NO_GAPS)]
REPEATABLE = [op for op in ELEMENTS_ONLY if op.name != "tensor_split"]


class TestFewVariants(OpTests):
    @ops(REPEATABLE[3::30], allowed_dtypes=(torch.float32,))
    def test_noncontiguous(self, device, dtype, op):
        self.check_noncontiguous(device, dtype, op)

    @ops(WITH_OUT[5::20], allowed_dtypes=(torch.float32,))
    def test_out(self, device, dtype, op):
        self.check_out(device, dtype, op)


class TestAllVariants(OpTests):
    pytestmark = pytest.mark.slow

    @ops(REPEATABLE, allowed_dtypes=(torch.float32,))
    def test_noncontiguous(self, device, dtype, op):
        self.check_noncontiguous(device, dtype, op)

    @ops(WITH_OUT, allowed_dtypes=(torch.float32,))
    def test_out(self, device, dtype, op):
        self.check_out(device, dtype, op)


class TestFewOps(OpTests):
    @ops(FEW, allowed_dtypes=(torch.float32, torch.int64))
    def test_samples(self, device, dtype, op):
        self.check_samples(device, dtype, op)

    @ops([op for op in FEW if op.error_inputs_func], allowed_dtypes=(torch.float32,))
    def test_errors(self, device, dtype, op):
        self.check_errors(device, op)


class TestAllOps(OpTests):
    pytestmark = pytest.mark.slow

    @ops(OPS, allowed_dtypes=(torch.float32,))
    def test_samples(self, device, dtype, op):
        self.check_samples(device, dtype, op)

    @ops([op for op in OPS if op.error_inputs_func], allowed_dtypes=(torch.float32,))
    def test_errors(self, device, dtype, op):
        self.check_errors(device, op)


class TestOpGradients(TestGradients):
    """torch.testing's own class: gradients against finite differences."""

    pytestmark = pytest.mark.slow

    def setUp(self):
        # backward is run twice for the same bits: not once on the CPU, as the first call with sizes
        # that may not come again would be after so many others
        super().setUp()
        pieces._programs.clear()

    @ops(
        [o for o in OPS[::10] if o.supports_autograd and o.name not in RANDOM | NOT_SMOOTH],
        allowed_dtypes=(torch.float64,),
    )
    def test_gradients(self, device, dtype, op):
        self._skip_helper(op, device, dtype)
        self._grad_test_helper(device, dtype, op, op.get_op())


class ModuleTests(TestCase):
    def check(self, device, dtype, module_info, training):
        make = module_info.module_cls
        inputs = module_info.module_inputs_func(
            module_info, device="cpu", dtype=dtype, requires_grad=True, training=training
        )
        for given in inputs:
            if given.forward_input is None:
                continue
            args, kwargs = given.constructor_input.args, given.constructor_input.kwargs
            torch.manual_seed(3)
            net = make(*args, **kwargs).to(dtype).train(training)
            other = copy.deepcopy(net).to(device)
            results = []
            both = ((net, "cpu"), (other, device))
            forward = (given.forward_input.args, given.forward_input.kwargs)
            if any(map(is_lazy, net.parameters())):  # they draw their weights at the first call
                for m, where in both:
                    x, k = moved(forward, where)
                    m(*x, **k)
                other.load_state_dict(net.state_dict())
            for m, where in both:
                x, k = moved(forward, where)
                torch.manual_seed(4)
                results.append([t for t in tree_leaves(m(*x, **k)) if t is not None])
                roots = [t.sum() for t in results[-1] if t.requires_grad]
                if roots:
                    sum(roots).backward()
            random = (training and "ropout" in repr(net)) or "RReLU" in repr(net)
            for g, e in zip(*reversed(results), strict=True):
                assert g.is_ve and g.shape == e.shape and g.dtype == e.dtype
                if not random:
                    torch.testing.assert_close(g.cpu(), e, rtol=1e-4, atol=1e-4, equal_nan=True)
            if not random:
                for q, p in zip(other.parameters(), net.parameters(), strict=True):
                    assert (q.grad is None) == (p.grad is None)
                    if p.grad is not None:
                        torch.testing.assert_close(q.grad.cpu(), p.grad, rtol=1e-3, atol=1e-3)
                for b, a in zip(other.buffers(), net.buffers(), strict=True):
                    torch.testing.assert_close(b.cpu(), a, rtol=1e-4, atol=1e-4)


class TestFewModules(ModuleTests):
    @modules(module_db[::12], (torch.float32,), TrainEvalMode.train_only)
    def test_module(self, device, dtype, module_info, training):
        self.check(device, dtype, module_info, training)


class TestAllModules(ModuleTests):
    pytestmark = pytest.mark.slow

    @modules(module_db, (torch.float32,))
    def test_module(self, device, dtype, module_info, training):
        self.check(device, dtype, module_info, training)


class OptimizerTests(TestCase):
    def check(self, device, dtype, optim_info):
        for given in optim_info.optim_inputs_func("cpu"):
            torch.manual_seed(5)
            shapes = [(4, 3), (3, 3)] if optim_info.name == "Muon" else [(4, 3), (5,)]
            start = [torch.randn(s, dtype=dtype) for s in shapes]
            trained = []
            for where in ("cpu", device):
                parameters = [torch.nn.Parameter(s.clone().to(where)) for s in start]
                kwargs = moved(dict(given.kwargs), where)
                kwargs.pop("params", None)
                optimizer = optim_info.optim_cls(parameters, **kwargs)

                def closure(parameters=parameters, optimizer=optimizer):
                    optimizer.zero_grad()
                    loss = sum(((p - 1) ** 2).sum() for p in parameters)
                    loss.backward()
                    return loss

                if optim_info.only_supports_sparse_grads:
                    return
                for _ in range(4):
                    if optim_info.step_requires_closure:
                        optimizer.step(closure)
                    else:
                        closure()
                        optimizer.step()
                trained.append([p.detach().cpu() for p in parameters])
            if any(p.abs().max() > 1e6 for p in trained[0]):
                continue  # diverged (LBFGS with some steps): rounding decides
            for p, q in zip(*trained, strict=True):
                torch.testing.assert_close(q, p, rtol=1e-4, atol=1e-4)


class TestFewOptimizers(OptimizerTests):
    @optims([o for o in optim_db if o.name in ("SGD", "Adam", "Adagrad")])
    def test_optimizer(self, device, dtype, optim_info):
        self.check(device, dtype, optim_info)


class TestAllOptimizers(OptimizerTests):
    pytestmark = pytest.mark.slow

    @optims(optim_db)
    def test_optimizer(self, device, dtype, optim_info):
        self.check(device, dtype, optim_info)


class TestAutocastOps(TestAutocast):
    """torch.testing's own lists of what autocast does to each operator's dtype."""

    def run_list(self, device, entries, run_as, module=torch):
        for entry in entries:
            op, args = entry[0], entry[1]
            kwargs = entry[2] if len(entry) > 2 and isinstance(entry[2], dict) else None
            self._run_autocast_outofplace(
                op, args, run_as, device, None, module, kwargs, torch.float16
            )

    def test_lower_precision(self, device):
        lists = AutocastTestLists(torch.device(device))
        skip = ("_thnn_fused_lstm_cell", "_thnn_fused_gru_cell")
        entries = [e for e in lists.torch_fp16 if e[0] not in skip]
        self.run_list("ve", [e for e in entries if len(e) == 2], torch.float16)
        self.run_list("ve", lists.nn_fp16, torch.float16, torch._C._nn)

    def test_float32(self, device):
        lists = AutocastTestLists(torch.device(device))
        self.run_list("ve", [e for e in lists.torch_fp32 if len(e) == 2], torch.float32)
        self.run_list("ve", lists.nn_fp32, torch.float32, torch._C._nn)

    def test_promotion(self, device):
        lists = AutocastTestLists(torch.device(device))
        self.run_list("ve", [e for e in lists.torch_need_autocast_promote], torch.float32)


for generic in (TestFewOps, TestAllOps, TestFewVariants, TestAllVariants, TestOpGradients,
                TestFewModules, TestAllModules, TestFewOptimizers, TestAllOptimizers,
                TestAutocastOps):  # fmt: skip
    instantiate_device_type_tests(generic, globals(), only_for=("ve",))
del generic

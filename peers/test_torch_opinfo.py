"""PyTorch's own tests on softmaxkit.torch: its OpInfo and ModuleInfo samples, from its wheel.

The value and gradient of an op are compared with torch's, within the limits of `torch.testing` for
the dtype. Variants of linear_cross_entropy named "chunked" use torch's chunks, which have no second
derivatives and no forward mode; here they have both.
"""

import copy

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing._comparison import default_tolerances
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import softmaxkit.torch

FUNCTIONS = {
    "softmax": softmaxkit.torch.softmax,
    "log_softmax": softmaxkit.torch.log_softmax,
    "nn.functional.softmin": softmaxkit.torch.softmin,
    "nn.functional.cross_entropy": softmaxkit.torch.cross_entropy,
    "nn.functional.linear_cross_entropy": softmaxkit.torch.linear_cross_entropy,
    "nn.functional.nll_loss": softmaxkit.torch.nll_loss,
    "nn.functional.binary_cross_entropy_with_logits": (
        softmaxkit.torch.binary_cross_entropy_with_logits
    ),
}
MODULES = {
    torch.nn.Softmax: softmaxkit.torch.Softmax,
    torch.nn.LogSoftmax: softmaxkit.torch.LogSoftmax,
    torch.nn.CrossEntropyLoss: softmaxkit.torch.CrossEntropyLoss,
    torch.nn.LinearCrossEntropyLoss: softmaxkit.torch.LinearCrossEntropyLoss,
    torch.nn.BCEWithLogitsLoss: softmaxkit.torch.BCEWithLogitsLoss,
}
# torch's own warning: some samples ask for chunks where it has none.
pytestmark = pytest.mark.filterwarnings("ignore:linear_cross_entropy. ``options`` ignored")
HALF = (torch.float16, torch.bfloat16)
FULL = (torch.float32, torch.float64)

# Ops with samples in half precision where softmaxkit's result is too far from torch's for
# `torch.testing`, but nearer to that of torch in float64. Each of these has some, no other has any.
EXPECTED_DIFFERENCES = {
    "softmax": "torch takes the gradient from probabilities that are rounded already",
    "nn.functional.softmin": "torch takes the gradient from probabilities that are rounded already",
    "log_softmax": "along an axis that is not the last torch rounds intermediate results",
    "nn.functional.cross_entropy": "the gradient by the target: torch rounds log-probabilities",
    "nn.functional.linear_cross_entropy": "torch rounds the logits",
    "nn.functional.linear_cross_entropy.chunked": "torch rounds the logits",
    "nn.functional.linear_cross_entropy.chunked_none": "torch rounds the logits",
    "nn.functional.binary_cross_entropy_with_logits": "torch rounds after each step",
}


def name_of(info):
    variant = getattr(info, "variant_test_name", "")
    return f"{info.name}.{variant}" if variant else info.name


OPS = {name_of(op): op for op in op_db if op.name in FUNCTIONS}
MODULE_INFOS = {name_of(info): info for info in module_db if info.module_cls in MODULES}
of_every_op = pytest.mark.parametrize("name", OPS)
of_every_module = pytest.mark.parametrize("name", MODULE_INFOS)


def samples(op, dtype, requires_grad=True):
    torch.manual_seed(0)
    return list(op.sample_inputs("cpu", dtype, requires_grad=requires_grad))


def test_every_name_is_found():
    assert {op.name for op in OPS.values()} == set(FUNCTIONS)
    assert {info.module_cls for info in MODULE_INFOS.values()} == set(MODULES)
    assert set(EXPECTED_DIFFERENCES) < set(OPS)


# --- values and gradients -------------------------------------------------------------------------
def outcome(function, arguments, options):
    """Return a function's value, and its gradient by each argument that wants one."""
    value = function(*arguments, **options)
    given = [*arguments, *options.values()]
    if isinstance(function, torch.nn.Module):
        given += function.parameters()
    leaves = [each for each in given if torch.is_tensor(each) and each.requires_grad]
    if not leaves:
        return [value]
    cotangent = (torch.arange(value.numel()) % 7 - 3).view(value.shape)  # the same in every dtype
    return [value, *torch.autograd.grad(value, leaves, cotangent.to(value.dtype))]


def in_float64(value):
    if torch.is_tensor(value) and value.is_floating_point():
        return value.detach().double().requires_grad_(value.requires_grad)
    return torch.float64 if isinstance(value, torch.dtype) else value


def judged(ours, theirs, exact, dtype):
    """Return "passed", "failed" or "excused".

    A result is excused if it is in half precision and, wherever an element is too far from torch's,
    nearer to the exact result in float64. Shape and dtype must be torch's in any case.
    """
    verdict = "passed"
    for mine, other, true in zip(ours, theirs, exact, strict=True):
        if (mine.shape, mine.dtype) != (other.shape, other.dtype):
            return "failed"
        rtol, atol = default_tolerances(mine, other)
        differs = ~torch.isclose(mine, other, rtol=rtol, atol=atol, equal_nan=True)
        if differs.any():
            verdict = "excused"
            here, there = ((each.double() - true).abs()[differs] for each in (mine, other))
            if dtype not in HALF or not (here < there).all():
                return "failed"
    return verdict


@of_every_op
@pytest.mark.parametrize("dtypes", [HALF, FULL], ids=["half", "full"])
def test_values_and_gradients(tally, name, dtypes):
    op, results = OPS[name], []
    for dtype in dtypes:
        for sample in samples(op, dtype):
            arguments = (sample.input, *sample.args)
            ours = outcome(FUNCTIONS[op.name], arguments, sample.kwargs)
            theirs = outcome(op.op, arguments, sample.kwargs)
            wide = {key: in_float64(value) for key, value in sample.kwargs.items()}
            wide.pop("options", None)  # of torch's chunks, some of which are for half precision
            exact = outcome(op.op, tuple(map(in_float64, arguments)), wide)
            results.append(judged(ours, theirs, exact, dtype))
    passed, excused = results.count("passed"), results.count("excused")
    tally(name, run=len(results), passed=passed, excused=excused)
    assert results
    assert passed + excused == len(results), results
    assert (excused > 0) == (dtypes is HALF and name in EXPECTED_DIFFERENCES)


@of_every_op
# torch's own warnings, of the complex numbers that its samples hold.
@pytest.mark.filterwarnings("ignore:Casting complex values to real", "ignore:ComplexHalf support")
def test_dtypes_that_torch_converts(tally, name):
    """Integers, booleans and complex numbers, where the op has a `dtype` argument."""
    op, count = OPS[name], 0
    for dtype in sorted(op.supported_dtypes("cpu") - {*HALF, *FULL}, key=str):
        for sample in samples(op, dtype, requires_grad=False):
            arguments = (sample.input, *sample.args)
            ours = FUNCTIONS[op.name](*arguments, **sample.kwargs)
            torch.testing.assert_close(ours, op.op(*arguments, **sample.kwargs))
            count += 1
    tally(name, run=count, passed=count)
    assert (count > 0) == name.endswith("with_dtype")


# --- derivatives ----------------------------------------------------------------------------------
@of_every_op
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck], ids=lambda check: check.__name__)
def test_derivatives(tally, name, check):
    op, count = OPS[name], 0
    assert op.supports_gradgrad
    assert op.supports_forward_ad or op.variant_test_name.startswith("chunked")
    options = {"check_forward_ad": True} if check is gradcheck else {"check_fwd_over_rev": True}
    options |= {"check_batched_grad": op.check_batched_grad, "nondet_tol": op.gradcheck_nondet_tol}
    options["fast_mode"] = op.gradcheck_fast_mode is not False  # as torch runs it
    for sample in samples(op, torch.float64):

        def function(*arguments, kwargs=sample.kwargs):
            return FUNCTIONS[op.name](*arguments, **kwargs)

        assert check(function, (sample.input, *sample.args), **options)
        count += 1
    tally(name, run=count, passed=count)
    assert count


@of_every_op
def test_errors(tally, name):
    op, count = OPS[name], 0
    if op.error_inputs_func is not None:
        for error in op.error_inputs("cpu"):
            sample = error.sample_input
            with pytest.raises(error.error_type, match=error.error_regex):
                FUNCTIONS[op.name](sample.input, *sample.args, **sample.kwargs)
            count += 1
    tally(name, run=count, passed=count)
    assert (count > 0) == (op.name == "nn.functional.linear_cross_entropy")


# --- modules --------------------------------------------------------------------------------------
@of_every_module
@pytest.mark.parametrize("dtype", FULL, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_modules(tally, name, dtype, training):
    """Compare also with the reference functions with which torch tests its modules."""
    info, count, tolerance = MODULE_INFOS[name], 0, {}
    if dtype is torch.float32 and info.module_cls is torch.nn.LinearCrossEntropyLoss:
        # Gradients by the input are sums of numbers up to 375, of which this is an ULP.
        tolerance = {"rtol": 1.3e-6, "atol": 3e-5}
    torch.manual_seed(0)
    for sample in info.module_inputs_func(info, "cpu", dtype, True, training):
        construct, call = sample.constructor_input, sample.forward_input
        theirs = info.module_cls(*construct.args, **construct.kwargs).train(training)
        ours = MODULES[info.module_cls](*construct.args, **construct.kwargs).train(training)
        ours.load_state_dict(theirs.state_dict())
        assert repr(ours) == repr(theirs)
        got = outcome(ours, call.args, call.kwargs)
        expected = outcome(theirs, call.args, call.kwargs)
        torch.testing.assert_close(got, expected, equal_nan=True, **tolerance)
        if sample.reference_fn is not None:
            plain = [each.detach() for each in call.args]  # it copies them
            reference = sample.reference_fn(copy.deepcopy(theirs), *plain, **call.kwargs)
            torch.testing.assert_close(got[0], reference, equal_nan=True)
        count += 1
    tally(name, run=count, passed=count)
    assert count


@of_every_module
@pytest.mark.filterwarnings("ignore:Possible nested set")  # in a pattern of torch's
def test_errors_of_modules(tally, name):
    info, count = MODULE_INFOS[name], 0
    if info.module_error_inputs_func is not None:
        for error in info.module_error_inputs_func(info, "cpu", torch.float32, False, True):
            construct = error.module_error_input.constructor_input
            call = error.module_error_input.forward_input

            def run(construct=construct, call=call):
                ours = MODULES[info.module_cls](*construct.args, **construct.kwargs)
                return ours(*call.args, **call.kwargs)

            with pytest.raises(error.error_type, match=error.error_regex):
                run()
            count += 1
    tally(name, run=count, passed=count)
    assert (count > 0) == issubclass(info.module_cls, torch.nn.modules.loss._WeightedLoss)

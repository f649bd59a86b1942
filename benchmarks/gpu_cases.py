"""What gpu.py runs, and on what: the calls, the libraries, what serves softmaxkit's calls."""

import os
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch

import softmaxkit.torch
from softmaxkit import conformance
from softmaxkit._operations import BY_CLASS
from softmaxkit.conformance import Adapter, Case
from softmaxkit.conformance.case import ACTIVATIONS, LINEAR_LOSSES, LOSSES

ON_DEVICE = {"labels": "they are on the device, for which nothing waits"}


@dataclass
class Row:
    """A line of the report.

    `under` names its table and `cells` go by column; `problems` are failures, and `note` says why
    there is nothing to show.
    """

    under: str
    name: str
    cells: dict[str, str | float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    note: str = ""


def engines(device):
    """Return what may serve softmaxkit's calls, its first choice first: name, context manager."""
    if device == "cpu" or find_spec("triton") is None:
        return {"torch operations": nullcontext}
    return {"Triton": partial(triton, True), "torch operations": partial(triton, False)}


@contextmanager
def triton(on):
    softmaxkit.torch.use_triton(on)
    try:
        with warnings.catch_warnings():
            # A kernel that fails only warns, and what is measured then is not Triton.
            warnings.filterwarnings("error", message=".*triton")
            yield
    finally:
        softmaxkit.torch.use_triton(True)


def calls(rows, classes):
    """Yield every operation, on ordinary and saturated rows, and every option with its own path."""
    random = np.random.default_rng(0)
    # More than 16 below the largest logit, an ordinary softmax may be off by more than its limit.
    x = random.normal(0.0, 1.0, (rows, classes))
    labels = random.integers(0, classes, rows)
    q = random.gamma(0.5, 1.0, x.shape)
    q /= q.sum(-1, keepdims=True)
    weight = random.random(classes) + 0.5
    yes_or_no = random.integers(0, 2, x.shape)
    mask = random.random(x.shape) < 0.7
    sure = x.copy()
    mask[np.arange(rows), labels], sure[np.arange(rows), labels] = True, 25.0
    ignored, wrong = labels.copy(), labels.copy()
    ignored[::3], wrong[1] = -100, classes
    each = {"reduction": "none"}
    # Eighths, whose products are exact, so that only the loss is judged.
    h, weight_matrix = (random.normal(0.0, 1.0, (n, 4)) for n in (rows, classes))
    h, weight_matrix = ((8 * one).round() / 8 for one in (h, weight_matrix))
    parts = {"chunk_size": rows // 2}

    for name in ACTIVATIONS:
        yield Case("last axis", name, (x,))
        yield Case("first axis", name, (np.ascontiguousarray(x.T),), {"axis": 0})
        yield Case("saturated", name, (sure,), saturated=True)
    for name, by_class in BY_CLASS.items():
        yield Case("labels", name, (x, labels))
        yield Case("saturated", name, (sure, labels), each, saturated=True)
        yield Case("first axis", name, (np.ascontiguousarray(x.T), labels), {"axis": 0})
        yield Case("class weights", name, (x, labels), {by_class: weight})
        yield Case("mask", name, (x, labels), {"where": mask})
        yield Case("ignored rows", name, (x, ignored))
        yield Case("temperature", name, (x, labels), {"temperature": 2.5})
        yield Case("smoothing", name, (x, labels), {"label_smoothing": 0.1})
        yield Case("probabilities", name, (x, q))
        # Refused on the CPU; NaN where labels are not read.
        yield Case("label out of range", name, (x, wrong), each, raises=IndexError)
    for name in LINEAR_LOSSES:
        yield Case("labels", name, (h, weight_matrix, labels))
        yield Case("in chunks", name, (h, weight_matrix, labels), parts)
        yield Case("no reduction", name, (h, weight_matrix, labels), parts | each)
        yield Case("ignored rows", name, (h, weight_matrix, ignored), parts)
        yield Case("smoothing", name, (h, weight_matrix, labels), parts | {"label_smoothing": 0.1})
        wrong_rows = h, weight_matrix, wrong
        yield Case("label out of range", name, wrong_rows, parts | each, raises=IndexError)
    yield Case("z-loss", "cross_entropy", (x, labels), {"z_loss": 0.01})
    for name, weights in (("binary_cross_entropy", "pos_weight"), ("sigmoid_focal_loss", "alpha")):
        by_label = weight if weights == "pos_weight" else 0.25
        yield Case("labels", name, (x, yes_or_no), {weights: by_label})
        yield Case("probabilities", name, (x, q))
    yield Case("labels", "one_hot", (labels,), {"num_classes": classes})
    yield Case("probabilities", "smooth_labels", (q,), {"smoothing": 0.1})


def moved(adapter, value, dtype):
    if not isinstance(value, np.ndarray):
        return value
    return adapter.to_backend(value, dtype if value.dtype.kind == "f" else None)


def prepared(adapter, case, dtype):
    """Return forward and backward as a function without arguments, and the array it is for."""

    x, *others = (moved(adapter, array, dtype) for array in case.arrays)
    options = {name: moved(adapter, value, dtype) for name, value in case.options.items()}
    call = getattr(softmaxkit, case.operation)
    if case.operation in ACTIVATIONS:
        others = [call(x, **options)]  # a cotangent like any other
        call = softmaxkit.vjp(call)
    elif case.operation in LOSSES + LINEAR_LOSSES:
        call = softmaxkit.value_and_grad(call)
    return partial(call, x, *others, **options), x


def attempted(function, *arguments):
    """Return a result, and the exception in a line if there is one."""
    try:
        return function(*arguments), ""
    except Exception as error:
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:300]


def compile_for(device, function, mode=None):
    if device == "cpu":  # all but the C++ compiler's seconds
        return torch.compile(function, dynamic=False, backend="aot_eager")
    return torch.compile(function, dynamic=False, mode=mode)


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


# --- libraries ------------------------------------------------------------------------------------
def torch_on(device):
    adapter = conformance.load("torch")
    if device == "cpu":
        return adapter
    return replace(
        adapter,
        name=f"torch {torch.__version__}, {torch.cuda.get_device_name()}",
        to_backend=lambda array, dtype: adapter.to_backend(array, dtype).to(device),
        to_numpy=lambda tensor: adapter.to_numpy(tensor.cpu()),
        lacks=ON_DEVICE,
    )


def jax_on_gpu():
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs some, too
    import jax

    device = jax.devices("gpu")[0].device_kind
    return replace(conformance.load("jax"), name=f"JAX {jax.__version__}, {device}")


def cupy_on_gpu():
    import cupy

    cupy.cuda.runtime.getDeviceCount()  # raises an error where there is none
    return Adapter(
        f"CuPy {cupy.__version__}",
        lambda array, dtype: cupy.asarray(array, dtype or array.dtype),
        cupy.asnumpy,
        lambda array: str(array.dtype),
        ON_DEVICE | dict.fromkeys(("bfloat16", "tracing", "autodiff"), "CuPy has none"),
    )

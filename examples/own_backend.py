"""Kernels of your own under softmaxkit's conformance suite, by an adapter of one page.

Here are three operations in NumPy, as someone else might have written them, without the other eight
and without most options. The suite runs what they can take, and says what it left out and why.
`python examples/own_backend.py` runs it once; in the folder of this file

    python -m softmaxkit check --backend own_backend:adapter
    SOFTMAXKIT_BACKENDS=own_backend:adapter python -m pytest --pyargs softmaxkit.conformance -rs

do so with tables of errors, and as tests.
"""

import inspect
from collections import Counter
from types import SimpleNamespace

import numpy as np

from softmaxkit import conformance


# --- the kernels ----------------------------------------------------------------------------------
def floats(x):
    """Return x in a floating dtype."""
    return x if x.dtype.kind == "f" else x.astype(float, casting="safe")  # complex: a TypeError


def parts(x, axis):
    """Return x below its maximum, how many are it, and the sum of the other exponentials."""
    rows = np.ascontiguousarray(np.moveaxis(x, axis, -1), float)
    below = rows - np.max(rows, -1, keepdims=True, initial=-np.inf)
    maxima = np.sum(below == 0, -1, keepdims=True)
    return below, maxima, np.sum(np.where(below == 0, 0, np.exp(below)), -1, keepdims=True)


@np.errstate(divide="ignore", invalid="ignore")  # rows of infinities and NaN
def softmax(x, axis=-1):
    """Return the probabilities of the classes."""
    x = floats(x)
    below, maxima, others = parts(x, axis)
    return np.moveaxis(np.exp(below) / (maxima + others), -1, axis).astype(x.dtype)


@np.errstate(divide="ignore", invalid="ignore")
def log_softmax(x, axis=-1):
    """Return their logarithms."""
    x = floats(x)
    below, maxima, others = parts(x, axis)
    # log1p, for the logarithm of a sum that is nearly 1 has no digits
    log_p = below - np.log(maxima) - np.log1p(others / maxima)
    return np.moveaxis(log_p, -1, axis).astype(x.dtype)


def cross_entropy(logits, labels, *, ignore_index=-100, reduction="mean"):
    """Return -log p of the labels."""
    return value_and_gradient(logits, labels, ignore_index, reduction)[0]


def value_and_gradient(logits, labels, ignore_index=-100, reduction="mean"):
    """Return cross_entropy and its gradient by the logits."""
    kept = labels != ignore_index
    if not ((labels >= 0) & (labels < logits.shape[-1]))[kept].all():
        raise IndexError("a label is out of range")
    one_hot = labels[..., None] == np.arange(logits.shape[-1])
    wide = logits.astype(float)
    log_p = log_softmax(wide)
    rows = np.where(kept, -np.sum(log_p, -1, where=one_hot), 0.0)
    by_logits = np.where(one_hot, np.expm1(log_p), softmax(wide))
    by_logits = np.where(kept[..., None], by_logits, 0.0)
    divisor = max(kept.sum(), 1) if reduction == "mean" else 1
    value = rows if reduction == "none" else rows.sum() / divisor
    return np.asarray(value).astype(logits.dtype), (by_logits / divisor).astype(logits.dtype)


# --- the adapter ----------------------------------------------------------------------------------
def to_backend(array, dtype):
    """Return an array of this library: here a NumPy array in that dtype."""
    with np.errstate(over="ignore"):  # beyond the range of float16 is inf
        return np.array(array, dtype or array.dtype)


def lacks(case):
    """Say why a case of an operation that is there cannot be run, or nothing."""
    known = inspect.signature(getattr(functions, case.operation)).parameters
    for option in case.options:
        if option not in known:
            return f"{case.operation} has no {option}"
    if not isinstance(case.options.get("axis", -1), int):
        return "it takes one axis"
    if case.operation == "cross_entropy" and case.arrays[1].dtype.kind != "i":
        return "its labels are signed integers"
    if case.raises not in (None, IndexError):
        return "its errors are not softmaxkit's"
    return ""


functions = SimpleNamespace(
    softmax=softmax,
    log_softmax=log_softmax,
    cross_entropy=cross_entropy,
    value_and_grad=lambda loss: value_and_gradient,  # of the one loss there is
)
adapter = conformance.Adapter(
    name="own kernels",
    to_backend=to_backend,
    to_numpy=np.asarray,
    dtype_name=lambda array: array.dtype.name,
    lacks={
        "bfloat16": "NumPy has no such dtype",
        "tracing": "NumPy has no compiler",
        "autodiff": "NumPy has no autodiff",
    },
    transforms={"eager": conformance.Transform(reads_labels=True, lacks=lacks)},
    functions=functions,
)

if __name__ == "__main__":
    results = list(conformance.run(adapter))
    failed = [result for result in results if not result.passed]
    for result in failed:
        print(f"{result.case}, {result.what}: {result.problem}")
    print(f"{len(results)} checks in float32, {len(failed)} failed")
    left_out = Counter(filter(None, map(adapter.leaves_out, conformance.cases())))
    for reason, count in left_out.most_common():
        print(f"{count} cases not run: {reason}")

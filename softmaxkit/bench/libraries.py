"""On what is measured, and against what: each library's settings, autodiff, copy and rivals.

A rival is what a user of that library would write: a call of it, or the usual expression where it
has none. The classes are axis 1 everywhere; a rival that wants them last transposes, and that is
part of its time. Beside a linear loss stands the same one of all the logits at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

import softmaxkit
from softmaxkit._libraries import import_quietly, is_installed
from softmaxkit.bench.environment import usable_cores
from softmaxkit.bench.operations import EVERY_OPERATION, GAMMA, SMOOTHING

Function = Callable[..., Any]

NAMES = ("numpy", "torch", "jax", "tensorflow")
TORCH_CHUNKED = "torch, chunked"
# With the bytes of an element.
DTYPES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Rival:
    """Functions of (logits[, targets]), or (hidden, weight_matrix, labels), by operation.

    A library's autodiff differentiates ``functions["cross_entropy"]`` for "cross_entropy_grad";
    where it has none, ``functions["cross_entropy_grad"]`` returns (value, *gradients) itself.
    """

    functions: Mapping[str, Function]
    requires: str | None = None  # a package that may be missing


@dataclass(frozen=True)
class Library:
    """How to run a library.

    Parameters
    ----------
    array : callable
        ``array(numpy_array, dtype)``; None keeps integers as they are.
    copy : callable
        Copies an array into fresh memory.
    gradient : callable
        Takes a loss to a function that returns (value, *gradients), by all but the last argument;
        of rows that are not reduced it is the gradient of their sum.
    rivals : mapping
        By name, as the tables show it.
    autodiff : bool
        Whether `gradient` also takes the losses of rivals.
    settings : mapping
        Name -> what is done to a function before it is called, such as ``jit``.
    compiles_losses : bool
        Whether that is done to the loss, whose gradient is then taken, as torch is used.
    wait : callable, optional
        Waits until a result is there, where calls return before.
    variable : callable, optional
        Marks an array as one to differentiate by.
    threads : str
        How many it uses.
    """

    array: Function
    copy: Function
    gradient: Function
    rivals: Mapping[str, Rival]
    autodiff: bool = True
    settings: Mapping[str, Function] = field(default_factory=lambda: {"eager": _as_it_is})
    compiles_losses: bool = False
    wait: Function | None = None
    variable: Function = lambda array: array
    threads: str = ""


# Known before the library is imported.
SETTINGS = {
    "numpy": ("eager",),
    "torch": ("eager", "compile"),
    "jax": ("eager", "jit"),
    "tensorflow": ("eager", "tf.function", "XLA"),
}
# Those in which linear losses are measured unless others are named.
LINEAR_SETTINGS = SETTINGS | {
    "torch": ("eager",),
    "jax": ("jit",),
    "tensorflow": ("tf.function",),
}


def load(name: str, dtype: str) -> Library:
    """Import the library `name`, and return how to run it in `dtype`."""
    return {"numpy": _numpy, "torch": _torch, "jax": _jax, "tensorflow": _tensorflow}[name](dtype)


def contestants(library: Library, name: str, setting: str) -> dict[str, Function | str]:
    """Return softmaxkit and its rivals as functions of the inputs, or why there is none.

    A rival that has not the operation is left out.
    """
    operation = EVERY_OPERATION[name]
    axis = {} if operation.linear else {"axis": 1}
    gradient = library.gradient if operation.gradient else _as_it_is
    transform = library.settings[setting]

    def prepared(function: Function) -> Function:
        if library.compiles_losses:
            return gradient(transform(function))
        return transform(gradient(function))

    found: dict[str, Function | str] = {
        "softmaxkit": prepared(partial(operation.function, **axis, **operation.options))
    }
    for rival, its in library.rivals.items():
        differentiated = name.removesuffix("_grad") if library.autodiff else name
        if not its.functions.keys() & {name, differentiated}:
            continue
        if its.requires and not is_installed(its.requires):
            found[rival] = f"{its.requires} is not installed"
        elif name in its.functions:
            found[rival] = transform(its.functions[name])
        else:
            found[rival] = prepared(its.functions[differentiated])
    return found


def _as_it_is(function: Function) -> Function:
    return function


def _with_products(losses, product):
    """Return losses of logits, and the same of logits that are a product."""

    def of_product(loss):
        return lambda hidden, weight_matrix, labels: loss(product(hidden, weight_matrix), labels)

    names = "cross_entropy", "cross_entropy_smoothing", "cross_entropy_rows"
    return losses | {f"linear_{name}": of_product(losses[name]) for name in names}


def _module(name):
    """Return a module that may be missing, and then is not called."""
    return import_module(name) if is_installed(name.partition(".")[0]) else None


# --- NumPy ----------------------------------------------------------------------------------------
def _numpy(dtype):
    if dtype == "bfloat16":
        import_module("ml_dtypes")  # gives NumPy the dtype of that name
    special = _module("scipy.special")

    def scipy_cross_entropy(x, labels):
        log_p = special.log_softmax(x, axis=1)
        return -np.take_along_axis(log_p, labels[:, None], 1).mean()

    textbook = {
        "softmax": _textbook_softmax,
        "softmax_masked": lambda x, mask: _textbook_softmax(np.where(mask, x, -np.inf)),
        "log_softmax": _textbook_log_softmax,
        "cross_entropy": lambda x, labels: -_at_label(_textbook_log_softmax(x), labels).mean(),
        "cross_entropy_grad": _textbook_cross_entropy,
        "cross_entropy_smoothing_grad": partial(_textbook_cross_entropy, smoothing=SMOOTHING),
        "cross_entropy_probabilities_grad": _textbook_probabilities,
        "focal_loss_grad": _textbook_focal,
    }
    return Library(
        array=lambda array, dtype: np.array(array, dtype or array.dtype),
        copy=np.copy,
        gradient=softmaxkit.value_and_grad,
        autodiff=False,
        rivals={
            "scipy.special": Rival(
                {
                    "softmax": lambda x: special.softmax(x, axis=1),
                    "log_softmax": lambda x: special.log_softmax(x, axis=1),
                    "cross_entropy": scipy_cross_entropy,
                },
                requires="scipy",
            ),
            "textbook": Rival(textbook),
            # Our own kernels, so that the loop over chunks is all that differs.
            "whole logits": Rival(
                {
                    "linear_cross_entropy_grad": _whole,
                    "linear_cross_entropy_smoothing_grad": partial(
                        _whole, label_smoothing=SMOOTHING
                    ),
                    "linear_cross_entropy_rows_grad": partial(_whole, reduction="none"),
                }
            ),
        },
        threads=str(softmaxkit.get_num_threads()),
    )


def _whole(hidden, weight_matrix, labels, **options):
    loss = softmaxkit.value_and_grad(partial(softmaxkit.cross_entropy, **options))
    value, of_logits = loss(hidden @ weight_matrix.T, labels)
    return value, of_logits @ weight_matrix, of_logits.T @ hidden


def _at_label(array, labels):
    return np.take_along_axis(array, labels[:, None], 1)


def _textbook_softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _textbook_log_softmax(x):
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _textbook_cross_entropy(x, labels, smoothing=0.0):
    log_p = _textbook_log_softmax(x)
    rows = labels.size
    loss = -(1 - smoothing) * _at_label(log_p, labels).sum() / rows
    gradient = np.exp(log_p)
    if smoothing:
        loss -= smoothing * log_p.mean(axis=1).sum() / rows
        gradient -= smoothing / x.shape[1]
    at_label = _at_label(gradient, labels) - (1 - smoothing)
    np.put_along_axis(gradient, labels[:, None], at_label, 1)
    gradient /= rows
    return loss, gradient


def _textbook_probabilities(x, targets):
    log_p = _textbook_log_softmax(x)
    rows = x.size // x.shape[1]
    loss = -(targets * log_p).sum() / rows
    gradient = (np.exp(log_p) * targets.sum(axis=1, keepdims=True) - targets) / rows
    return loss, gradient


def _textbook_focal(x, labels):
    log_p = _textbook_log_softmax(x)
    rows = labels.size
    log_py = _at_label(log_p, labels)
    py = np.exp(log_py)
    loss = -((1 - py) ** GAMMA * log_py).sum() / rows
    # d loss / d log p_y, and d log p_y / d x = 1_y - p
    slope = (1 - py) ** (GAMMA - 1) * (GAMMA * py * log_py - (1 - py)) / rows
    gradient = -slope * np.exp(log_p)
    np.put_along_axis(gradient, labels[:, None], _at_label(gradient, labels) + slope, 1)
    return loss, gradient


# --- PyTorch --------------------------------------------------------------------------------------
def _torch(dtype):
    import torch
    from torch.nn import functional

    def gradient(loss):
        def forward_and_backward(*arrays):
            value = loss(*arrays)
            (value.sum() if value.ndim else value).backward()
            found = [value.detach()]
            for x in arrays[:-1]:
                found.append(x.grad)
                x.grad = None
            return tuple(found)

        return forward_and_backward

    def focal(x, labels):
        entropy = functional.cross_entropy(x, labels, reduction="none")
        return ((1 - torch.exp(-entropy)) ** GAMMA * entropy).mean()

    def compiled(function):
        torch.compiler.reset()  # of one function Dynamo keeps only so many programs
        return torch.compile(function, dynamic=False)

    cross_entropy = functional.cross_entropy
    losses = {
        "cross_entropy": cross_entropy,
        "cross_entropy_smoothing": partial(cross_entropy, label_smoothing=SMOOTHING),
        "cross_entropy_rows": partial(cross_entropy, reduction="none"),
    }
    chunked = {}
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):  # from 2.13 on; without smoothing
        # By default "compact", which has no scratch array for the gradient of the weight matrix,
        # and the smaller of its documented chunks: 16 rows of (4096, 65536) where width is 512.
        options = torch.nn.LinearCrossEntropyOptions()
        chunked["linear_cross_entropy"] = partial(functional.linear_cross_entropy, options=options)
        chunked["linear_cross_entropy_rows"] = partial(
            functional.linear_cross_entropy, options=options, reduction="none"
        )
    return Library(
        array=lambda array, dtype: torch.tensor(array, dtype=dtype and getattr(torch, dtype)),
        copy=torch.clone,
        gradient=gradient,
        rivals={
            "torch.nn.functional": Rival(
                {
                    "softmax": lambda x: functional.softmax(x, 1),
                    "softmax_masked": lambda x, mask: functional.softmax(
                        x.masked_fill(~mask, -torch.inf), 1
                    ),
                    "log_softmax": lambda x: functional.log_softmax(x, 1),
                    "cross_entropy_probabilities": cross_entropy,
                    "focal_loss": focal,
                    **_with_products(losses, functional.linear),
                }
            ),
            TORCH_CHUNKED: Rival(chunked),
        },
        variable=lambda x: x.detach().requires_grad_(),
        settings={"eager": _as_it_is, "compile": compiled},
        compiles_losses=True,
        threads=str(torch.get_num_threads()),
    )


# --- JAX ------------------------------------------------------------------------------------------
def _jax(dtype):
    import jax
    import jax.numpy as jnp

    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    optax = _module("optax")

    def per_row(x, labels):
        return optax.softmax_cross_entropy_with_integer_labels(x, labels, axis=1)

    def smoothing(x, labels):
        # optax.smooth_labels wants the classes last
        targets = optax.smooth_labels(jax.nn.one_hot(labels, x.shape[1], dtype=x.dtype), SMOOTHING)
        return optax.softmax_cross_entropy(jnp.moveaxis(x, 1, -1), targets).mean()

    def focal(x, labels):
        entropy = per_row(x, labels)
        return ((1 - jnp.exp(-entropy)) ** GAMMA * entropy).mean()

    losses = {
        "cross_entropy": lambda x, labels: per_row(x, labels).mean(),
        "cross_entropy_smoothing": smoothing,
        "cross_entropy_rows": per_row,
    }

    def gradient(loss):
        def number(variables, targets):
            value = loss(*variables, targets)
            return value.sum() if value.ndim else value

        differentiated = jax.value_and_grad(number)

        def forward_and_backward(*arrays):
            value, gradients = differentiated(arrays[:-1], arrays[-1])
            return value, *gradients

        return forward_and_backward

    return Library(
        array=jnp.asarray,
        copy=jnp.copy,
        gradient=gradient,
        rivals={
            "jax.nn": Rival(
                {
                    "softmax": lambda x: jax.nn.softmax(x, 1),
                    "softmax_masked": lambda x, mask: jax.nn.softmax(x, 1, where=mask),
                    "log_softmax": lambda x: jax.nn.log_softmax(x, 1),
                }
            ),
            "optax": Rival(
                {
                    "cross_entropy_probabilities": lambda x, targets: optax.softmax_cross_entropy(
                        x, targets, axis=1
                    ).mean(),
                    "focal_loss": focal,
                    **_with_products(losses, lambda a, b: a @ b.T),
                },
                requires="optax",
            ),
        },
        settings={"eager": _as_it_is, "jit": jax.jit},
        wait=jax.block_until_ready,
        threads="XLA's pool, which does not say",
    )


# --- TensorFlow -----------------------------------------------------------------------------------
def _tensorflow(dtype):
    tf = import_quietly("tensorflow")

    def gradient(loss):
        def forward_and_backward(*arrays):
            variables = arrays[:-1]
            with tf.GradientTape() as tape:
                tape.watch(variables)
                value = loss(*arrays)
            return value, *tape.gradient(value, variables)

        return forward_and_backward

    def classes_last(x):
        rank = len(x.shape)
        return x if rank == 2 else tf.transpose(x, (0, *range(2, rank), 1))

    def per_row(x, labels):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, classes_last(x))

    def probabilities(x, targets):
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, x, axis=1))

    def smoothing(x, labels):
        classes = x.shape[1]
        targets = tf.one_hot(labels, classes, axis=1, dtype=x.dtype)
        return probabilities(x, targets * (1 - SMOOTHING) + SMOOTHING / classes)

    def focal(x, labels):
        entropy = per_row(x, labels)
        return tf.reduce_mean((1 - tf.exp(-entropy)) ** GAMMA * entropy)

    losses = {
        "cross_entropy": lambda x, labels: tf.reduce_mean(per_row(x, labels)),
        "cross_entropy_smoothing": smoothing,
        "cross_entropy_rows": per_row,
    }
    return Library(
        array=lambda array, dtype: tf.cast(tf.constant(array), dtype or array.dtype),
        copy=lambda x: tf.raw_ops.DeepCopy(x=x),
        gradient=gradient,
        rivals={
            "tf.nn": Rival(
                {
                    "softmax": lambda x: tf.nn.softmax(x, axis=1),
                    "softmax_masked": lambda x, mask: tf.nn.softmax(
                        tf.where(mask, x, x.dtype.min), axis=1
                    ),
                    "log_softmax": lambda x: tf.nn.log_softmax(x, axis=1),
                    "cross_entropy_probabilities": probabilities,
                    "focal_loss": focal,
                    **_with_products(losses, partial(tf.matmul, transpose_b=True)),
                }
            )
        },
        settings={
            "eager": _as_it_is,
            "tf.function": partial(tf.function, autograph=False),
            "XLA": partial(tf.function, autograph=False, jit_compile=True),
        },
        threads=str(
            tf.config.threading.get_intra_op_parallelism_threads()
            or f"{usable_cores()}, one for each core"
        ),
    )

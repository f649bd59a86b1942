"""JAX: the operations, each jitted once for every set of static options."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from softmaxkit import _activations, _losses
from softmaxkit.backends import LinearOptions, LinearOutputs
from softmaxkit.backends.jax import arrays as ops
from softmaxkit.backends.jax import linear
from softmaxkit.backends.jax import rows as kernels
from softmaxkit.backends.jax.arrays import (
    as_dtype,
    as_index,
    asarray,
    default_float,
    device_of,
    has_values,
    is_accelerated,
    is_array,
    is_compiling,
    is_native,
    kind,
    same_length,
    shape,
    to_host,
    unusable,
    visible,
)

LIBRARY = "JAX"

# Static are options that decide shapes and dtypes, names, and a Python gamma, because x**2 is
# cheaper than a power. Traced are arrays, and numbers that a training loop may change at each step.
_STATIC = {
    **dict.fromkeys(("axis", "dtype", "ignore_index", "keepdims"), object),
    **dict.fromkeys(("reduction", "unseen"), object),
    "gamma": float,
    "normalizer": str,
}


# --- operations -----------------------------------------------------------------------------------
def activation(operation, x, options):
    return _activation(operation, *_split(options), x)


def vjp(operation, x, cotangent, options):
    return _vjp(operation, *_split(options), x, cotangent)


def loss(logits, targets, options):
    return _loss(*_split(options), logits, targets)


def value_and_grad(logits, targets, options):
    return _value_and_grad(*_split(options), logits, targets)


def linear_loss(operands, targets, options):
    return _linear_loss(*_split_linear(options), operands, targets)


def linear_value_and_grad(operands, targets, options):
    return _linear_value_and_grad(*_split_linear(options), operands, targets)


@partial(jax.jit, static_argnums=2)
def smooth_labels(targets, smoothing, axis, where):
    return _losses.smooth_labels(ops, targets, smoothing, axis, where)


@partial(jax.jit, static_argnums=(0, 2))
def by_rows(function, rows, options):
    return function(ops, rows, *options)


def each(work, blocks):
    for block in blocks:
        work(block)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def one_hot(labels, num_classes, axis, dtype, unseen):
    # Not in 8 bits, where class 256 would be class 0.
    labels = as_index(labels)
    out = jax.nn.one_hot(labels, num_classes, axis=axis, dtype=dtype or default_float(labels))
    if unseen is None:
        return out
    wrong = jnp.expand_dims((labels < 0) | (labels >= num_classes), axis)
    return jnp.where(wrong, jnp.nan, out)


# --- the same, each jitted once for every set of static options -----------------------------------
def _split(options):
    """Return the static options, with their type, and the traced ones."""
    static, traced = [], {}
    for name, value in zip(options._fields, options, strict=True):
        # None is traced: np.dtype("float64") == None is True, and JAX would use the wrong program.
        if value is not None and isinstance(value, _STATIC.get(name, ())):
            static.append((name, value))
        else:
            traced[name] = value
    return (type(options), tuple(static)), traced


def _joined(static, traced):
    of, pairs = static
    return of(**dict(pairs), **traced)


@partial(jax.jit, static_argnums=(0, 1))
def _activation(operation, static, traced, x):
    return getattr(_activations, operation)(ops, kernels, x, _joined(static, traced))


@partial(jax.jit, static_argnums=(0, 1))
def _vjp(operation, static, traced, x, cotangent):
    value, pull = jax.vjp(lambda x: _activation(operation, static, traced, x), x)
    return value, pull(cotangent.astype(value.dtype))[0]


@partial(jax.jit, static_argnums=0)
def _loss(static, traced, logits, targets):
    return _losses.loss(ops, kernels, logits, targets, _joined(static, traced))[0]


@partial(jax.jit, static_argnums=0)
def _value_and_grad(static, traced, logits, targets):
    value, pull = jax.vjp(lambda logits: _loss(static, traced, logits, targets), logits)
    return value, pull(jnp.ones_like(value))[0]


def _split_linear(options):
    static, traced = _split(options.of_logits)
    return (static, *options[1:]), traced


@partial(jax.jit, static_argnums=0)
def _linear_loss(static, traced, operands, targets):
    of_logits, *others = static
    return linear.loss(operands, targets, LinearOptions(_joined(of_logits, traced), *others))


@partial(jax.jit, static_argnums=0)
def _linear_value_and_grad(static, traced, operands, targets):
    def loss_of(operands):
        value = _linear_loss(static, traced, operands, targets)
        return value.loss if isinstance(value, LinearOutputs) else value, value

    loss, pull, value = jax.vjp(loss_of, operands, has_aux=True)
    return value, pull(jnp.ones_like(loss))[0]

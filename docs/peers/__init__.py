"""The calls of docs/semantics_evidence.md in other libraries' words: a module for each library.

A function there has the name of an operation and takes softmaxkit's arguments, but only those that
the library has an argument (or an official function) for; from its signature is read what the
library does not offer. Arrays are handed on as they come. Where the library fixes the class axis,
the axis is moved there; where it returns rows, they are reduced by its own sum or mean.
"""

import os
from dataclasses import replace
from importlib import import_module, metadata
from typing import NamedTuple

from softmaxkit.conformance import Adapter, load

os.environ["KERAS_BACKEND"] = "tensorflow"  # read when Keras is imported
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"  # the default on Linux only; it changes what NaN gives


class Peer(NamedTuple):
    """A library that is called beside softmaxkit."""

    name: str  # in the tables
    module: str  # of this package
    adapter: str  # whose arrays and gradients it takes
    packages: tuple[str, ...]
    called: str


PEERS = (
    Peer("torch", "torch", "torch", ("torch",), "`torch.nn.functional`, `torch.logsumexp`"),
    Peer(
        "JAX",
        "jax",
        "jax",
        ("jax", "optax"),
        "`jax.nn`, with 64-bit types enabled, and `optax`: for one-hot and probabilities "
        "`safe_softmax_cross_entropy` where its arguments suffice",
    ),
    Peer(
        "Keras",
        "keras",
        "tensorflow",
        ("tensorflow-cpu", "keras"),
        "`keras.ops`, `keras.losses`, `keras.layers.Softmax` for `where`; on TensorFlow",
    ),
    Peer(
        "TensorFlow",
        "tensorflow",
        "tensorflow",
        ("tensorflow-cpu",),
        "`tf.nn`, `tf.reduce_logsumexp`, `tf.one_hot`",
    ),
    Peer(
        "SciPy",
        "scipy",
        "numpy",
        ("scipy",),
        "`scipy.special`, with `b` for `where`; it has no gradients",
    ),
)


class NotOffered(Exception):  # noqa: N818 - a fact about the library, not an error
    """The library has no argument for what the call asks: the names of what it lacks."""


def installed() -> dict[str, str]:
    """Return the version of each package of a peer that is installed."""
    versions = {}
    for package in dict.fromkeys(package for peer in PEERS for package in peer.packages):
        try:
            versions[package] = metadata.version(package).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return versions


def adapter(peer: Peer) -> Adapter:
    """Return a library's adapter, with the operations that it has."""
    functions = import_module(f"{__name__}.{peer.module}")
    return replace(load(peer.adapter), name=peer.name, functions=functions)


def is_dense(x, y):
    """Return whether targets are given in the shape of the logits."""
    return len(x.shape) > 0 and tuple(x.shape) == tuple(y.shape)


def one_axis(axis):
    """Return an axis where the library takes no more than one."""
    if not isinstance(axis, int):
        raise NotOffered(f"axis={axis}")
    return axis


def reduced(rows, reduction, total, mean):
    """Reduce rows where the library leaves that to its user."""
    ways = {"none": lambda rows: rows, "sum": total, "mean": mean}
    if reduction not in ways:
        raise NotOffered(f"reduction={reduction!r}")
    return ways[reduction](rows)

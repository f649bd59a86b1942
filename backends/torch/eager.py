"""PyTorch: the kernels for eager tensors: `triton` where it serves them, else `blocks`.

Which of the two serves a tensor depends on its device and dtype only. The environment variable
SOFTMAXKIT_TRITON can be 0, for `blocks` alone, or "interpret": Triton's interpreter then runs the
kernels on CPU tensors, slowly, for tests and debuggers.
"""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch

from softmaxkit.backends.torch import blocks
from softmaxkit.backends.torch.memory import HALF

DTYPES = (torch.float32, *HALF)


class _Setting:
    """Whether Triton may be used; one that failed is not tried again."""

    device = "cpu" if os.environ.get("SOFTMAXKIT_TRITON") == "interpret" else "cuda"
    wanted = os.environ.get("SOFTMAXKIT_TRITON") != "0"
    failed = False


def use_triton(wanted=True):
    """Use Triton's kernels for CUDA tensors from now on, or, with False, only torch's operations.

    Without a call, they are used unless SOFTMAXKIT_TRITON=0 is set in the environment. After a
    kernel failed, ``use_triton()`` tries again.

    Examples
    --------
    >>> from softmaxkit.torch import use_triton
    >>> use_triton(False)
    >>> use_triton()
    """
    _Setting.wanted, _Setting.failed = bool(wanted), False


@contextmanager
def on_device(kind):
    """Let Triton's kernels serve the tensors of another kind of device, for tests."""
    before, _Setting.device = _Setting.device, kind
    try:
        yield
    finally:
        _Setting.device = before


def serves(x):
    """Return whether Triton's kernels take the tensor."""
    if x.device.type != _Setting.device or x.dtype not in DTYPES or not x.numel():
        return False
    return _Setting.wanted and not _Setting.failed and _is_installed()


@cache
def _is_installed():
    return find_spec("triton") is not None


def attempted(x, by_triton, by_torch):
    """Return `by_triton(its module)`, or `by_torch()` where Triton's kernels do not serve or fail.

    A kernel fails where Triton cannot compile it for the device, or finds no compiler for the code
    that launches it.
    """
    if serves(x):
        try:
            return by_triton(import_module("softmaxkit.backends.torch.triton"))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            _Setting.failed = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            warnings.warn(
                f"softmaxkit: a Triton kernel failed on {x.device} ({reason}); torch's operations "
                f"serve from now on, slower and with the same results. SOFTMAXKIT_TRITON=0 in the "
                f"environment turns Triton off without this warning.",
                RuntimeWarning,
                stacklevel=2,
            )
    return by_torch()


# --- the functions of `blocks` --------------------------------------------------------------------
def softmax(x, axis, dtype):
    return _call("softmax", x, axis, dtype)


def log_softmax(x, axis, dtype):
    return _call("log_softmax", x, axis, dtype)


def softmax_gradient(p, cotangent, axis):
    return _call("softmax_gradient", p, cotangent, axis)


def softmax_gradient_of_logits(x, cotangent, axis):
    return _call("softmax_gradient_of_logits", x, cotangent, axis)


def row_statistics(x, request, lse, keep):
    return _call("row_statistics", x, request, lse, keep)


def row_gradient(x, request, kept, of_rows):
    if kept.p is not None:  # the gradient overwrites it
        return blocks.row_gradient(x, request, kept, of_rows)
    return _call("row_gradient", x, request, kept, of_rows)


def _call(name, x, *arguments):
    return attempted(
        x,
        lambda triton: getattr(triton, name)(x, *arguments),
        lambda: getattr(blocks, name)(x, *arguments),
    )

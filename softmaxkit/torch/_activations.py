"""The activations of `torch.nn.functional`, by softmaxkit."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

import softmaxkit
from softmaxkit.torch._conventions import FLOATS, dense_together, dtype_of


def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """Probabilities along `dim`, as `torch.nn.functional.softmax`.

    Parameters
    ----------
    input : Tensor
        Of any shape.
    dim : int, optional
        None is deprecated: it means 0 for 0, 1 and 3 axes, else 1, and gives torch's warning.
    dtype : torch.dtype, optional
        Dtype of the result; that of `input` by default. Arithmetic is float32 or wider.

    Returns
    -------
    Tensor
        In the shape of `input`.

    Raises
    ------
    Exception
        As torch.

    Examples
    --------
    >>> import torch, softmaxkit.torch as F
    >>> F.softmax(torch.tensor([2.0, 1.0, 0.0]), dim=0)
    tensor([0.6652, 0.2447, 0.0900])
    """
    if dim is None:
        dim = _implicit_dim("softmax", input.dim(), _stacklevel)
    theirs = torch.nn.functional.softmax
    return _activation(softmaxkit.softmax, theirs, input, dim, dtype)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """Log-probabilities along `dim`, as `torch.nn.functional.log_softmax`; exact near 0.

    Parameters
    ----------
    input, dim, dtype
        As for `softmax`.

    Returns
    -------
    Tensor
        In the shape of `input`.

    Raises
    ------
    Exception
        As torch.

    Examples
    --------
    >>> import torch, softmaxkit.torch as F
    >>> F.log_softmax(torch.tensor([30.0, 0.0]), dim=0)  # torch's first is 0
    tensor([-9.3576e-14, -3.0000e+01])
    """
    if dim is None:
        dim = _implicit_dim("log_softmax", input.dim(), _stacklevel)
    theirs = torch.nn.functional.log_softmax
    return _activation(softmaxkit.log_softmax, theirs, input, dim, dtype)


def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """Softmax of ``-input`` along `dim`, as `torch.nn.functional.softmin`.

    Parameters
    ----------
    input, dim, dtype
        As for `softmax`.

    Returns
    -------
    Tensor
        In the shape of `input`.

    Raises
    ------
    Exception
        As torch.

    Examples
    --------
    >>> import torch, softmaxkit.torch as F
    >>> F.softmin(torch.tensor([2.0, 1.0, 0.0]), dim=0)
    tensor([0.0900, 0.2447, 0.6652])
    """
    if dim is None:
        dim = _implicit_dim("softmin", input.dim(), _stacklevel)
    theirs = torch.nn.functional.softmin
    return _activation(_softmin, theirs, input, dim, dtype)


def _softmin(x: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    return softmaxkit.softmax(-x, dim, dtype=dtype)


def _implicit_dim(name: str, ndim: int, stacklevel: int) -> int:
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. "
        "Change the call to include dim=X as an argument.",
        stacklevel=stacklevel,
    )
    return 0 if ndim in (0, 1, 3) else 1


def _activation(
    ours: Callable[..., Tensor],
    theirs: Callable[..., Tensor],
    input: Tensor,
    dim: int,
    dtype: torch.dtype | None,
) -> Tensor:
    if isinstance(input, Tensor) and dense_together(input) and _is_axis(dim, input.ndim):
        result = dtype
        if dtype is None:
            # On the CPU, torch's autocast leaves activations in half precision.
            result = input.dtype if input.device.type == "cpu" else dtype_of(input)
        numbers = not (input.is_floating_point() or input.is_complex() or input.is_quantized)
        if result in FLOATS and (numbers or input.dtype in FLOATS):
            return ours(input, dim, dtype=result)
    return theirs(input, dim, dtype=dtype)


def _is_axis(dim: object, ndim: int) -> bool:
    return isinstance(dim, int) and not isinstance(dim, bool) and -ndim <= dim < ndim

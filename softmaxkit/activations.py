"""Softmax, log-softmax and logsumexp, along any axis or axes of any library's array."""

from __future__ import annotations

from typing import Any, overload

from softmaxkit._arguments import begin, flag
from softmaxkit._typing import (
    AnyArray,
    ArrayLike,
    ArrayOf,
    ArrayT,
    Axis,
    NumpyArray,
    NumpyLike,
    NumpyResult,
)
from softmaxkit.backends import ActivationOptions

__all__ = ["log_softmax", "logsumexp", "softmax"]


# fmt: off
@overload
def softmax(
    x: NumpyLike, axis: Axis = -1, *, where: ArrayLike | None = None, temperature: ArrayLike = 1.0,
    dtype: Any = None,
) -> NumpyArray: ...
@overload
def softmax(
    x: ArrayOf[ArrayT], axis: Axis = -1, *, where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0, dtype: Any = None,
) -> ArrayT: ...
# fmt: on
def softmax(
    x: AnyArray,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    dtype: Any = None,
) -> Any:
    """Probabilities e^(x_i/T) / Σ_j e^(x_j/T), computed from x minus its maximum.

    Parameters
    ----------
    x : array
        Logits of any shape. Integers and booleans first become the library's default float.
    axis : int, tuple of int, or None, default -1
        The axis or axes over which the result sums to 1; None for all of them.
    where : bool array that broadcasts to `x`, optional
        True where an entry takes part. The other entries may hold anything; their result and
        gradient are 0. A row without any True is all 0.
    temperature : positive number or array that broadcasts to `x`, default 1
        T, which divides `x`: above 1 the probabilities are flatter, below 1 sharper.
    dtype : floating dtype or its name, optional
        Of the result; that of `x` by default. Arithmetic is float32 or wider in any case.

    Returns
    -------
    array
        Same library, shape, dtype and device as `x`. A row that holds NaN or +inf, or nothing but
        -inf, is NaN.

    Raises
    ------
    TypeError
        `x` is not an array, or is complex; `where` is not boolean.
    ValueError
        `temperature` is not positive; `where` or `temperature` does not broadcast.
    numpy.exceptions.AxisError
        `axis` is out of range.

    References
    ----------
    Bridle 1990, "Probabilistic interpretation of feedforward classification network outputs".

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> softmaxkit.softmax(np.array([2.0, 1.0, 0.0])).round(3)
    array([0.665, 0.245, 0.09 ])
    >>> softmaxkit.softmax(np.array([2.0, 1.0, 0.0]), where=[True, True, False]).round(3)
    array([0.731, 0.269, 0.   ])
    """
    return _activation("softmax", x, axis, where, dtype, temperature=temperature)


# fmt: off
@overload
def log_softmax(
    x: NumpyLike, axis: Axis = -1, *, where: ArrayLike | None = None, temperature: ArrayLike = 1.0,
    dtype: Any = None,
) -> NumpyArray: ...
@overload
def log_softmax(
    x: ArrayOf[ArrayT], axis: Axis = -1, *, where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0, dtype: Any = None,
) -> ArrayT: ...
# fmt: on
def log_softmax(
    x: AnyArray,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    dtype: Any = None,
) -> Any:
    """Log-probabilities x_i/T - log Σ_j e^(x_j/T), accurate in saturated rows too.

    The maximum is kept out of the sum: with d = (x - max x)/T, of which n are 0, the result is
    d_i - log1p(Σ_{d_j<0} e^(d_j) + n - 1). So the log-probability of a dominating class keeps its
    digits, where the logarithm of the whole sum would be rounded to 0.

    Parameters
    ----------
    x, axis, where, temperature, dtype
        As for `softmax`, but entries that do not take part give -inf.

    Returns
    -------
    array
        Same library, shape, dtype and device as `x`.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax`.

    References
    ----------
    Blanchard, Higham & Higham 2021, "Accurately computing the log-sum-exp and softmax functions",
    doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> softmaxkit.log_softmax(np.array([30.0, 0.0], dtype=np.float32))
    array([-9.357623e-14, -3.000000e+01], dtype=float32)
    """
    return _activation("log_softmax", x, axis, where, dtype, temperature=temperature)


# fmt: off
@overload
def logsumexp(
    x: NumpyLike, axis: Axis = -1, *, where: ArrayLike | None = None, keepdims: bool = False,
    dtype: Any = None,
) -> NumpyResult: ...
@overload
def logsumexp(
    x: ArrayOf[ArrayT], axis: Axis = -1, *, where: ArrayLike | None = None, keepdims: bool = False,
    dtype: Any = None,
) -> ArrayT: ...
# fmt: on
def logsumexp(
    x: AnyArray,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    dtype: Any = None,
) -> Any:
    """Logarithm of a sum of exponentials, log Σ_j e^(x_j).

    Parameters
    ----------
    x, axis, where, dtype
        As for `softmax`.
    keepdims : bool, default False
        Keep the reduced axes, with length 1.

    Returns
    -------
    array
        Shape of `x` without `axis`. Where no entry takes part, or every entry is -inf, the result
        is -inf and the gradient 0.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As `softmax`.

    References
    ----------
    Blanchard, Higham & Higham 2021, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> float(softmaxkit.logsumexp(np.array([1000.0, 1000.0])))
    1000.6931471805599
    """
    return _activation("logsumexp", x, axis, where, dtype, keepdims=keepdims)


def _activation(
    name: str, x: Any, axis: Axis, where: Any, dtype: Any, *, temperature: Any = 1.0,
    keepdims: Any = False,
) -> Any:  # fmt: skip
    call = begin(name, "x", x)
    if call.backend is None:
        return call.recorded(globals()[name], locals())
    call.real_kind("x", call.array)
    options = ActivationOptions(
        axis=call.axes(axis),
        where=call.mask(where),
        temperature=call.temperature(temperature),
        dtype=call.dtype(dtype),
        keepdims=flag(name, "keepdims", keepdims),
    )
    return call.activation(options)

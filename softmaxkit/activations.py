"""Softmax, log-softmax and logsumexp, along any axis or axes of any library's array."""

from __future__ import annotations

from typing import Any

from softmaxkit import _arguments as check
from softmaxkit._dispatch import resolve

__all__ = ["log_softmax", "logsumexp", "softmax"]

_ONE = 1.0  # the default temperature, told by identity


def softmax(
    x: Any,
    axis: check.Axis = -1,
    *,
    where: Any = None,
    temperature: Any = _ONE,
    dtype: Any = None,
) -> Any:
    r"""Probabilities :math:`e^{x_i/T} / \sum_j e^{x_j/T}`, computed from x minus its maximum.

    Parameters
    ----------
    x : array
        Logits of any shape, floating, integer or boolean (the last two become the library's
        default float first).
    axis : int, tuple of int, or None, default -1
        The axis or axes over which the result sums to 1; None for all of them.
    where : bool array that broadcasts to `x`, optional
        True where an entry takes part. The others give 0, get no gradient, and may hold anything;
        so does a row with no entry left.
    temperature : positive number or array that broadcasts to `x`, default 1
        Divides `x`: above 1 flatter, below 1 sharper.
    dtype : floating dtype or its name, optional
        Of the result. Arithmetic is float32 or wider whatever it is.

    Returns
    -------
    array
        Same library, shape, dtype and device as `x`. A row that holds NaN or +inf, or -inf alone,
        is NaN.

    Raises
    ------
    TypeError
        `x` is no array, or complex; `where` is not boolean.
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
    backend, x = resolve("softmax", "x", x)
    # The common call, without the 0.2 µs of checks that it cannot fail.
    if type(axis) is int and where is None and temperature is _ONE and dtype is None:
        ndim = x.ndim
        if -ndim <= axis < ndim and backend.kind(x) == "float":
            try:
                return backend.softmax(x, axis % ndim, None, None, None)
            except RuntimeError:  # a sparse tensor, to which this is no common call
                check.real_kind("softmax", "x", backend, x)
                raise
    axis, where, temperature, dtype = _options(
        "softmax", backend, x, axis, where, temperature, dtype
    )
    return backend.softmax(x, axis, where, temperature, dtype)


def log_softmax(
    x: Any,
    axis: check.Axis = -1,
    *,
    where: Any = None,
    temperature: Any = _ONE,
    dtype: Any = None,
) -> Any:
    r"""Log-probabilities :math:`x_i/T - \log\sum_j e^{x_j/T}`, accurate in saturated rows too.

    The maximum is kept out of the sum, :math:`d_i - \log(1 + \sum_{d_j<0} e^{d_j} + (n_{max}-1))`
    with :math:`d = (x - \max x)/T`, so that the log-probability of a dominating class keeps its
    digits where log(sum) rounds it to 0.

    Parameters
    ----------
    x, axis, where, temperature, dtype
        As for `softmax`. Entries that do not take part give -inf.

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
    backend, x = resolve("log_softmax", "x", x)
    # The common call, without the 0.2 µs of checks that it cannot fail.
    if type(axis) is int and where is None and temperature is _ONE and dtype is None:
        ndim = x.ndim
        if -ndim <= axis < ndim and backend.kind(x) == "float":
            try:
                return backend.log_softmax(x, axis % ndim, None, None, None)
            except RuntimeError:  # a sparse tensor, to which this is no common call
                check.real_kind("log_softmax", "x", backend, x)
                raise
    axis, where, temperature, dtype = _options(
        "log_softmax", backend, x, axis, where, temperature, dtype
    )
    return backend.log_softmax(x, axis, where, temperature, dtype)


def logsumexp(
    x: Any,
    axis: check.Axis = -1,
    *,
    where: Any = None,
    keepdims: bool = False,
    dtype: Any = None,
) -> Any:
    r"""Logarithm of a sum of exponentials, :math:`\log\sum_j e^{x_j}`.

    Parameters
    ----------
    x, axis, where, dtype
        As for `softmax`.
    keepdims : bool, default False
        Keep the reduced axes, with length 1.

    Returns
    -------
    array
        Shape of `x` without `axis`. -inf where nothing takes part or every entry is -inf, with a
        gradient of 0.

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
    backend, x = resolve("logsumexp", "x", x)
    axis, where, _, dtype = _options("logsumexp", backend, x, axis, where, 1.0, dtype)
    keepdims = check.flag("logsumexp", "keepdims", keepdims)
    return backend.logsumexp(x, axis, where, keepdims, dtype)


def _options(
    call: str, backend: Any, x: Any, axis: Any, where: Any, temperature: Any, dtype: Any
) -> tuple[Any, Any, Any, Any]:
    check.real_kind(call, "x", backend, x)
    axis = check.any_axes(call, axis, x.ndim)
    where = check.mask(call, backend, where, x, "x")
    temperature = check.temperature(call, backend, temperature, x, "x")
    return axis, where, temperature, check.float_dtype(call, backend, dtype, x)

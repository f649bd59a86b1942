"""Class labels as probabilities: one-hot, and smoothed."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from softmaxkit._arguments import Call, begin, count, one_axis
from softmaxkit._targets import labels_in_range
from softmaxkit._typing import AnyArray, ArrayLike, ArrayOf, ArrayT, Number, NumpyArray, NumpyLike

__all__ = ["one_hot", "smooth_labels"]


# fmt: off
@overload
def one_hot(
    labels: NumpyLike | int | np.integer, num_classes: int, *, axis: int = -1, dtype: Any = None
) -> NumpyArray: ...
@overload
def one_hot(
    labels: ArrayOf[ArrayT], num_classes: int, *, axis: int = -1, dtype: Any = None
) -> ArrayT: ...
# fmt: on
def one_hot(
    labels: AnyArray | int | np.integer,
    num_classes: int,
    *,
    axis: int = -1,
    dtype: Any = None,
) -> Any:
    """Probabilities that are 1 at the label and 0 elsewhere.

    Parameters
    ----------
    labels : integer array
        Class indices in [0, num_classes).
    num_classes : int
        C, at least 1.
    axis : int, default -1
        The class axis of the result.
    dtype : floating dtype or its name, optional
        Of the result; the library's default float by default.

    Returns
    -------
    array
        The shape of `labels` with C inserted at `axis`.

    Raises
    ------
    TypeError
        `labels` are not integers.
    ValueError
        `num_classes` is below 1.
    IndexError
        A label is out of range. Where labels cannot be read, its row is NaN instead. A TensorFlow
        graph on the CPU raises TensorFlow's InvalidArgumentError when it runs.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> softmaxkit.one_hot(np.array([2, 0]), 3)
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    call = begin("one_hot", "labels", labels)
    if call.backend is None:
        return call.recorded(one_hot, locals())
    if call.backend.kind(call.array) != "int":
        raise TypeError(
            f"one_hot: labels has dtype {call.array.dtype}; expected integers; "
            f"convert it with astype."
        )
    return _one_hot(call, num_classes, axis, dtype)


# fmt: off
@overload
def smooth_labels(
    targets: NumpyLike | int | np.integer, smoothing: Number, *, num_classes: int | None = None,
    axis: int = -1, where: ArrayLike | None = None,
) -> NumpyArray: ...
@overload
def smooth_labels(
    targets: ArrayOf[ArrayT], smoothing: Number, *, num_classes: int | None = None, axis: int = -1,
    where: ArrayLike | None = None,
) -> ArrayT: ...
# fmt: on
def smooth_labels(
    targets: AnyArray | int | np.integer,
    smoothing: Number,
    *,
    num_classes: int | None = None,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> Any:
    """Spread a part of the probability evenly over all K classes: (1-α) y + α/K.

    Parameters
    ----------
    targets : array
        Floats are probabilities, with the classes along `axis`. Integers are class indices, which
        need `num_classes`.
    smoothing : float in [0, 1]
        α.
    num_classes : int, optional
        C; needed for class indices.
    axis : int, default -1
        The class axis of the result.
    where : bool array that broadcasts to the result, optional
        True where a class takes part. K counts those classes; the others get no share of the
        smoothing.

    Returns
    -------
    array
        Probabilities, in the dtype of `targets`; for class indices in the library's default float.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `one_hot`; ValueError for `smoothing` outside [0, 1].

    References
    ----------
    Szegedy et al. 2016, "Rethinking the Inception architecture", arXiv:1512.00567, section 7.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> softmaxkit.smooth_labels(np.array([2, 0]), 0.3, num_classes=3).round(2)
    array([[0.1, 0.1, 0.8],
           [0.8, 0.1, 0.1]])
    """
    call = begin("smooth_labels", "targets", targets)
    if call.backend is None:
        return call.recorded(smooth_labels, locals())
    kind = call.real_kind("targets", call.array)
    if kind == "bool":
        raise TypeError(
            f"{call.name}: targets has dtype {call.array.dtype}; expected integers for class "
            f"indices or floats for probabilities; convert it to one of those."
        )
    if kind == "int":
        if num_classes is None:
            raise ValueError(
                f"{call.name}: num_classes is None; expected an int for class indices; "
                f"pass the number of classes."
            )
        call = begin(call.name, "targets", _one_hot(call, num_classes, axis, None))
    elif num_classes is not None:
        count(call.name, "num_classes", num_classes, "pass the number of classes")
    axis = call.class_axis(axis)
    classes = call.shape[axis]
    if num_classes is not None and classes not in (None, num_classes):
        raise ValueError(
            f"{call.name}: num_classes is {num_classes}; expected {classes}, the length of axis "
            f"{axis} of targets; leave it out for probabilities."
        )
    smoothing = call.number("smoothing", smoothing, 0.0, 1.0, neutral=0.0)
    return call.backend.smooth_labels(call.array, smoothing, axis, call.mask(where))


def _one_hot(call: Call, num_classes: Any, axis: Any, dtype: Any) -> Any:
    count(call.name, "num_classes", num_classes, "pass the number of classes")
    axis = one_axis(call.name, axis, len(call.shape) + 1)
    visible = call.backend.visible(call.array)
    unseen, _ = labels_in_range(
        call.name, call.argument, visible, int(num_classes), None, ignorable=False
    )
    dtype = call.dtype(dtype)
    return call.backend.one_hot(call.array, int(num_classes), axis, dtype, unseen)

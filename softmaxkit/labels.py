"""Class labels as probabilities: one-hot, and smoothed."""

from __future__ import annotations

from typing import Any

from softmaxkit import _arguments as check
from softmaxkit._dispatch import resolve
from softmaxkit._targets import labels_in_range

__all__ = ["one_hot", "smooth_labels"]


def one_hot(labels: Any, num_classes: int, *, axis: int = -1, dtype: Any = None) -> Any:
    """Probabilities that are 1 at the label and 0 elsewhere.

    Parameters
    ----------
    labels : integer array
        Class indices in [0, num_classes).
    num_classes : int
        C, at least 1.
    axis : int, default -1
        Where the result has its class axis.
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
        A label is out of range; where labels cannot be read, its row is NaN instead.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> softmaxkit.one_hot(np.array([2, 0]), 3)
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    call = "one_hot"
    backend, labels = resolve(call, "labels", labels)
    if backend.kind(labels) != "int":
        raise TypeError(
            f"{call}: labels has dtype {labels.dtype}; expected integers; convert it with astype."
        )
    return _one_hot(call, "labels", backend, labels, num_classes, axis, dtype)


def smooth_labels(
    targets: Any,
    smoothing: float,
    *,
    num_classes: int | None = None,
    axis: int = -1,
    where: Any = None,
) -> Any:
    """Move a part of the probability to all classes alike: y(1-α) + α/K.

    Parameters
    ----------
    targets : array
        Floats: probabilities with the classes along `axis`. Integers: class indices, which need
        `num_classes`.
    smoothing : float in [0, 1]
        α.
    num_classes : int, optional
        For class indices.
    axis : int, default -1
        The class axis of the result.
    where : bool array that broadcasts to the result, optional
        True where a class takes part; K counts those, and the others get
        no share of the smoothing.

    Returns
    -------
    array
        Probabilities; for class indices in the library's default float.

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
    call = "smooth_labels"
    backend, targets = resolve(call, "targets", targets)
    kind = check.real_kind(call, "targets", backend, targets)
    if kind == "bool":
        raise TypeError(
            f"{call}: targets has dtype {targets.dtype}; expected integers for class indices or "
            f"floats for probabilities; convert it to one of those."
        )
    if kind == "int":
        if num_classes is None:
            raise ValueError(
                f"{call}: num_classes is None; expected an int for class indices; "
                f"pass the number of classes."
            )
        targets = _one_hot(call, "targets", backend, targets, num_classes, axis, None)
    elif num_classes is not None:
        check.count(call, "num_classes", num_classes, "pass the number of classes")
    axis = check.class_axis(call, axis, len(backend.shape(targets)), "targets")
    classes = backend.shape(targets)[axis]
    if num_classes is not None and classes not in (None, num_classes):
        raise ValueError(
            f"{call}: num_classes is {num_classes}; expected {classes}, the length of axis {axis} "
            f"of targets; leave it out for probabilities."
        )
    return backend.smooth_labels(
        targets,
        check.number(call, "smoothing", backend, smoothing, targets, 0.0, 1.0, 0.0),
        axis,
        check.mask(call, backend, where, targets, "targets"),
    )


def _one_hot(
    call: str, name: str, backend: Any, labels: Any, num_classes: Any, axis: Any, dtype: Any
) -> Any:
    check.count(call, "num_classes", num_classes, "pass the number of classes")
    axis = check.one_axis(call, axis, len(backend.shape(labels)) + 1)
    checked, _ = labels_in_range(
        call, name, backend.visible(labels), int(num_classes), None, ignorable=False
    )
    dtype = check.float_dtype(call, backend, dtype, labels)
    return backend.one_hot(labels, int(num_classes), axis, dtype, checked)

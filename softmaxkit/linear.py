"""Cross-entropy of a linear layer's logits, which are never whole."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np

from softmaxkit._arguments import choice
from softmaxkit._product import Product
from softmaxkit._targets import class_targets
from softmaxkit._typing import (
    AnyArray,
    ArrayLike,
    ArrayOf,
    ArrayT,
    LinearOutputs,
    Normalizer,
    Number,
    NumpyLike,
    NumpyResult,
    Reduced,
    Reduction,
)
from softmaxkit.backends import ClassOptions, LinearOptions

__all__ = ["linear_cross_entropy"]


# fmt: off
@overload
def linear_cross_entropy(
    hidden: NumpyLike, weight_matrix: ArrayLike, targets: ArrayLike, *,
    bias: ArrayLike | None = None, softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None, outputs: Literal["loss"] = "loss",
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, z_loss: Number = 0.0, reduction: Reduced = "mean",
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> np.floating: ...
@overload
def linear_cross_entropy(
    hidden: NumpyLike, weight_matrix: ArrayLike, targets: ArrayLike, *,
    bias: ArrayLike | None = None, softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None, outputs: Literal["loss"] = "loss",
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, z_loss: Number = 0.0, reduction: Literal["none"],
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> NumpyResult: ...
@overload
def linear_cross_entropy(
    hidden: NumpyLike, weight_matrix: ArrayLike, targets: ArrayLike, *,
    bias: ArrayLike | None = None, softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None, outputs: Literal["all"],
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, z_loss: Number = 0.0, reduction: Reduction = "mean",
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> LinearOutputs[NumpyResult]: ...
@overload
def linear_cross_entropy(
    hidden: ArrayOf[ArrayT], weight_matrix: ArrayLike, targets: ArrayLike, *,
    bias: ArrayLike | None = None, softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None, outputs: Literal["loss"] = "loss",
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, z_loss: Number = 0.0, reduction: Reduction = "mean",
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> ArrayT: ...
@overload
def linear_cross_entropy(
    hidden: ArrayOf[ArrayT], weight_matrix: ArrayLike, targets: ArrayLike, *,
    bias: ArrayLike | None = None, softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None, outputs: Literal["all"],
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, z_loss: Number = 0.0, reduction: Reduction = "mean",
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> LinearOutputs[ArrayT]: ...
# fmt: on
def linear_cross_entropy(
    hidden: AnyArray,
    weight_matrix: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None,
    outputs: Literal["loss", "all"] = "loss",
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0,
    z_loss: Number = 0.0,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> Any:
    """Cross-entropy of logits z = h Wᵀ + b, of which only some rows exist at a time.

    It equals ``cross_entropy(hidden @ weight_matrix.T + bias, targets, ...)``, but needs the memory
    of one chunk of logits only, for its gradients too. With a large vocabulary the logits would be
    the largest array of a model. If the loss is reduced to one number, its gradient is computed
    chunk by chunk in the forward pass. With ``reduction="none"`` or ``outputs="all"`` the backward
    pass computes the chunks again. Second derivatives keep all chunks; on PyTorch `torch.func` and
    forward mode do so, too.

    Parameters
    ----------
    hidden : (..., D) floating array
        One vector for each row.
    weight_matrix : (V, D) array
        One vector for each class: the layout of a linear layer's weight, or of an embedding table.
    targets : array, or list
        Integers are class indices in [0, V), in the shape (...). Floats are probabilities (..., V).
    bias : (V,) array, optional
    softcap : positive number, optional
        The logits become softcap · tanh(z / softcap).
    chunk_size : int, or pair of ints, optional
        How many rows of logits exist at a time. By default as many as make 2^24 logits, which is
        64 MiB of float32, or on an accelerator 2^26 (not measured on one), but at least 16. A pair
        gives the number of rows, or None, and of classes: then the vocabulary is cut, too, for
        where a few rows are too large. With a gradient that takes a third more time, since each
        block is computed twice. JAX does not cut the vocabulary for ``reduction="none"``.
    outputs : {"loss", "all"}
        With "all" the result is a named tuple, `LinearOutputs`, of the loss and of what the same
        pass gives of each row.
    weight : (V,) array, optional
        Weight of each class.
    sample_weight : array that broadcasts to the rows (...), optional
        Weight of each row.
    where : (V,) bool array, optional
        True where a class takes part.
    temperature : positive number or array that broadcasts to the rows (...), default 1
        Divides the logits.
    ignore_index, label_smoothing, z_loss, reduction, normalizer, dtype
        As for `cross_entropy`; arithmetic, and sums of gradients, are float32 or wider.

    Returns
    -------
    array
        0-d, or the shape of the rows for ``reduction="none"``, in the dtype of `hidden` unless
        `dtype` is given. With ``outputs="all"`` it is the `loss` of a named tuple, which also has,
        in the shape of the rows and in float32 or wider, `logsumexp` of the logits over the
        temperature, `log_prob` of the target (None for probability targets) and `entropy`, all in
        nats and differentiable, and the class of the largest logit, `argmax`. Rows that are left
        out, as `ignore_index` or a `sample_weight` of 0 says, have 0 there, and -1 in `argmax`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `cross_entropy`.

    References
    ----------
    Memory of one chunk: Wijmans et al. 2024, "Cut your losses in large-vocabulary language
    models", arXiv:2411.09009. Softcap: Gemma Team 2024, arXiv:2408.00118, section 2.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> hidden = np.array([[1.0, 0.0], [0.5, 2.0]])
    >>> weight_matrix = np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    >>> float(softmaxkit.linear_cross_entropy(hidden, weight_matrix, [0, 1]).round(4))
    0.4251
    """
    call = Product.begin("linear_cross_entropy", hidden, weight_matrix, bias)
    axis, rows, classes = len(call.shape) - 1, call.shape[:-1], call.shape[-1:]
    targets, is_index, unseen, ignore_index = class_targets(call, targets, axis, ignore_index)
    normalizer = call.normalizer(normalizer, reduction, "weight" if is_index else "count")
    of_logits = ClassOptions(
        axis=axis,
        weight=call.class_vector("weight", weight, axis),
        sample_weight=call.weights("sample_weight", sample_weight, rows, "the rows"),
        where=call.mask(where, classes, "the classes"),
        ignore_index=ignore_index,
        label_smoothing=call.number("label_smoothing", label_smoothing, 0.0, 1.0, neutral=0.0),
        temperature=call.temperature(temperature, rows, "the rows"),
        reduction=reduction,
        normalizer=normalizer,
        dtype=call.dtype(dtype),
        unseen=unseen,
        z_loss=call.number("z_loss", z_loss, 0.0, neutral=0.0),
    )
    choice(call.name, "outputs", outputs, ("loss", "all"))
    sizes = call.chunk_size(chunk_size)
    options = LinearOptions(of_logits, call.softcap(softcap), *sizes, outputs == "all")
    return call.linear_loss(targets, options)

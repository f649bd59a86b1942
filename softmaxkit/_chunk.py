"""The logits of some rows that are a product: all at once, or in blocks of the vocabulary.

Both compute the same: the losses of the rows, the other outputs of the rows, and the gradient by
the logits of a block. Blocks are the parts of a row (`softmaxkit._statistics`); they are computed
once for the losses and once more for the gradient.

`ops` are the array functions of a backend, `kernels` its functions over a chunk of logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from softmaxkit import _losses, _statistics
from softmaxkit._activations import masked_and_scaled, softmax_derivative
from softmaxkit._statistics import Part, Request, Rows
from softmaxkit.backends import LinearOutputs, Operands

if TYPE_CHECKING:
    from softmaxkit._losses import Classes, OfEachRow, Saved
    from softmaxkit._shard import Shard
    from softmaxkit.backends import Array, ArrayFunctions, LinearOptions

_INF, _NAN = float("inf"), float("nan")


class Products(NamedTuple):
    """How a library multiplies, with results in float32 or wider whatever the operands' dtype."""

    operand: Callable[[Array], Array]  # converts to the dtype of the product
    product: Callable[[Array, Array], Array]  # a @ b
    against: Callable[[Array, Array], Array]  # a @ b.T
    add_outer: Callable[[Array | None, Array, Array], Array]  # (sum, a, b) -> sum + a.T @ b
    times: Callable[[Array, Any], Array]  # a sum, which may be overwritten, times a number


class Whole:
    """All logits of the rows at once; the methods are those of `ByBlocks`, with one block."""

    def __init__(
        self,
        ops: ArrayFunctions,
        kernels: Any,
        products: Products,
        operands: Operands,
        options: LinearOptions,
    ) -> None:
        self._ops, self._kernels, self._given = ops, kernels, options.of_logits
        self._classes: Classes | None = None
        self._z, self._slope = logits(ops, products, operands, options.softcap)

    def rows(self, targets: Array, save: bool) -> OfEachRow:
        """Return the losses of the rows and, with `save`, what their gradient needs."""
        return _losses.of_each_row(
            *(self._ops, self._kernels, self._z, targets, self._given),
            save=save,
            keep=save,
            classes=self._classes,
        )

    def beside(self, targets: Array, skip: Array | None) -> LinearOutputs:
        """Return the outputs other than the loss; those of rows to be skipped are arbitrary.

        Entropy is -Σ p log p, and its derivative by the logits is p (-log p - entropy): that of
        softmax, with -log p as its cotangent.
        """
        ops, given = self._ops, self._given
        x, shift, empty = masked_and_scaled(ops, self._z, 1, given.where, given.temperature)
        labels, wrong = _labels(ops, targets, x, given)
        request = Request(1, labels, skip=skip)
        rows, _ = self._kernels.row_statistics(x, request, lse=True, keep=False)
        log_p = self._kernels.log_softmax(x, 1, x.dtype)
        p = ops.exp(log_p)
        self._p, self._costs = p, -ops.where(ops.equal(p, 0), 0.0, log_p)  # 0 log 0 = 0
        entropy = ops.sum(p * self._costs, 1)
        lse = rows.lse if shift is None else rows.lse + shift
        outputs = LinearOutputs(None, lse, rows.log_p, entropy, ops.argmax(x, 1))
        return _of_no_distribution(ops, outputs, wrong, empty)

    def gradient(self, saved: Saved, of_entropy: Array | None, block: slice) -> Array:
        """Return the gradient by the product, given what the gradient of the rows needs."""
        ops, given = self._ops, self._given
        call = ops, self._kernels, self._z, given, saved, 1.0
        of_z = _losses.gradient_over_classes(*call, classes=self._classes)
        if of_entropy is not None:
            added = softmax_derivative(ops, self._p, self._costs, 1) * of_entropy[:, None]
            if saved.request.skip is not None:
                added = ops.where(saved.request.skip[:, None], 0.0, added)
            of_z = of_z + (added if given.temperature is None else added / given.temperature)
        return of_z if self._slope is None else of_z * self._slope


class ByBlocks:
    """Logits of which only some classes are in memory at once.

    It passes itself to `softmaxkit._losses` as the kernel, and in place of the logits a row of the
    right length whose numbers are not read. With a `shard`, the vocabulary is that of the shard,
    and so are the labels of requests.
    """

    def __init__(
        self,
        ops: ArrayFunctions,
        products: Products,
        operands: Operands,
        options: LinearOptions,
        blocks: Sequence[slice],
        *,
        shard: Shard | None = None,
    ) -> None:
        self._ops, self._products, self._operands = ops, products, operands
        self._options, self.blocks, self._shard = options, blocks, shard
        given = options.of_logits
        self._temperature = temperature = given.temperature
        if ops.is_array(temperature) and temperature.ndim:
            self._temperature = temperature[:, 0]
        self._given = given._replace(temperature=None)
        self._like = ops.compute(operands.weight_matrix[None, :, 0])
        # What the rows reduce to.
        self.whole: Any = None
        self.reduced: Any = None

    def rows(self, targets: Array, save: bool) -> OfEachRow:
        kernel: Any = self
        return _losses.of_each_row(self._ops, kernel, self._like, targets, self._given, save=save)

    def row_statistics(self, x: Array, request: Request, lse: bool, keep: bool) -> tuple[Rows, Any]:
        """Reduce each row to `Rows`; see `softmaxkit.backends.Kernels`."""
        ops, parts = self._ops, []
        for block in self.blocks:
            z, _ = self._logits(block)
            parts.append(self._part(z, request, block))
        self.whole = _statistics.merge(ops, parts, self._temperature)
        if self._shard is not None:
            self.whole = self._shard.whole(self.whole, self._temperature)
        rows = _statistics.finish(ops, self.whole, self._temperature)
        if request.skip is not None:
            rows = Rows(*[v if v is None else ops.where(request.skip, 0.0, v) for v in rows])
        self.reduced = rows
        return rows, None

    def beside(self, targets: Array, skip: Array | None) -> LinearOutputs:
        ops, whole, where = self._ops, self.whole, self._given.where
        _, wrong = _labels(ops, targets, self._like, self._given)
        entropy = _statistics.entropy(ops, whole)
        log_p = self.reduced.log_p if ops.kind(targets) == "int" else None
        outputs = LinearOutputs(None, self.reduced.lse, log_p, entropy, whole.place)
        empty = None if where is None else ~ops.any(where[None, :], 1)
        return _of_no_distribution(ops, outputs, wrong, empty)

    def gradient(self, saved: Saved, of_entropy: Array | None, block: slice) -> Array:
        ops, request = self._ops, saved.request
        z, slope = self._logits(block)
        of_z = self._by_logits(z, saved, block)
        if of_entropy is not None:
            of_z = of_z + _statistics.entropy_gradient(
                ops, z, 1, self.whole, of_entropy, self._temperature
            )
        if self._given.where is not None:
            of_z = ops.where(self._given.where[block], of_z, 0.0)
        if request.skip is not None:
            of_z = ops.where(request.skip[:, None], 0.0, of_z)
        return of_z if slope is None else of_z * slope

    # Kernels of a block, which a library may have in another form.
    def _part(self, z: Array, request: Request, block: slice) -> Part:
        of_z = self._labels(request, block), self._weights(request, block, z), self._temperature
        first = block.start if self._options.all_outputs else None
        return _statistics.part(self._ops, z, 1, *of_z, first_class=first)

    def _by_logits(self, z: Array, saved: Saved, block: slice) -> Array:
        return _statistics.gradient(
            *(self._ops, z, 1, self.whole, saved.by_rows),
            labels=self._labels(saved.request, block),
            log_p=self.reduced.log_p,
            weights=self._weights(saved.request, block, z),
            temperature=self._temperature,
        )

    def _logits(self, block: slice) -> tuple[Array, Array | None]:
        hidden, weight_matrix, bias = self._operands
        bias = None if bias is None else bias[block]
        some = Operands(hidden, weight_matrix[block, ...], bias)
        z, slope = logits(self._ops, self._products, some, self._options.softcap)
        if self._given.where is not None:
            z = self._ops.where(self._given.where[block], z, -_INF)
        return z, slope

    def _labels(self, request: Request, block: slice) -> Array | None:
        return None if request.labels is None else request.labels - block.start

    def _weights(self, request: Request, block: slice, z: Array) -> Array | None:
        weights = request.weights
        if weights is None:
            return None
        if not self._ops.is_array(weights):
            return weights * self._ops.ones_like(z)
        return self._ops.broadcast_like(weights[:, block] if weights.ndim else weights, z)


def logits(
    ops: ArrayFunctions, products: Products, operands: Operands, softcap: float | None
) -> tuple[Array, Array | None]:
    """Return the logits and, with a softcap, their derivatives by the product."""
    hidden, weight_matrix, bias = operands
    z = products.against(hidden, weight_matrix)
    z = z if bias is None else z + bias
    if softcap is None:
        return z, None
    # Compute tanh v and 1 / cosh² v from e^(-2|v|), so that nothing cancels where v is large.
    v = z / softcap
    twice = -2.0 * ops.where(v < 0, -v, v)  # abs has no derivative at 0
    e = ops.exp(twice)
    bound = -softcap * ops.expm1(twice) / (1.0 + e)
    return ops.where(v < 0, -bound, bound), 4.0 * e / ((1.0 + e) * (1.0 + e))


def _labels(
    ops: ArrayFunctions, targets: Array, like: Array, given: Any
) -> tuple[Array | None, Array | None]:
    """Return labels in range (None for probabilities), and which were out of range."""
    if ops.kind(targets) != "int":
        return None, None
    labels, _, wrong = _losses.labels_in_range(ops, targets, like, given)
    return labels, wrong


def _of_no_distribution(
    ops: ArrayFunctions, outputs: LinearOutputs, wrong: Array | None, empty: Array | None
) -> LinearOutputs:
    """Return outputs with NaN for wrong labels, and constants for rows without any class."""
    _, lse, log_p, entropy, place = outputs
    if wrong is not None:
        log_p = ops.where(wrong, _NAN, log_p)
    if empty is not None:
        lse, entropy = ops.where(empty, -_INF, lse), ops.where(empty, 0.0, entropy)
        log_p = None if log_p is None else ops.where(empty, -_INF, log_p)
        place = ops.where(empty, -1, place)
    return LinearOutputs(None, lse, log_p, entropy, place)

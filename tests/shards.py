"""Losses of whole rows, by the reference: what shards of their classes must give.

The tests of each library import it in the processes that they start.
"""

import numpy as np

from softmaxkit.conformance import reference, reference_linear
from softmaxkit.conformance.tolerances import distance, limit

RNG = np.random.default_rng(0)
ROWS, CLASSES, FEATURES = 7, 16, 6
IGNORED = -100
# How many classes each shard has; those of JAX are equal.
SIZES = {1: [16], 2: [4, 12], 3: [0, 6, 10], 4: [5, 3, 0, 8], 5: [1, 2, 0, 0, 13]}
X = RNG.normal(0, 5, (ROWS, CLASSES))
X[0] *= 10  # saturated
X[1, 3] = 1e4
LABELS = RNG.integers(CLASSES, size=ROWS)
LABELS[1], LABELS[2] = 3, IGNORED
PROBABILITIES = RNG.dirichlet(np.ones(CLASSES), ROWS)
WEIGHT = RNG.uniform(0.1, 2, CLASSES)
SAMPLE_WEIGHT = RNG.uniform(0.1, 2, ROWS)
SAMPLE_WEIGHT[4] = 0
WHERE = RNG.random((ROWS, CLASSES)) < 0.7
WHERE[:, 3], WHERE[3], WHERE[2] = True, False, WHERE[5]
KEPT = np.flatnonzero((LABELS != IGNORED) & (np.arange(ROWS) != 3))
WHERE[KEPT, LABELS[KEPT]] = True
TEMPERATURE = RNG.uniform(0.3, 3, ROWS)
HIDDEN = RNG.normal(0, 2, (ROWS, FEATURES))
MATRIX = RNG.normal(0, 1, (CLASSES, FEATURES))
BIAS = RNG.normal(0, 1, CLASSES)

# The targets, and the options.
CASES = {
    "plain": (LABELS, {}),
    "smoothing": (LABELS, {"label_smoothing": 0.1}),
    "class weights": (LABELS, {"weight": WEIGHT}),
    "smoothing, class weights": (LABELS, {"weight": WEIGHT, "label_smoothing": 0.2}),
    "rows": (LABELS, {"reduction": "none", "sample_weight": SAMPLE_WEIGHT}),
    "z-loss": (LABELS, {"z_loss": 0.01, "reduction": "sum"}),
    "mask": (LABELS, {"where": WHERE, "label_smoothing": 0.1, "reduction": "none"}),
    "mask of classes": (LABELS, {"where": WHERE[5], "label_smoothing": 0.1, "weight": WEIGHT}),
    "temperature": (LABELS, {"temperature": 2.5, "z_loss": 0.1}),
    "temperatures": (
        LABELS,
        {"temperature": TEMPERATURE, "z_loss": 0.1, "label_smoothing": 0.1, "weight": WEIGHT},
    ),
    "normalizer": (LABELS, {"normalizer": 17.0}),
    "normalizer by batch": (LABELS, {"normalizer": "batch"}),
    "probabilities": (PROBABILITIES, {}),
    "probabilities, mean by weight": (
        PROBABILITIES,
        {"label_smoothing": 0.1, "weight": WEIGHT, "normalizer": "weight"},
    ),
    "probabilities, mask": (
        PROBABILITIES,
        {"where": WHERE, "label_smoothing": 0.1, "reduction": "none"},
    ),
}
OF_PRODUCTS = {"softcap": (LABELS, {"softcap": 3.0, "label_smoothing": 0.1})}
# The mask of a product is one for all rows.
LINEAR = [name for name in CASES if name not in ("mask", "probabilities, mask")] + [*OF_PRODUCTS]
PER_CLASS = ("weight", "where")


def of_logits(options):
    """Return options for logits: a temperature for each row has a class axis there."""
    temperature = options.get("temperature")
    return options | ({"temperature": temperature[:, None]} if np.ndim(temperature) else {})


def beside(case, dtype):
    """Return targets and options in float64, rounded to what stands beside logits of `dtype`."""
    targets, options = (CASES | OF_PRODUCTS)[case]
    wide = "float32" if dtype == "bfloat16" else dtype
    return rounded(targets, wide), {name: rounded(one, wide) for name, one in options.items()}


def check(case, dtype, value, gradient):
    """Compare with the loss of the whole rows, whose logits were rounded to `dtype`."""
    targets, options = beside(case, dtype)
    x, options = rounded(X, dtype), of_logits(options)
    want = reference.cross_entropy(x, targets, **options)
    near(value, want, dtype, limit("cross_entropy", "value", True, dtype), case)
    want = reference.gradient("cross_entropy", x, targets, **options)
    terms = reference.gradient_terms("cross_entropy", x, targets, **options)
    most = limit("cross_entropy", "gradient", True, dtype)
    near(gradient, want, dtype, most, case, np.abs(terms))


def check_linear(case, dtype, value, gradients):
    """Do the same for logits that are a product."""
    targets, options = beside(case, dtype)
    hidden, matrix, bias = (rounded(one, dtype) for one in (HIDDEN, MATRIX, BIAS))
    call = hidden, matrix, targets
    want = reference_linear.linear_cross_entropy(*call, bias=bias, **options)
    near(value, want, dtype, limit("linear_cross_entropy", "value", True, dtype), case)
    want, terms = reference_linear.linear_gradients(*call, bias=bias, **options)
    most = limit("linear_cross_entropy", "gradient", True, dtype)
    for got, one, scale in zip(gradients, want, terms, strict=True):
        near(got, one, dtype, most, case, scale)


def rounded(value, dtype):
    """Return floats as the library gets them, anything else unchanged."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    if dtype != "bfloat16":
        return value.astype(dtype).astype(float)
    bits = value.astype(np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000  # to nearest, ties to even
    return bits.astype(np.uint32).view(np.float32).astype(float)


def near(got, want, dtype, most, case, scale=0.0):
    worst = distance(np.asarray(got, float), want, dtype, scale).max()
    assert worst <= most, (case, dtype, worst, most)

"""A training on whole batches, by the reference: what replicas that share them must give together.

The tests of each library import it in the processes that they start.
"""

import numpy as np

from softmaxkit.conformance import reference

RNG = np.random.default_rng(0)
BATCHES, ROWS, FEATURES, WIDTH, CLASSES, RATE = 3, 12, 5, 4, 3, 0.5
IGNORED = -100
X = RNG.normal(0, 2, (BATCHES, ROWS, FEATURES))
Y = RNG.integers(CLASSES, size=(BATCHES, ROWS))
# The first of three replicas keeps nothing of the first batch, the first of two keeps a few rows.
Y[0, :4] = Y[1, 7] = IGNORED
# JAX needs equal parts; the others leave the last row out, and have parts of unequal length.
Y[2, -1] = IGNORED
SAMPLE_WEIGHT = RNG.uniform(0.1, 4, (BATCHES, ROWS))
WEIGHT = np.array([1.0, 2.0, 5.0])
START = [RNG.normal(size=shape) for shape in ((FEATURES, WIDTH), (CLASSES, WIDTH), (CLASSES,))]

# Operation, options, and whether rows have weights.
CASES = {
    "ignored rows": ("cross_entropy", {}, False),
    "all weights": (
        "cross_entropy", {"weight": WEIGHT, "label_smoothing": 0.1, "z_loss": 0.01}, True,
    ),
    "focal loss": ("focal_loss", {"gamma": 1.5}, True),
    "linear": ("linear_cross_entropy", {"weight": WEIGHT, "label_smoothing": 0.1}, True),
}  # fmt: skip


def denominators(case):
    """Return what the mean of each row adds to the divisor, 0 for ignored rows."""
    operation, options, weighted = CASES[case]
    each = (Y != IGNORED).astype(float)
    if operation != "focal_loss":  # whose mean counts rows
        each *= options.get("weight", np.ones(CLASSES))[np.where(Y == IGNORED, 0, Y)]
        each *= SAMPLE_WEIGHT if weighted else 1.0
    return each


def one_device(case):
    """Return loss and gradients at each step, and the parameters at the end."""
    operation, options, weighted = CASES[case]
    operation = operation.removeprefix("linear_")
    params, steps = START, []
    for x, y, row_weight in zip(X, Y, SAMPLE_WEIGHT, strict=True):
        given = options | ({"sample_weight": row_weight} if weighted else {})
        first, second, bias = params
        hidden = np.tanh(x @ first)
        logits = hidden @ second.T + bias
        of_logits = reference.gradient(operation, logits, y, **given)
        of_hidden = (of_logits @ second) * (1 - hidden**2)
        gradients = [x.T @ of_hidden, of_logits.T @ hidden, of_logits.sum(0)]
        steps.append((getattr(reference, operation)(logits, y, **given), gradients))
        params = [each - RATE * by for each, by in zip(params, gradients, strict=True)]
    return steps, params


def distance(case, steps, params):
    """Return how far a training is from that of one device, over the largest entry of each array.

    Of float64: some ten roundings, and entries of a gradient are differences of larger terms.
    """
    expected_steps, expected_params = one_device(case)
    pairs = [*zip(params, expected_params, strict=True)]
    for (loss, gradients), (value, truth) in zip(steps, expected_steps, strict=True):
        pairs += [(loss, value), *zip(gradients, truth, strict=True)]
    apart = [np.abs(np.asarray(got) - truth).max() / np.abs(truth).max() for got, truth in pairs]
    assert np.isfinite(apart).all(), case
    return max(apart)


CLOSE, FAR = 1e-12, 1e-2
TELL = ("ignored rows", "all weights")


def check(case, run):
    """Check that ``run(case, mean)`` gives that training with "global" means.

    With "own" means, each replica's of its own rows, it must give another, in the cases that tell.
    """
    apart = distance(case, *run(case, "global"))
    assert apart < CLOSE, (case, apart)
    if case in TELL:
        apart = distance(case, *run(case, "own"))
        assert apart > FAR, (case, apart)

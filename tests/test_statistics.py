"""Parts of a row, however it is cut and merged, equal the whole: blocks and shards stand on it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmaxkit import _statistics as statistics

# Units in the last place: those of a sum of nine e^d, 1 / p and their products.
LIMIT = 16
# Dask computes a graph for each result, JAX compiles for each shape.
EXAMPLES = {"dask": 3, "jax": 20}
# NaN, which no other row feels, infinities, classes that dominate, and ties.
NUMBERS = st.sampled_from([-np.inf, -500.0, -17.5, -1.0, 0.0, 0.25, 3.0, 17.5, 40.0, 40.0, 500.0])
ODD = st.sampled_from([np.nan, np.inf])


# Of one shape, so that JAX, which compiles for each, has few.
ROWS, CLASSES = 3, 6


def table(numbers):
    flat = st.lists(numbers, min_size=ROWS * CLASSES, max_size=ROWS * CLASSES)
    return flat.map(lambda values: np.array(values).reshape(ROWS, CLASSES))


@st.composite
def calls(draw):
    """Draw logits, labels, weights, a temperature of each row, and where the classes are cut."""
    logits = draw(table(NUMBERS))
    if draw(st.booleans()):
        logits[0, draw(st.integers(0, CLASSES - 1))] = draw(ODD)
    labels = draw(st.lists(st.integers(0, CLASSES - 1), min_size=ROWS, max_size=ROWS))
    weights = draw(table(st.sampled_from([0.0, 0.0, 1e-9, 0.5, 1.0, 2.0])))
    # Powers of 2: what another rounds of d, e^d multiplies.
    temperature = draw(st.sampled_from([1.0, 0.5, [0.25, 1.0, 8.0]]))
    cuts = sorted(draw(st.lists(st.integers(0, CLASSES), max_size=4)))  # two alike: an empty part
    order = draw(st.permutations(range(len(cuts) + 1)))
    return logits, np.array(labels), weights, temperature, cuts, order


def truth(logits, labels, weights, temperature):
    """Return log p of the labels, Σ w log p and lse, and of each (derivative, its largest terms).

    In float64, by sums of what each pair of classes adds, in which nothing cancels that need not.
    """
    temperature = np.broadcast_to(temperature, len(logits))[:, None]
    top = logits.max(1, keepdims=True)
    d = (logits - top) / temperature
    e = np.exp(d)
    every = np.arange(logits.shape[1])
    first = every == logits.argmax(1)[:, None]
    log_sum = np.log1p(np.where(first, e - 1, e).sum(1, keepdims=True))
    log_p, p = d - log_sum, e / e.sum(1, keepdims=True)
    others = np.stack([np.where(every == c, 0, p).sum(1) for c in every], 1)
    others += 0 * p.sum(1, keepdims=True)  # NaN, where there is no p
    label = every == labels[:, None]
    dot = np.where(weights == 0, 0, weights * log_p).sum(1)
    beside = np.stack([np.where(every == c, 0, weights).sum(1) for c in every], 1)
    lse = (top / temperature + log_sum)[:, 0]
    by_label, by_weights = np.where(label, others, -p), weights * others - p * beside
    return (
        (log_p[label], dot, lse),
        (by_label / temperature, np.abs(by_label) / temperature),
        (by_weights / temperature, (weights * others + p * beside) / temperature),
        (p / temperature, p / temperature),
    )


def truth_of_entropy(logits, temperature):
    """Return -Σ p log p, its derivative, and the largest terms of that, all in float64."""
    temperature = np.broadcast_to(temperature, len(logits))[:, None]
    d = (logits - logits.max(1, keepdims=True)) / temperature
    p = np.exp(d) / np.exp(d).sum(1, keepdims=True)
    beyond = np.log1p(np.sort(np.exp(d))[:, :-1].sum(1))
    d = np.where(p == 0, 0, d)
    pairs = p[:, :, None] * p[:, None, :] * (d[:, None, :] - d[:, :, None])
    entropy = beyond - (p * d).sum(1)
    return entropy, pairs.sum(2) / temperature, np.abs(pairs).sum(2) / temperature


def assert_near(library, got, want, scale, dtype):
    """Compare within so many units in the last place of a scale, which a result of 0 may have."""
    got = library.numpy(got)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(invalid="ignore"):  # inf - inf
        # A p below the smallest normal number may be 0, times Σ w / T of up to 48 here.
        limit = LIMIT * np.finfo(dtype).eps * scale + 48 * np.finfo(dtype).tiny
        near = np.abs(got - want) <= limit
    assert (same | near).all(), (got, want)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("at_once", [False, True], ids=["in pairs", "at once"])
def test_parts_in_any_order_equal_the_whole(library, dtype, at_once):
    @settings(max_examples=EXAMPLES.get(repr(library), 40), deadline=None, derandomize=True)
    @given(drawn=calls())
    def agree(drawn):
        assert_parts_equal_the_whole(library, dtype, at_once, drawn)

    agree()


def assert_parts_equal_the_whole(library, dtype, at_once, drawn):
    logits, labels, weights, temperature, cuts, order = drawn
    ops = getattr(library.backend, "ops", library.backend)
    logits, weights = (np.asarray(each, dtype) for each in (logits, weights))
    by_row = library.array(temperature, dtype) if np.ndim(temperature) else temperature
    pieces = [
        (
            library.array(logits[:, low:high], dtype),
            library.array(labels - low, None),
            library.array(weights[:, low:high], dtype),
        )
        for low, high in zip([0, *cuts], [*cuts, logits.shape[1]], strict=True)
    ]
    ones, zeros = (library.array(np.full(len(logits), each), dtype) for each in (1.0, 0.0))
    with np.errstate(all="ignore"):  # of NumPy, also where Dask computes or where it is the truth
        parts = [
            statistics.part(ops, z, 1, y, w, by_row, first_class=low)
            for (z, y, w), low in zip(pieces, [0, *cuts], strict=True)
        ]
        whole = parts[order[0]]
        if at_once:
            whole = statistics.merge(ops, [parts[place] for place in order], by_row)
        else:
            for place in order[1:]:
                whole = statistics.merge(ops, [whole, parts[place]], by_row)
        got = statistics.finish(ops, whole, by_row)
        (log_p, dot, lse), *derivatives = truth(
            logits.astype(np.float64), labels, weights.astype(np.float64), temperature
        )
        assert_near(library, got.log_p, log_p, np.abs(log_p), dtype)
        assert_near(library, got.dot, dot, np.abs(dot), dtype)  # a sum of numbers of one sign
        largest = np.abs(logits).max(1, where=np.isfinite(logits), initial=0.0)
        assert_near(library, got.lse, lse, np.maximum(np.abs(lse), largest), dtype)
        for place, (want, scale) in enumerate(derivatives):
            by_log_p, by_dot, by_lse = (ones if one == place else zeros for one in range(3))
            cotangents = statistics.Rows(by_log_p, by_dot, None, by_lse)
            by_part = [
                library.numpy(
                    statistics.gradient(
                        ops,
                        z,
                        1,
                        whole,
                        cotangents,
                        labels=y,
                        log_p=got.log_p,
                        weights=w,
                        temperature=by_row,
                    )
                )
                for z, y, w in pieces
            ]
            assert_near(
                library, library.array(np.concatenate(by_part, 1), dtype), want, scale, dtype
            )
        # A row of NaN has no place; one of -inf, of which a part may have no class, has any.
        known = ~np.isnan(logits).any(1) & np.isfinite(logits.max(1))
        place = library.numpy(whole.place)
        np.testing.assert_array_equal(place[known], logits[known].argmax(1))
        entropy, by_logits, scale = truth_of_entropy(logits.astype(np.float64), temperature)
        got_entropy = statistics.entropy(ops, whole)
        assert_near(library, got_entropy, entropy, np.abs(entropy), dtype)
        by_part = [
            library.numpy(statistics.entropy_gradient(ops, z, 1, whole, ones, by_row))
            for z, _, _ in pieces
        ]
        assert_near(
            library, library.array(np.concatenate(by_part, 1), dtype), by_logits, scale, dtype
        )

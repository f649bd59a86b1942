"""Write golden.json: exact inputs and correctly rounded results, from the definitions in mpmath.

Run ``python tests/golden/make_golden.py``. Of softmaxkit it has the names of the operations only,
and nothing here is clever: softmax is exp over a sum of exp, and gradients are central differences
of the loss, at enough digits that at least 50 are left after the worst cancellation (1 - p at
logits [1000, 0] costs 434). Every case is computed at two precisions that have to agree. The script
is deterministic: the same file comes out of every run.

A gradient can be a small difference of large terms, and no float64 code gets more of it right than
the terms allow. Where that happens a case also has a ``scale``: the sum of the terms' magnitudes.
"""

import json
import math
import random
from fractions import Fraction
from pathlib import Path

from definitions import INF, activation, activation_vjp, binary, categorical, linear
from mpmath import mp, mpf

from softmaxkit._operations import BY_CLASS

GOLDEN = Path(__file__).with_name("golden.json")
HEADER = {
    "made_by": "tests/golden/make_golden.py",
    "how": "mpmath, straight from the definitions, at least 50 digits after cancellation; gradients"
    " are central differences; numbers are rounded to 50 digits, then to the nearest float64",
    "scale": "where a gradient is a small difference, the sum of its terms' magnitudes",
    "encoding": "floats by repr, so that they round-trip; infinities as the strings inf and -inf",
}


# The cases.

TEXTBOOK = [[2.0, 1.0, 0.0], [0.5, -1.0, 3.0], [1.0, 1.0, 1.0]]
ROWS = {
    "ordinary": [0.3, -1.7, 2.2, 0.9],
    "single class": [5.3],
    "two tied": [3.1, 3.1, -1.0],
    "all tied": [0.0, 0.0, 0.0, 0.0],
    "nearly tied": [1.0, 1.0 + 2.0**-40, 1.0 - 2.0**-50],
    "saturated 30": [30.0, 0.0, 0.0, 0.0],
    "saturated 40": [40.0, 0.0, -5.0],
    "saturated, not dyadic": [0.1, 36.6, -3.3, 0.7],
    "saturated 200": [200.0, 0.0],
    "saturated 1000": [1000.0, 0.0],
    "two far above": [800.0, 0.0, 799.3],
    "minus infinity": [1.2, -INF, 2.1],
    "one finite": [0.4, -INF],
    "offset 1e4": [10000.1, 10000.7, 9998.3],
    "offset -1e4": [-9999.9, -10000.3, -9969.6],
    "offset 1e6, saturated": [1000000.1, 1000041.3],
}


def cases():
    rng = random.Random(20240229)

    def uniform(size, spread):
        return [rng.uniform(-spread, spread) for _ in range(size)]

    def distribution(size):
        q = [rng.random() for _ in range(size)]
        return [q_c / sum(q) for q_c in q]

    rows = dict(ROWS)
    rows["random 10"] = uniform(10, 5)
    rows["random 10, wide"] = uniform(10, 40)
    rows["random 300"] = uniform(300, 6)
    for name, row in rows.items():
        classes = len(row)
        for temperature in (1.0, 0.5, 3.0, 0.07) if classes < 10 else (1.0,):
            options = {"temperature": temperature} if temperature != 1 else {}
            cotangent = uniform(classes, 2)
            for op in ("softmax", "log_softmax"):
                yield activation_case(name, op, [row], [cotangent], **options)
        yield activation_case(name, "logsumexp", [row], uniform(1, 2))
        finite = [c for c, z in enumerate(row) if z != -INF]
        if classes >= 10:
            finite = [row.index(max(row)), row.index(min(row)), 7][: 1 if classes > 10 else 3]
        repeated = [row] * len(finite)
        yield case(name, "cross_entropy", repeated, finite, reduction="none")
        for gamma in (0.0, 0.5, 1.0, 2.0, 5.0) if classes <= 10 else (2.0,):
            yield case(name, "focal_loss", repeated, finite, gamma=gamma, reduction="none")
        if classes > 10:
            continue
        yield case(name, "cross_entropy", repeated, finite, temperature=0.7, reduction="none")
        yield case(name, "cross_entropy", [row], finite[:1], z_loss=1e-3)
        q = distribution(classes)
        if len(finite) < classes <= 3:  # -inf logits, whose probability has to be 0
            q = [q_c if c in finite else 0.0 for c, q_c in enumerate(q)]
        else:
            smoothing = {"label_smoothing": 0.1, "reduction": "none"}
            yield case(name, "cross_entropy", repeated, finite, **smoothing)
            yield case(name, "focal_loss", repeated, finite, gamma=1.5, **smoothing)
        yield case(name, "cross_entropy", [row], [q])
        yield case(name, "focal_loss", [row], [q], gamma=0.5)
        sharp = [0.0] * classes
        sharp[finite[0]] = 2.5
        yield case(name + ", probabilities sum to 2.5", "cross_entropy", [row], [sharp])

    labels, weight = [0, 2, 1], [1.0, 2.0, 5.0]
    one_hot = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    for op, w in (("cross_entropy", "weight"), ("focal_loss", "alpha")):
        for targets in (labels, one_hot):
            for reduction in ("none", "sum", "mean"):
                for smoothing in (0.0, 0.1, 1.0):
                    options = {"label_smoothing": smoothing, "reduction": reduction}
                    yield case("textbook", op, TEXTBOOK, targets, **options)
                    yield case("textbook", op, TEXTBOOK, targets, **{w: weight}, **options)
            for normalizer in ("weight", "count", "batch", 7.0):
                options = {w: weight, "sample_weight": [0.5, 3.0, 0.25], "normalizer": normalizer}
                yield case("normalizer", op, TEXTBOOK, targets, **options)
        yield case("ignored", op, TEXTBOOK, [0, -100, 1], **{w: weight})
        yield case("ignored", op, TEXTBOOK, [0, 2, 1], ignore_index=2, reduction="sum")
        options = {"sample_weight": [1.0, 2.0, 0.3]}
        yield case("all ignored but one", op, TEXTBOOK, [-100, -100, 1], **options)
        yield case("ignored, batch", op, TEXTBOOK, [0, -100, 1], normalizer="batch")

    yield case("alpha is a number", "focal_loss", TEXTBOOK, labels, alpha=0.25, reduction="none")
    for temperature in (0.3, 2.0, [[0.5], [1.7], [3.0]], [0.7, 1.1, 1.9]):
        options = {"temperature": temperature, "reduction": "none"}
        yield case("temperature", "cross_entropy", TEXTBOOK, labels, z_loss=0.1, **options)
        yield case("temperature", "focal_loss", TEXTBOOK, labels, gamma=0.5, **options)
        cotangent = [uniform(3, 2) for _ in range(3)]
        for op in ("softmax", "log_softmax"):
            yield activation_case("temperature", op, TEXTBOOK, cotangent, temperature=temperature)

    wide = [uniform(5, 4), uniform(5, 30), [50.0, 0.0, 0.0, 1.0, 60.0], [-INF, 3.0, 1.0, -INF, 2.0]]
    mask = [
        [True, True, False, True, True],
        [True, False, False, True, False],
        [True, True, True, True, False],
        [True, True, True, True, True],
    ]
    labels = [3, 0, 1, 2]
    for op in ("softmax", "log_softmax", "logsumexp"):
        cotangent = uniform(4, 2) if op == "logsumexp" else [uniform(5, 2) for _ in range(4)]
        yield activation_case("masked", op, wide, cotangent, where=mask)
    for op in ("cross_entropy", "focal_loss"):
        for reduction in ("none", "mean"):
            yield case("masked", op, wide, labels, where=mask, reduction=reduction)
            smoothing = {"label_smoothing": 0.2, "reduction": reduction}
            yield case("masked", op, wide[:3], labels[:3], where=mask[:3], **smoothing)

    for size in (2, 6):
        logits = [uniform(size, 3) for _ in range(3)]
        q = [distribution(size) for _ in range(3)]
        unnormalized = [uniform(size, 1) for _ in range(3)]
        unnormalized = [[abs(q_c) * 3 for q_c in row] for row in unnormalized]
        weight = [rng.random() * 4 for _ in range(size)]
        for targets in (q, unnormalized):
            for smoothing in (0.0, 0.3):
                options = {"label_smoothing": smoothing, "sample_weight": [0.1, 1.0, 2.2]}
                yield case("soft", "cross_entropy", logits, targets, weight=weight, **options)
                yield case("soft", "focal_loss", logits, targets, alpha=weight, **options)

    x = [0.0, 1.0, -0.7, 3.3, -17.1, 19.0, 40.0, -40.0, 88.3, 200.0, -200.0]
    for target in (0.0, 1.0, 0.7, 0.5):
        targets = [target] * len(x)
        for smoothing in (0.0, 0.1):
            options = {"label_smoothing": smoothing, "reduction": "none"}
            yield case("binary", "binary_cross_entropy", x, targets, **options)
            for gamma in (0.0, 0.5, 1.0, 2.0, 5.0):
                yield case("binary", "sigmoid_focal_loss", x, targets, gamma=gamma, **options)
    x = uniform(6, 4)
    targets = distribution(6)
    options = {"sample_weight": [rng.random() for _ in x]}
    pos_weight = [rng.random() * 3 for _ in x]
    for reduction in ("none", "sum", "mean"):
        options["reduction"] = reduction
        yield case("binary", "binary_cross_entropy", x, targets, pos_weight=pos_weight, **options)
        yield case("binary", "sigmoid_focal_loss", x, targets, alpha=0.25, **options)
        yield case("binary", "sigmoid_focal_loss", x, targets, alpha=0.9, gamma=0.5, **options)
    # Where every framework lost all digits of the derivative (reported in public in 2026-09).
    for sure, cotangent in (([40.0, 0.0], [1.0, 0.0]), ([17.5, 0.0, 0.0], [1.0, 0.0, 0.0])):
        for op in ("softmax", "log_softmax"):
            yield activation_case("one class dominates", op, [sure], [cotangent])
        for q in (cotangent, [0.875, 0.125, 0.0][: len(sure)]):
            yield case("one class dominates", "cross_entropy", [sure], [q])
            yield case("one class dominates", "focal_loss", [sure], [q], gamma=2.0)

    poly = "poly_loss_cross_entropy"
    for name, row in ROWS.items():
        for epsilon in (0.0, 0.5, 2.0, *([-1.0] if name == "ordinary" else [])):
            options = {"epsilon": epsilon, "reduction": "none"}
            finite = [c for c, z in enumerate(row) if z != -INF]
            yield case(name, poly, [row] * len(finite), finite, **options)
    labels, weight = [0, 2, 1], [1.0, 2.0, 5.0]
    for targets in (labels, [[0.7, 0.2, 0.1], [0.0, 0.5, 0.5], [0.0, 0.0, 2.0]]):
        for smoothing in (0.0, 0.1):
            options = {"label_smoothing": smoothing, "temperature": 0.7, "weight": weight}
            yield case("every option", poly, TEXTBOOK, targets, **options)
    yield case("ignored", poly, TEXTBOOK, [0, -100, 1], weight=weight)
    yield case("masked", poly, wide, [3, 0, 1, 2], where=mask)


def linear_cases():
    rng = random.Random(20261130)

    def matrix(rows, columns, spread):
        return [[rng.uniform(-spread, spread) for _ in range(columns)] for _ in range(rows)]

    hidden, weight_matrix, bias = matrix(5, 3, 2), matrix(4, 3, 2), matrix(1, 4, 1)[0]
    labels, by_row = [0, 3, -100, 1, 0], [0.5, 1.0, 1.0, 0.25, 2.0]
    q = [[0.25, 0.25, 0.5, 0.0], [0.0, 0.0, 0.0, 1.0], *matrix(3, 4, 0.125)]
    q = [[abs(x) for x in row] for row in q]
    mask = [[True, True, False, True]] * 5
    many = {"label_smoothing": 0.1, "weight": [1.0, 2.0, 0.5, 3.0], "z_loss": 0.01}
    calls = [
        ("ordinary", hidden, labels, {}),
        ("rows", hidden, labels, {"reduction": "none", "bias": bias}),
        ("every option", hidden, labels, many | {"bias": bias, "softcap": 3.0, "temperature": 0.5}),
        ("sample weights, a mask", hidden, labels, many | {"sample_weight": by_row, "where": mask}),
        ("probabilities", hidden, q, {"bias": bias, "reduction": "sum"}),
        ("saturated", matrix(5, 3, 30), labels, many),
        ("at the cap", matrix(5, 3, 30), labels, {"softcap": 2.0, "reduction": "sum"}),
    ]
    for name, h, targets, options in calls:
        inputs = {"hidden": h, "weight_matrix": weight_matrix, "targets": targets}
        results = []
        for mp.dps in (200, 240):
            results.append(encoded(list(linear(*inputs.values(), **options))))
        names = ("value", "of_hidden", "of_weights", "of_bias")
        found = dict(zip(names, settled(*results), strict=True))
        yield {"name": name, **inputs, "options": options, **found}


def digits(logits, temperature):
    """Return the decimal digits to work with: 80, and what exp of the widest gap can cancel."""
    rows = logits if isinstance(logits[0], list) else [[x, 0.0] for x in logits]
    smallest = min(t[0] if isinstance(t, list) else t for t in as_list(temperature))
    finite = [[z for z in row if z != -INF] for row in rows]
    return 80 + math.ceil(max(max(row) - min(row) for row in finite) / smallest / 2)


def as_list(value):
    return value if isinstance(value, list) else [value]


def activation_case(name, op, logits, cotangent, **options):
    if op == "log_softmax":  # an infinite log-probability has no part in a finite sum
        pairs = [zip(v, z, strict=True) for v, z in zip(cotangent, logits, strict=True)]
        cotangent = [[0.0 if z == -INF else v for v, z in row] for row in pairs]

    def compute():
        value = activation(op, logits, **options)
        return value, *activation_vjp(op, logits, cotangent, **options)

    return record(name, op, logits, compute, options, cotangent=cotangent)


def case(name, op, logits, targets, **options):
    function = categorical if op in BY_CLASS else binary

    def compute():
        return function(op, logits, targets, **options)

    return record(name, op, logits, compute, options, targets=targets)


def record(name, op, logits, compute, options, **inputs):
    results = []
    mp.dps = digits(logits, options.get("temperature", 1.0))
    for _ in range(2):
        results.append(encoded(list(compute())))
        mp.dps += 40
    value, gradient, scale = settled(*results)
    result = {
        "name": name,
        "op": op,
        "logits": encoded(logits),
        **inputs,
        "options": options,
        "value": value,
        "gradient": gradient,
    }
    if any(s > 2 * abs(g) for s, g in zip(flat(scale), flat(gradient), strict=True)):
        result["scale"] = rounded(scale)
    return result


def settled(a, b):
    """Return results on which two precisions agree; what shrinks with the precision is 0."""
    if isinstance(a, list):
        return [settled(*pair) for pair in zip(a, b, strict=True)]
    if a == b:
        return a
    if abs(b) < 1e-20 * abs(a) or (a == 0 and abs(b) < 10.0 ** (70 - mp.dps)):
        return 0.0
    raise ArithmeticError(f"too few digits: {a!r} became {b!r}")


def flat(value):
    return [x for each in value for x in flat(each)] if isinstance(value, list) else [value]


def rounded(value):
    """Return nested lists with three significant digits, enough for a scale."""
    return [rounded(x) for x in value] if isinstance(value, list) else float(f"{value:.2e}")


def encoded(value):
    """Return nested lists of the nearest float64, infinities spelt out."""
    if isinstance(value, list):
        return [encoded(each) for each in value]
    if value in (INF, -INF):
        return str(float(value))
    if isinstance(value, mpf):
        # To 50 digits first: a result half way between two floats is then exactly half way. Not
        # by float(mpf), which rounds twice below 2.2e-308; a quotient of integers rounds once.
        with mp.workdps(50):
            sign, mantissa, exponent, _ = (+value)._mpf_
        return float(Fraction((-1) ** sign * int(mantissa)) * Fraction(2) ** exponent)
    return value


def render():
    parts = [json.dumps(HEADER, indent=1)[:-2]]
    for name, some in (("cases", cases()), ("linear", linear_cases())):
        lines = [json.dumps(each, allow_nan=False, separators=(",", ":")) for each in some]
        parts.append(f' "{name}": [\n' + ",\n".join(lines) + "\n]")
    return ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    GOLDEN.write_text(render(), encoding="utf-8")

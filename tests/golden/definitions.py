"""Softmax and the losses by their definitions, with their derivatives, in mpmath."""

import functools
import math

from mpmath import mp, mpf

INF = math.inf


# Definitions, on one row. A class that is masked or at -inf is absent: None.


@functools.lru_cache(maxsize=4096)
def exp_at(z, prec):
    return mp.exp(z)


def exp(z):
    """Return exp(z), remembered: a derivative by z_c leaves the other classes as they were."""
    return exp_at(z, mp.prec)


def scaled(row, temperature):
    return [None if z is None else z / t for z, t in zip(row, temperature, strict=True)]


def logsumexp(row):
    return mp.log(mp.fsum(exp(z) for z in row if z is not None))


def softmax(row):
    total = mp.fsum(exp(z) for z in row if z is not None)
    return [mpf(0) if z is None else exp(z) / total for z in row]


def log_softmax(row):
    lse = logsumexp(row)
    return [-INF if z is None else z - lse for z in row]


def class_terms(row, q, weight, gamma, epsilon, z_loss):
    """Return w_c q_c ((1 - p_c)^gamma (-log p_c) + epsilon (1 - p_c)) of each class, z_loss lse^2.

    0 log 0 = 0.
    """
    lse = logsumexp(row)
    terms = [z_loss * lse**2]
    for z, q_c, w_c in zip(row, q, weight, strict=True):
        if q_c * w_c != 0:
            log_p = z - lse
            miss = 1 - mp.exp(log_p)
            terms.append(w_c * q_c * (miss**gamma * -log_p + epsilon * miss))
    return terms


def binary_factors(x, t, pos_weight, gamma):
    """Return (1 - p_t)^gamma, -w t log p and -(1 - t) log(1 - p); 0 log 0 = 0."""
    p = 1 / (1 + mp.exp(-x))
    positive = -pos_weight * t * mp.log(p) if t != 0 else mpf(0)
    negative = -(1 - t) * mp.log(1 - p) if t != 1 else mpf(0)
    p_t = p * t + (1 - p) * (1 - t)
    return (1 - p_t) ** gamma, positive, negative


def slopes(terms, x):
    """Return the derivative of each term at x: (f(x + h) - f(x - h)) / 2h, at twice the digits."""
    h = mpf(10) ** -mp.dps
    with mp.workdps(2 * mp.dps):
        ahead, behind = terms(x + h), terms(x - h)
        return [(a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True)]


def derivatives(terms, row):
    """Return the derivative of the sum of the terms by each class, and the sum of magnitudes.

    A class that is not there has derivative 0.
    """
    gradient, scale = [], []
    for c, z in enumerate(row):
        by_z = [] if z is None else slopes(lambda x, c=c: terms([*row[:c], x, *row[c + 1 :]]), z)
        gradient.append(mp.fsum(by_z))
        scale.append(mp.fsum(by_z, absolute=True))
    return gradient, scale


# Results of a call, on logits of shape (rows, classes) or, for the binary losses, (elements,).


def present(logits, where):
    """Return the logits as mpf, with None for what is masked or -inf."""
    return [
        [None if z == -INF or not keep else mpf(z) for z, keep in zip(row, keeps, strict=True)]
        for row, keeps in zip(logits, where or [[True] * len(r) for r in logits], strict=True)
    ]


def temperatures(temperature, logits):
    """Return one temperature per logit from a number, one per class or one per row."""
    if not isinstance(temperature, list):
        return [[mpf(temperature)] * len(row) for row in logits]
    if not isinstance(temperature[0], list):
        return [[mpf(t) for t in temperature] for _ in logits]
    return [[mpf(t[0])] * len(row) for row, t in zip(logits, temperature, strict=True)]


def activation(op, logits, where=None, temperature=1.0):
    rows = present(logits, where)
    function = {"softmax": softmax, "log_softmax": log_softmax, "logsumexp": logsumexp}[op]
    t = temperatures(temperature, logits)
    return [function(scaled(row, t_row)) for row, t_row in zip(rows, t, strict=True)]


def activation_vjp(op, logits, cotangent, where=None, temperature=1.0):
    """Return the derivatives of sum(cotangent * op(logits)) over what is there, and their scale."""
    rows = present(logits, where)
    t = temperatures(temperature, logits)
    gradient, scale = [], []
    for row, t_row, v in zip(rows, t, cotangent, strict=True):

        def terms(z, t_row=t_row, v=v):
            if op == "logsumexp":
                return [v * logsumexp(scaled(z, t_row))]
            result = {"softmax": softmax, "log_softmax": log_softmax}[op](scaled(z, t_row))
            return [a * b for a, b, c in zip(result, v, z, strict=True) if c is not None]

        row_gradient, row_scale = derivatives(terms, row)
        gradient.append(row_gradient)
        scale.append(row_scale)
    return gradient, scale


def categorical(
    op,
    logits,
    targets,
    *,
    gamma=2.0,
    epsilon=2.0,
    weight=None,
    alpha=None,
    sample_weight=None,
    where=None,
    ignore_index=-100,
    label_smoothing=0.0,
    temperature=1.0,
    z_loss=0.0,
    reduction="mean",
    normalizer=None,
):
    gamma = mpf(gamma) if op == "focal_loss" else 0
    epsilon = epsilon if op == "poly_loss_cross_entropy" else 0
    weight = alpha if op == "focal_loss" else weight
    classes = len(logits[0])
    if weight is None:
        weight = [1.0] * classes
    elif not isinstance(weight, list):
        weight = [weight] * classes
    weight = [mpf(w) for w in weight]
    sample_weight = [mpf(w) for w in sample_weight or [1.0] * len(logits)]
    is_index = not isinstance(targets[0], list)
    eps = mpf(label_smoothing)
    losses, gradients, scales, kept, row_weights = [], [], [], [], []
    t = temperatures(temperature, logits)
    for i, row in enumerate(present(logits, where)):
        kept.append(not is_index or targets[i] != ignore_index)
        if not kept[i]:
            losses.append(mpf(0))
            gradients.append([mpf(0)] * classes)
            scales.append([mpf(0)] * classes)
            row_weights.append(mpf(0))
            continue
        q = [mpf(int(c == targets[i])) for c in range(classes)] if is_index else targets[i]
        q = [mpf(q_c) for q_c in q]
        row_weights.append(mp.fsum(w * q_c for w, q_c in zip(weight, q, strict=True)))
        keeps = where[i] if where else [True] * classes
        share = eps / sum(keeps)
        q = [(1 - eps) * q_c + share * keep for q_c, keep in zip(q, keeps, strict=True)]

        def terms(z, t_row=t[i], q=q):
            return class_terms(scaled(z, t_row), q, weight, gamma, mpf(epsilon), mpf(z_loss))

        losses.append(mp.fsum(terms(row)))
        row_gradient, row_scale = derivatives(terms, row)
        gradients.append(row_gradient)
        scales.append(row_scale)

    denominators = {
        "weight": mp.fsum(w * s for w, s in zip(row_weights, sample_weight, strict=True)),
        "count": sum(kept),
        "batch": len(logits),
    }
    by = normalizer or ("count" if op == "focal_loss" or not is_index else "weight")
    denominator = denominators[by] if isinstance(by, str) else mpf(by)
    return reduced(losses, gradients, scales, sample_weight, reduction, denominator)


def linear(hidden, weight_matrix, targets, *, bias=None, softcap=None, **options):
    """Return the cross-entropy of hidden @ weight_matrix.T + bias, and its three gradients."""
    bias = [mpf(b) for b in bias or [0.0] * len(weight_matrix)]
    hidden, weight_matrix = ([[mpf(x) for x in row] for row in m] for m in (hidden, weight_matrix))
    z = [[mp.fdot(h, w) + b for w, b in zip(weight_matrix, bias, strict=True)] for h in hidden]
    slope = [[mpf(1)] * len(bias)] * len(hidden)
    if softcap is not None:
        slope = [[mp.sech(x / softcap) ** 2 for x in row] for row in z]
        z = [[softcap * mp.tanh(x / softcap) for x in row] for row in z]
    value, of_z, _ = categorical("cross_entropy", z, targets, **options)
    pairs = zip(of_z, slope, strict=True)
    of_z = [[g * s for g, s in zip(*pair, strict=True)] for pair in pairs]
    by_class, by_width = list(zip(*of_z, strict=True)), list(zip(*hidden, strict=True))
    return (
        value,
        [[mp.fdot(g, w) for w in zip(*weight_matrix, strict=True)] for g in of_z],
        [[mp.fdot(g, h) for h in by_width] for g in by_class],
        [mp.fsum(g) for g in by_class],
    )


def binary(
    op,
    logits,
    targets,
    *,
    gamma=2.0,
    alpha=None,
    pos_weight=None,
    sample_weight=None,
    label_smoothing=0.0,
    reduction="mean",
):
    gamma = 0 if op == "binary_cross_entropy" else mpf(gamma)
    alpha = None if alpha is None else mpf(alpha)
    pos_weight = [mpf(w) for w in pos_weight or [1.0] * len(logits)]
    sample_weight = [mpf(w) for w in sample_weight or [1.0] * len(logits)]
    eps = mpf(label_smoothing)
    losses, gradients, scales = [], [], []
    for x, t, w in zip(logits, targets, pos_weight, strict=True):
        x = mpf(x)
        t = mpf(t) * (1 - eps) + eps / 2
        alpha_t = 1 if alpha is None else alpha * t + (1 - alpha) * (1 - t)

        def factors(x, t=t, w=w):
            return binary_factors(x, t, w, gamma)

        def loss(x, alpha_t=alpha_t, factors=factors):
            focus, positive, negative = factors(x)
            return alpha_t * focus * (positive + negative)

        focus, positive, negative = factors(x)
        by_focus, by_positive, by_negative = map(abs, slopes(factors, x))
        losses.append(loss(x))
        gradients.append(slopes(lambda x, loss=loss: [loss(x)], x))
        scale = by_focus * (positive + negative) + focus * (by_positive + by_negative)
        scales.append([alpha_t * scale])
    value, gradient, scale = reduced(
        losses, gradients, scales, sample_weight, reduction, len(logits)
    )
    return value, [row[0] for row in gradient], [row[0] for row in scale]


def reduced(losses, gradients, scales, sample_weight, reduction, denominator):
    divisor = denominator if reduction == "mean" else 1
    losses = [w * loss for w, loss in zip(sample_weight, losses, strict=True)]
    value = losses if reduction == "none" else mp.fsum(losses) / divisor
    gradient, scale = (
        [[w * g / divisor for g in row] for w, row in zip(sample_weight, rows, strict=True)]
        for rows in (gradients, scales)
    )
    return value, gradient, scale

"""scikit-learn's LogisticRegression, by SciPy's L-BFGS."""

import numpy as np
from common import Outcome, report
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

import softmaxkit

FEATURES, CLASSES, C = 20, 5, 0.1
rng = np.random.default_rng(0)
x = rng.standard_normal((1000, FEATURES))
y = (2 * x @ rng.standard_normal((FEATURES, CLASSES)) + rng.gumbel(size=(1000, CLASSES))).argmax(1)


def by_sklearn():
    model = LogisticRegression(C=C, tol=1e-9, max_iter=1000).fit(x, y)
    return model.coef_.T, model.intercept_


def by_scipy():
    loss_and_gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)
    scale = 1 / (C * len(y))

    def split(flat):
        return flat[:-CLASSES].reshape(FEATURES, CLASSES), flat[-CLASSES:]

    def objective(flat):
        weight, bias = split(flat)
        loss, gradient = loss_and_gradient(x @ weight + bias, y)
        by_weight = x.T @ gradient + scale * weight
        value = loss + scale / 2 * np.sum(weight**2)
        return value, np.concatenate([by_weight.ravel(), gradient.sum(0)])

    tight = {"ftol": 0, "gtol": 1e-9}
    start = np.zeros((FEATURES + 1) * CLASSES)
    return split(minimize(objective, start, jac=True, method="L-BFGS-B", options=tight).x)


def train(fit):
    weight, bias = fit()
    loss = softmaxkit.cross_entropy(x @ weight + bias, y)
    return Outcome([loss], [weight, bias], fit)


if __name__ == "__main__":
    # scikit-learn stops where the loss changes by less than 64 roundings; it does so when weights
    # change by √(64 · 2e-16) = 1e-7 over its curvature, which the penalty keeps above 0.01.
    report(train, by_sklearn, by_scipy, tolerance=1e-5)

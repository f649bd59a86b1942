"""Multinomial regression by scipy.optimize, equal to scikit-learn's LogisticRegression.

SciPy minimises the loss of `softmaxkit.value_and_grad(softmaxkit.cross_entropy)`, with its gradient
carried back to the weights, plus scikit-learn's penalty. The loss has an option that
LogisticRegression lacks: the last line of the table smooths the labels.
"""

import numpy as np
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import softmaxkit

C = 0.1  # LogisticRegression's: the penalty is |weight|² / 2C, over the number of images

images, labels = load_digits(return_X_y=True)
train_images, test_images, train_labels, test_labels = train_test_split(
    images / 16, labels, stratify=labels, random_state=0
)
loss_and_gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)


def split(flat):
    """Return weight (64, 10) and bias (10,)."""
    return flat[:640].reshape(64, 10), flat[640:]


def fit(label_smoothing):
    """Return weight and bias."""
    scale = 1 / (C * len(train_labels))

    def objective(flat):
        weight, bias = split(flat)
        loss, gradient = loss_and_gradient(
            train_images @ weight + bias, train_labels, label_smoothing=label_smoothing
        )
        by_weight = train_images.T @ gradient + scale * weight
        value = loss + scale / 2 * np.sum(weight**2)
        return value, np.concatenate([by_weight.ravel(), gradient.sum(axis=0)])

    tight = {"ftol": 0, "gtol": 1e-7}
    return split(minimize(objective, np.zeros(650), jac=True, method="L-BFGS-B", options=tight).x)


model = LogisticRegression(C=C, tol=1e-7, max_iter=1000).fit(train_images, train_labels)
rows = {
    "LogisticRegression": (model.coef_.T, model.intercept_),
    "softmaxkit, SciPy": fit(label_smoothing=0.0),
    "softmaxkit, SciPy, smoothed": fit(label_smoothing=0.1),
}
print(f"{'':28} {'accuracy':>8} {'confidence':>11} {'test loss':>10} {'weights differ':>15}")
for name, (weight, bias) in rows.items():
    logits = test_images @ weight + bias
    accuracy = np.mean(logits.argmax(1) == test_labels)
    confidence = softmaxkit.softmax(logits).max(1).mean()
    loss = softmaxkit.cross_entropy(logits, test_labels)
    apart = np.abs(weight - model.coef_.T).max() / np.abs(model.coef_).max()
    print(f"{name:28} {accuracy:8.1%} {confidence:11.1%} {loss:10.6f} {apart:15.0e}")

"""Handwritten digits by softmax regression, on NumPy alone: no framework, no autodiff."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softmaxkit

images, labels = load_digits(return_X_y=True)
train_images, test_images, train_labels, test_labels = train_test_split(
    images / 16, labels, stratify=labels, random_state=0
)
loss_and_gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)

rng = np.random.default_rng(0)
weight = np.zeros((64, 10))
bias = np.zeros(10)

for _epoch in range(30):
    order = rng.permutation(len(train_labels))
    for start in range(0, len(order), 32):
        batch = order[start : start + 32]
        logits = train_images[batch] @ weight + bias
        loss, gradient = loss_and_gradient(logits, train_labels[batch])
        weight -= 0.5 * train_images[batch].T @ gradient
        bias -= 0.5 * gradient.sum(axis=0)

accuracy = np.mean((test_images @ weight + bias).argmax(axis=1) == test_labels)
print(f"test accuracy {accuracy:.4f}")

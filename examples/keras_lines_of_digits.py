"""Keras `fit` with labels that are missing and labels that are smoothed: lines of digits.

A line is an image of up to four digits, and its labels are padded with -1, which the loss ignores
(`ignore_class`, as segmentation networks do with their "void" class). Keras smooths one-hot labels
only; here class indices are smoothed as well. Any Keras backend that trains will do:

    KERAS_BACKEND=jax python examples/keras_lines_of_digits.py
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from softmaxkit.keras import SparseCategoricalCrossentropy

PLACES = 4
EMPTY = -1

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32").reshape(-1, 8, 8)
train_images, test_images, train_labels, test_labels = train_test_split(
    images, labels, stratify=labels, random_state=0
)


def lines(images, labels, count, rng):
    """Set digits side by side: images (count, 8, 32, 1), labels (count, 4) with -1 at the end."""
    chosen = rng.integers(0, len(labels), (count, PLACES))
    filled = np.arange(PLACES) < rng.integers(1, PLACES + 1, (count, 1))
    places = images[chosen] * filled[:, :, None, None]
    pictures = places.transpose(0, 2, 1, 3).reshape(count, 8, 8 * PLACES, 1)
    return pictures, np.where(filled, labels[chosen], EMPTY)


def network():
    """Return a model from (8, 32, 1) to logits for each place."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8 * PLACES, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(64, 2, strides=2, activation="relu"),
            keras.layers.Reshape((PLACES, 64)),
            keras.layers.Dense(10),
        ]
    )


rng = np.random.default_rng(0)
x, y = lines(train_images, train_labels, 1200, rng)
test_x, test_y = lines(test_images, test_labels, 400, rng)
there = test_y != EMPTY

options = {"from_logits": True, "ignore_class": EMPTY}
logits = network().predict(x, verbose=0)
theirs = keras.losses.SparseCategoricalCrossentropy(**options)(y, logits)
ours = SparseCategoricalCrossentropy(**options)(y, logits)
print(f"{keras.backend.backend()}: {len(x)} lines, {np.mean(y == EMPTY):.0%} of the places empty")
print(f"loss before training: keras.losses {float(theirs):.6f}, softmaxkit {float(ours):.6f}\n")

print(f"{'label smoothing':15} {'loss':>8} {'accuracy':>9} {'confidence':>11}")
for label_smoothing in (0.0, 0.1):
    loss = SparseCategoricalCrossentropy(label_smoothing=label_smoothing, **options)
    model = network()
    model.compile(keras.optimizers.Adam(4e-3), loss)
    history = model.fit(x, y, batch_size=50, epochs=5, verbose=0).history["loss"]
    p = keras.ops.convert_to_numpy(keras.ops.softmax(model.predict(test_x, verbose=0)))[there]
    accuracy = np.mean(p.argmax(-1) == test_y[there])
    print(f"{label_smoothing:<15} {history[-1]:8.4f} {accuracy:9.1%} {p.max(-1).mean():11.1%}")

with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder, "lines.keras"))
    loaded = keras.models.load_model(Path(folder, "lines.keras"))
before, after = (each.evaluate(test_x, test_y, verbose=0) for each in (model, loaded))
print(f"\ntest loss {before:.6f}, and {after:.6f} after saving and loading")

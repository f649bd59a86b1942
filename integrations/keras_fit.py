"""Keras fit."""

import keras
import numpy as np
from common import CLASSES, FEATURES, FLOAT32, HIDDEN, Outcome, batches, report

import softmaxkit.keras


class Losses(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(logs["loss"])


def train(library):
    keras.utils.set_random_seed(0)
    layers = keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(CLASSES)
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    loss = library.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss)
    x, y = map(np.concatenate, zip(*batches(), strict=True))
    losses = Losses()
    model.fit(x, y, batch_size=64, shuffle=False, verbose=0, callbacks=[losses])
    arrays = model.get_weights()
    return Outcome(losses.seen, arrays, lambda: model.train_on_batch(x[:64], y[:64]))


if __name__ == "__main__":
    report(train, keras.losses, softmaxkit.keras, tolerance=FLOAT32)

"""Keras with a `train_step` of its own, on TensorFlow: a small network learns from a large one.

In distillation (Hinton et al. 2015, arXiv:1503.02531), the student learns from the labels and from
the teacher's probabilities, with both networks at a temperature T. That is `cross_entropy` of
probabilities with `temperature`; Keras's loss has no such argument and gets the divided logits,
with the same result. `fit` compiles the step.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # whose tape the step uses

import keras
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softmaxkit

T = 2.0
SOFT = 0.9  # the teacher's part of the loss

images, labels = load_digits(return_X_y=True)
train_images, test_images, train_labels, test_labels = train_test_split(
    (images / 16).astype("float32"), labels, stratify=labels, random_state=0
)


def soft_by_keras(logits, teacher):
    """Return the cross-entropy of the teacher's probabilities."""
    soft = keras.ops.softmax(teacher / T)
    losses = keras.losses.categorical_crossentropy(soft, logits / T, from_logits=True)
    return keras.ops.mean(losses)


def soft_by_softmaxkit(logits, teacher):
    """Return the same with softmaxkit."""
    soft = softmaxkit.softmax(teacher, temperature=T)
    return softmaxkit.cross_entropy(logits, soft, temperature=T)


class Network(keras.Model):
    """A hidden layer, and a step that learns from labels and, if there is one, from a teacher."""

    def __init__(self, width, teacher=None, soft_loss=None):
        super().__init__()
        self.hidden = keras.layers.Dense(width, "relu")
        self.output_layer = keras.layers.Dense(10)
        self.teacher, self.soft_loss = teacher, soft_loss

    def call(self, images):
        """Return the logits."""
        return self.output_layer(self.hidden(images))

    def train_step(self, data):
        """Take one step of gradient descent; return the loss."""
        images, labels = data
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            loss = softmaxkit.cross_entropy(logits, labels)
            if self.teacher is not None:
                soft = self.soft_loss(logits, self.teacher(images))
                loss = (1 - SOFT) * loss + SOFT * T**2 * soft
        weights = self.hidden.trainable_variables + self.output_layer.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def trained(*options, epochs):
    """Return a network after `fit`."""
    keras.utils.set_random_seed(0)
    model = Network(*options)
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(train_images, train_labels, batch_size=32, epochs=epochs, verbose=0)
    return model


teacher = trained(256, epochs=10)
models = {
    "teacher": teacher,
    "student, labels only": trained(8, epochs=10),
    "student, Keras's loss": trained(8, teacher, soft_by_keras, epochs=10),
    "student, softmaxkit": trained(8, teacher, soft_by_softmaxkit, epochs=10),
}
print(f"{'':22} {'weights':>7} {'accuracy':>9} {'confidence':>11} {'test loss':>10}")
for name, model in models.items():
    logits = model(test_images)
    accuracy = (logits.numpy().argmax(1) == test_labels).mean()
    confidence = softmaxkit.softmax(logits).numpy().max(1).mean()
    loss = softmaxkit.cross_entropy(logits, test_labels)
    weights = model.hidden.count_params() + model.output_layer.count_params()
    print(f"{name:22} {weights:7} {accuracy:9.1%} {confidence:11.1%} {loss:10.5f}")

"""Handwritten digits by softmax regression, on TensorFlow: tf.data, GradientTape, tf.function."""

import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softmaxkit

images, labels = load_digits(return_X_y=True)
train_images, test_images, train_labels, test_labels = train_test_split(
    (images / 16).astype("float32"), labels, stratify=labels, random_state=0
)

tf.random.set_seed(0)
batches = tf.data.Dataset.from_tensor_slices((train_images, train_labels)).shuffle(2000).batch(32)
weight = tf.Variable(tf.zeros((64, 10)))
bias = tf.Variable(tf.zeros(10))


@tf.function(reduce_retracing=True)
def step(images, labels):
    """Take one step of gradient descent."""
    with tf.GradientTape() as tape:
        loss = softmaxkit.cross_entropy(images @ weight + bias, labels)
    weight_gradient, bias_gradient = tape.gradient(loss, (weight, bias))
    weight.assign_sub(0.5 * weight_gradient)
    bias.assign_sub(0.5 * bias_gradient)


for _epoch in range(30):
    for batch_images, batch_labels in batches:
        step(batch_images, batch_labels)

predicted = tf.argmax(test_images @ weight + bias, axis=1)
accuracy = tf.reduce_mean(tf.cast(predicted == test_labels, tf.float32))
print(f"test accuracy {accuracy:.4f}")

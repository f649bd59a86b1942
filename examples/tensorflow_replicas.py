"""TensorFlow on several devices: a loss whose mean is over the rows of all of them.

Some digits have no label, and one device gets more of these than the other. A MirroredStrategy adds
up the gradients of its devices, so each divides its loss by the number of labels in the whole
batch, `normalizer`. The last column does what is often done instead: it averages the two devices'
means, and so trains on another objective. The devices are two that TensorFlow makes of the CPU.
"""

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import softmaxkit

BATCH, STEPS, RATE, UNKNOWN = 128, 10, 0.5, -1

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
labels[np.arange(len(labels)) % BATCH < 48] = UNKNOWN


def mean_of_all(logits, labels):
    """Return this device's part of the mean over the labels of all devices."""
    known = tf.math.count_nonzero(labels != UNKNOWN, dtype=tf.float32)
    known = tf.distribute.get_replica_context().all_reduce("sum", known)
    return softmaxkit.cross_entropy(logits, labels, ignore_index=UNKNOWN, normalizer=known)


def means_averaged(logits, labels):
    """Return this device's part of the average of the devices' own means."""
    devices = tf.distribute.get_strategy().num_replicas_in_sync
    return softmaxkit.cross_entropy(logits, labels, ignore_index=UNKNOWN) / devices


def train(strategy, loss_fn):
    """Return the loss at each step, and the weights at the end."""
    with strategy.scope():
        weights = tf.Variable(tf.zeros((64, 10)))

    def on_a_device(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_fn(images @ weights, labels)
        gradient = tape.gradient(loss, weights)
        loss, gradient = tf.distribute.get_replica_context().all_reduce("sum", [loss, gradient])
        weights.assign_sub(RATE * gradient)
        return loss

    @tf.function
    def step(images, labels):
        losses = strategy.run(on_a_device, (images, labels))
        return strategy.experimental_local_results(losses)[0]

    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(BATCH).take(STEPS)
    losses = [float(step(*batch)) for batch in strategy.experimental_distribute_dataset(data)]
    return losses, weights.numpy()


one, two = (
    tf.distribute.OneDeviceStrategy("CPU:0"),
    tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
)
runs = {
    "one device": train(one, mean_of_all),
    "two devices": train(two, mean_of_all),
    "means averaged": train(two, means_averaged),
}
print("step", *(f"{name:>15}" for name in runs))
for number, losses in enumerate(zip(*(losses for losses, _ in runs.values()), strict=True), 1):
    print(f"{number:4}", *(f"{loss:15.6f}" for loss in losses))
print("\nhow far the weights are from those of one device, over the largest")
expected = runs["one device"][1]
for name, (_, weights) in runs.items():
    print(f"{name:14} {abs(weights - expected).max() / abs(expected).max():.0e}")

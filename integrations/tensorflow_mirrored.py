"""tf.distribute.MirroredStrategy, 2 devices of the CPU."""

import tensorflow as tf
from common import FLOAT32, ROWS, Outcome, batches, report, weights

import softmaxkit

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def train(loss_fn):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        first, second = params = [tf.Variable(each) for each in weights().values()]

    def on_a_device(x, y):
        with tf.GradientTape() as tape:
            loss = loss_fn(tf.nn.relu(x @ first) @ second, y)
        gradients = tape.gradient(loss, params)
        summed = tf.distribute.get_replica_context().all_reduce("sum", gradients)
        for each, by in zip(params, summed, strict=True):
            each.assign_sub(0.5 * by)
        return loss

    @tf.function
    def step(x, y):
        losses = strategy.run(on_a_device, (x, y))
        return strategy.reduce("sum", losses, axis=None)

    x, y = zip(*batches(), strict=True)
    data = tf.data.Dataset.from_tensor_slices((list(x), list(y))).unbatch().batch(ROWS)
    data = list(strategy.experimental_distribute_dataset(data))
    losses = [step(*batch) for batch in data]
    return Outcome(losses, [each.numpy() for each in params], lambda: step(*data[0]).numpy())


def theirs(logits, labels):
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.nn.compute_average_loss(losses, global_batch_size=ROWS)


def ours(logits, labels):
    return softmaxkit.cross_entropy(logits, labels, normalizer=ROWS)


if __name__ == "__main__":
    report(train, theirs, ours, tolerance=FLOAT32)

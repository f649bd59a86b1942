"""TensorFlow in data parallel: the replicas of a tf.distribute strategy share each batch."""

from pathlib import Path

PROGRAM = """
from functools import partial

import numpy as np
from softmaxkit._libraries import import_quietly
tf = import_quietly("tensorflow")
import keras, replicas, softmaxkit

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)

def on(devices):
    # Two strategies of one process share the keys of their collectives, and refuse each other's
    # number of replicas: sums on one device have none.
    names = [f"CPU:{i}" for i in range(devices)]
    return tf.distribute.MirroredStrategy(names, tf.distribute.ReductionToOneDevice())

def train(strategy, compiled, case, mean):
    operation, options, weighted = replicas.CASES[case]
    with strategy.scope():
        params = first, second, bias = [tf.Variable(each) for each in replicas.START]
        optimizer = keras.optimizers.SGD(replicas.RATE)
        optimizer.build(params)

    def on_a_device(x, y, sample_weight, denominators):
        context = tf.distribute.get_replica_context()
        total = context.all_reduce("sum", tf.reduce_sum(denominators))
        given = options | ({"sample_weight": sample_weight} if weighted else {})
        if mean == "global":
            given["normalizer"] = total
        with tf.GradientTape() as tape:
            hidden = tf.tanh(x @ first)
            if operation == "linear_cross_entropy":
                loss = softmaxkit.linear_cross_entropy(hidden, second, y, bias=bias, **given)
            else:
                logits = tf.matmul(hidden, second, transpose_b=True) + bias
                loss = getattr(softmaxkit, operation)(logits, y, **given)
            if mean == "own":
                loss /= strategy.num_replicas_in_sync
        gradients = tape.gradient(loss, params)
        optimizer.apply(gradients, params)  # which adds up those of the replicas
        return context.all_reduce("sum", [loss, *gradients])

    def step(*batch):
        results = strategy.run(on_a_device, batch)
        return [strategy.experimental_local_results(one) for one in results]

    arrays = replicas.X, replicas.Y, replicas.SAMPLE_WEIGHT, replicas.denominators(case)
    rows = [each.reshape(-1, *each.shape[2:])[:-1] for each in arrays]
    data = tf.data.Dataset.from_tensor_slices(tuple(rows)).batch(replicas.ROWS)
    data, steps = strategy.experimental_distribute_dataset(data), []
    if compiled:  # once for every number of rows
        step = tf.function(step, input_signature=data.element_spec)
    for batch in data:
        loss, *gradients = step(*batch)
        for copies in (loss, *gradients):
            assert len(copies) == strategy.num_replicas_in_sync
            assert all(np.array_equal(copies[0], each) for each in copies)
        steps.append((loss[0], [each[0] for each in gradients]))
    return steps, [each.numpy() for each in params]

two, three = on(2), on(3)
for case in replicas.CASES:
    replicas.check(case, partial(train, two, True))
    print(case)
replicas.check("all weights", partial(train, three, True))
print("three replicas")
apart = replicas.distance("all weights", *train(two, False, "all weights", "global"))
assert apart < replicas.CLOSE, apart
print("eagerly")

import softmaxkit.keras
keras.config.set_floatx("float64")
labels = replicas.Y.ravel()
kept = labels != replicas.IGNORED

def fit(strategy, library, rows, reduction="sum_over_batch_size", sample_weight=None):
    options = {"from_logits": True, "ignore_class": replicas.IGNORED, "reduction": reduction}
    with strategy.scope():
        start = keras.initializers.RandomNormal(seed=0)
        dense = keras.layers.Dense(replicas.CLASSES, kernel_initializer=start)
        model = keras.Sequential([keras.Input((replicas.FEATURES,)), dense])
        loss = library.SparseCategoricalCrossentropy(**options)
        model.compile(keras.optimizers.SGD(replicas.RATE), loss)
    x = replicas.X.reshape(-1, replicas.FEATURES)
    how = {"sample_weight": sample_weight, "batch_size": replicas.ROWS, "shuffle": False}
    history = model.fit(x, rows, verbose=0, **how).history
    return np.concatenate([history["loss"], *map(np.ravel, model.get_weights())])

def apart(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()

one = tf.distribute.get_strategy()
for name, rows in (("every row", np.where(kept, labels, 0)), ("ignored rows", labels)):
    theirs, ours = (fit(two, library, rows) for library in (keras.losses, softmaxkit.keras))
    assert apart(ours, theirs) < replicas.CLOSE, name
    whole = fit(one, keras.losses, rows)
    if name == "every row":
        assert apart(ours, whole) < replicas.CLOSE
    print("fit", name)
assert apart(ours, whole) > replicas.FAR  # Keras averages the means of replicas
counts = np.repeat((replicas.Y != replicas.IGNORED).sum(1), replicas.ROWS)
assert apart(fit(two, softmaxkit.keras, labels, "sum", 1 / counts), whole) < replicas.CLOSE
print("fit, sums")
"""


def test_a_mean_over_the_batch_of_all_replicas(tf, run_python, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    cases = ["ignored rows", "all weights", "focal loss", "linear"]
    printed = run_python(PROGRAM, Path(__file__).parent)
    fits = ["fit every row", "fit ignored rows", "fit, sums"]
    assert printed.splitlines() == [*cases, "three replicas", "eagerly", *fits]

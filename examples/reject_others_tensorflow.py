"""Two known digits and eight unknown ones, on TensorFlow: the answer "not sure enough".

A network learns 3 and 8, and is then shown every digit. The temperature and the threshold are
chosen on known digits that it did not learn from. The network can be sure that a digit is a 3
rather than an 8, not that it is one of the two: if nine in ten of the known digits are to be
answered, so are more than six in ten of the unknown ones.
"""

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softmaxkit
from softmaxkit.calibration import classify, fit_temperature, threshold_for

images, digits = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
known = (digits == 3) | (digits == 8)
labels = (digits[known] == 8).astype(int)
rows, test = train_test_split(np.arange(len(labels)), stratify=labels, random_state=0)
train, held_out = train_test_split(rows, train_size=90, stratify=labels[rows], random_state=0)

random = tf.random.Generator.from_seed(0)
weight_1, bias_1 = tf.Variable(0.2 * random.normal((64, 32))), tf.Variable(tf.zeros(32))
weight_2, bias_2 = tf.Variable(0.2 * random.normal((32, 2))), tf.Variable(tf.zeros(2))
variables = weight_1, bias_1, weight_2, bias_2


def predict(images):
    """Return the logits."""
    return tf.nn.relu(images @ weight_1 + bias_1) @ weight_2 + bias_2


@tf.function
def step(images, labels):
    """Take one step of gradient descent."""
    with tf.GradientTape() as tape:
        loss = softmaxkit.cross_entropy(predict(images), labels)
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign_sub(0.3 * gradient)


for _step in range(500):
    step(tf.constant(images[known][train]), tf.constant(labels[train]))

held_out_logits = predict(images[known][held_out])
test_logits, unknown_logits = predict(images[known][test]), predict(images[~known])
temperature = fit_temperature(held_out_logits, labels[held_out])
print(
    f"{len(train)} digits to learn; T = {temperature:.2f} and thresholds on {len(held_out)}; "
    f"test: {len(test)} known, {len(unknown_logits)} unknown\n"
)
print("coverage asked for  threshold  known: answered  right of these  unknown: rejected")
for coverage in (1.0, 0.9, 0.7):
    threshold = threshold_for(
        held_out_logits, labels[held_out], coverage=coverage, temperature=temperature
    )
    found = classify(test_logits, threshold=threshold, temperature=temperature)
    others = classify(unknown_logits, threshold=threshold, temperature=temperature)
    found, others = found.numpy(), others.numpy()
    answered, rejected = np.mean(found != -1), np.mean(others == -1)
    right = np.mean((found == labels[test])[found != -1])
    print(f"{coverage:<18.0%} {threshold:10.4f} {answered:16.1%} {right:15.1%} {rejected:18.1%}")

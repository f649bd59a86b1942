"""Two known digits and eight unknown ones, on JAX: the answer "not sure enough".

A network learns 3 and 8, and is then shown every digit. The temperature and the threshold are
chosen on known digits that it did not learn from. The network can be sure that a digit is a 3
rather than an 8, not that it is one of the two: if nine in ten of the known digits are to be
answered, so are more than six in ten of the unknown ones.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def predict(params, images):
    """Return the logits."""
    hidden = jax.nn.relu(images @ params["weight_1"] + params["bias_1"])
    return hidden @ params["weight_2"] + params["bias_2"]


def loss_fn(params, images, labels):
    """Return the mean cross-entropy."""
    return softmaxkit.cross_entropy(predict(params, images), labels)


@jax.jit
def step(params, state, images, labels):
    """Take one step of gradient descent."""
    updates, state = optimizer.update(jax.grad(loss_fn)(params, images, labels), state)
    return optax.apply_updates(params, updates), state


first, second = jax.random.split(jax.random.key(0))
params = {
    "weight_1": 0.2 * jax.random.normal(first, (64, 32)),
    "bias_1": jnp.zeros(32),
    "weight_2": 0.2 * jax.random.normal(second, (32, 2)),
    "bias_2": jnp.zeros(2),
}
optimizer = optax.adam(0.01)
state = optimizer.init(params)
for _step in range(100):
    params, state = step(params, state, images[known][train], labels[train])

known_logits, unknown_logits = predict(params, images[known]), predict(params, images[~known])
temperature = fit_temperature(known_logits[held_out], labels[held_out])
print(
    f"{len(train)} digits to learn; T = {temperature:.2f} and thresholds on {len(held_out)}; "
    f"test: {len(test)} known, {len(unknown_logits)} unknown\n"
)
print("coverage asked for  threshold  known: answered  right of these  unknown: rejected")
for coverage in (1.0, 0.9, 0.7):
    threshold = threshold_for(
        known_logits[held_out], labels[held_out], coverage=coverage, temperature=temperature
    )
    found = classify(known_logits[test], threshold=threshold, temperature=temperature)
    others = classify(unknown_logits, threshold=threshold, temperature=temperature)
    answered, rejected = jnp.mean(found != -1), jnp.mean(others == -1)
    right = jnp.mean((found == labels[test])[found != -1])
    print(f"{coverage:<18.0%} {threshold:10.4f} {answered:16.1%} {right:15.1%} {rejected:18.1%}")

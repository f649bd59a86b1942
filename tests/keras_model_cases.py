"""Losses of softmaxkit.keras saved and loaded, alone and in models; run as keras_cases.py is."""

import inspect

import keras
import numpy as np
import pytest
from keras_common import (
    BACKEND,
    BINARY,
    IN_KERAS,
    LIMIT,
    NAMES,
    SPARSE,
    case,
    differentiates,
    ours,
    quiet,
    theirs,
)

import softmaxkit.keras

pytestmark = quiet


# --- saved and loaded -----------------------------------------------------------------------------
def other(parameter):
    """Return what is not the default."""
    given = {"reduction": "sum", "name": "mine", "dtype": "float64", "ignore_class": 7, "axis": 1}
    if parameter.name in given:
        return given[parameter.name]
    return not parameter.default if isinstance(parameter.default, bool) else parameter.default + 0.5


def attributes(loss):
    parameters = inspect.signature(type(loss)).parameters
    return {name: getattr(loss, name) for name in parameters}


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_an_attribute_and_is_saved(name):
    parameters = inspect.signature(getattr(softmaxkit.keras, name)).parameters.values()
    given = {each.name: other(each) for each in parameters}
    loss = ours(name, **given)
    assert attributes(loss) == given
    for again in (
        keras.losses.deserialize(keras.losses.serialize(loss)),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss)),
        type(loss).from_config(loss.get_config()),
    ):
        assert type(again) is type(loss)
        assert attributes(again) == given


@pytest.mark.parametrize("name", ["CategoricalFocalCrossentropy", SPARSE[1]])
def test_a_factor_for_each_class_is_saved(name):
    loss = ours(name, alpha=np.array([0.25, 0.75]))
    assert loss.get_config()["alpha"] == [0.25, 0.75]


@pytest.mark.parametrize("name", NAMES)
def test_the_registered_name(name):
    loss = ours(name)
    assert keras.losses.serialize(loss)["registered_name"] == f"softmaxkit>{name}"
    assert keras.saving.get_registered_object(f"softmaxkit>{name}") is type(loss)
    assert repr(keras.losses.get(loss)) == repr(loss)
    assert isinstance(keras.losses.get(type(loss)), type(loss))


def test_a_subclass_saves_its_own_arguments():
    @keras.saving.register_keras_serializable(package="test")
    class Doubled(softmaxkit.keras.CategoricalCrossentropy):
        def __init__(self, factor=2.0, **options):
            super().__init__(**options)
            self.factor = factor

        def call(self, y_true, y_pred):
            return self.factor * super().call(y_true, y_pred)

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}

    loss = keras.losses.deserialize(keras.losses.serialize(Doubled(3.0, from_logits=True)))
    y_true, y_pred = case("CategoricalCrossentropy", True)
    once = ours("CategoricalCrossentropy", from_logits=True)(y_true, y_pred)
    np.testing.assert_allclose(float(loss(y_true, y_pred)), 3 * float(once), **LIMIT)


# --- in a model -----------------------------------------------------------------------------------
def model(name, loss, **options):
    keras.utils.set_random_seed(0)
    last = "sigmoid" if name in BINARY else "softmax"
    made = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(5, last)]
    )
    made.compile(keras.optimizers.SGD(0.5), loss, **options)
    return made


def data(name):
    y_true, _ = case(name, True, shape=(64, 5))
    return np.random.default_rng(2).normal(size=(64, 5)).astype("float32"), y_true


@pytest.mark.parametrize("name", NAMES)
def test_evaluate_save_and_load(name, tmp_path):
    x, y = data(name)
    options = {"label_smoothing": 0.1}
    first = model(name, ours(name, **options))
    value = first.evaluate(x, y, verbose=0)
    direct = ours(name, **options)(y, first.predict(x, verbose=0))
    np.testing.assert_allclose(value, float(direct), **LIMIT)
    first.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.loss) is type(first.loss)
    assert again.loss.label_smoothing == 0.1
    np.testing.assert_allclose(again.evaluate(x, y, verbose=0), value, **LIMIT)


COMPILED = [SPARSE[0], BINARY[1]] if BACKEND in ("jax", "tensorflow") else []


@differentiates
@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [*((name, "auto") for name in IN_KERAS), *((name, True) for name in COMPILED)],
)
def test_fit_goes_as_with_the_loss_of_keras(name, jit_compile):
    x, y = data(name)
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 64)
    histories = [
        model(name, make(name), jit_compile=jit_compile)
        .fit(x, y, 16, 4, verbose=0, sample_weight=weights)
        .history["loss"]
        for make in (ours, theirs)
    ]
    np.testing.assert_allclose(*histories, rtol=1e-4)  # 16 steps, each adds its rounding
    assert histories[0][-1] < histories[0][0]


@differentiates
@pytest.mark.parametrize("name", SPARSE)
def test_fit_with_ignored_rows_and_class_weights(name):
    x, y = data(name)
    y = np.where(np.arange(64) % 4 == 0, -1, y)
    loss = ours(name, ignore_class=-1)
    trained = model(name, loss)
    weights = {-1: 1.0, **dict.fromkeys(range(5), 2.0)}
    history = trained.fit(x, y, 64, 3, verbose=0, class_weight=weights).history["loss"]
    kept = y >= 0
    before = model(name, loss)
    want = 2.0 * float(ours(name)(y[kept], before.predict(x[kept], verbose=0)))
    np.testing.assert_allclose(history[0], want, rtol=1e-5)  # a mean of batches, in float32
    assert history[-1] < history[0]


@differentiates
@pytest.mark.parametrize("name", [SPARSE[1], BINARY[0]])
def test_fit_goes_on_after_loading(name, tmp_path):
    x, y = data(name)
    straight = model(name, ours(name))
    straight.fit(x, y, 64, 2, verbose=0)
    straight.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    histories = [each.fit(x, y, 64, 2, verbose=0).history["loss"] for each in (straight, loaded)]
    np.testing.assert_allclose(*histories, rtol=1e-6)  # float32: two graphs, few ULP

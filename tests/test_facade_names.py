"""A façade stands in for a whole module: what it does not define is the module's own."""

from importlib import import_module

import pytest

# Façade, the module in whose place it is imported, a name of that, and one that is softmaxkit's.
FACADES = [
    ("softmaxkit.torch", "torch.nn.functional", "relu", "softmax"),
    ("softmaxkit.torch.functional", "torch.nn.functional", "relu", "cross_entropy"),
    ("softmaxkit.torch.nn", "torch.nn", "Linear", "CrossEntropyLoss"),
    ("softmaxkit.jax.nn", "jax.nn", "relu", "log_softmax"),
    ("softmaxkit.jax.optax", "optax", "adam", "softmax_cross_entropy"),
    ("softmaxkit.tensorflow", "tensorflow.nn", "relu", "softmax"),
    ("softmaxkit.keras", "keras.losses", "MeanSquaredError", "CategoricalCrossentropy"),
]


@pytest.mark.parametrize(("facade", "module", "theirs", "ours"), FACADES)
def test_what_a_facade_does_not_define_is_the_library_s(facade, module, theirs, ours):
    library = pytest.importorskip(module.partition(".")[0], reason=f"{module} is not installed")
    facade, module = import_module(facade), import_module(module)
    assert getattr(facade, theirs) is getattr(module, theirs)
    assert getattr(facade, ours) is not getattr(module, ours)
    assert {theirs, ours} <= set(dir(facade))
    assert not hasattr(facade, "__wrapped__")
    with pytest.raises(AttributeError, match=f"{library.__name__}.*no_such_name"):
        facade.no_such_name  # noqa: B018


def test_the_losses_of_optax_stand_in_one_module():
    pytest.importorskip("jax", reason="jax is not installed")
    from softmaxkit.jax import optax

    assert optax.losses is optax

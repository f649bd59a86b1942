"""Whose array is this? An ordered chain of isinstance tests against what is already imported.

No cache, no registry, no lock: `torch.compile` traces through it, threads cannot race in it, and a
framework that the user has not imported is never imported (an array of it cannot exist yet).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import numpy as np

try:
    from softmaxkit import backends as _backends
except ImportError as problem:
    raise ImportError(
        "softmaxkit.backends cannot be imported. In a checkout or an unpacked sdist without the "
        "symbolic link softmaxkit/backends, run: python -m pip install -e ."
    ) from problem

if TYPE_CHECKING:
    from softmaxkit.backends import Array, Backend

backends: Any = _backends  # modules, which tests/test_structure.py holds to the protocol
_HOST = (np.ndarray, np.generic, bool, int, float, complex, list, tuple)
_SUPPORTED = "an array of NumPy, PyTorch, JAX, TensorFlow or an array-API library"


def resolve(call: str, name: str, x: Any, *, recorders: bool = False) -> tuple[Backend, Array]:
    """Return the backend of `x`, and `x` as an array (lists and Python numbers become NumPy's).

    With `recorders`, the backend of an object that is not a tensor but overrides torch's functions,
    as a Proxy of torch.fx does, is None; otherwise such an object is refused.
    """
    # getattr: isinstance is then False if the framework is absent, blocked (None) or half imported.
    modules = sys.modules
    if isinstance(x, getattr(modules.get("torch"), "Tensor", ())):
        return backends.torch, x
    if type(x) is np.ndarray and x.dtype.kind in "fiub":
        return backends.numpy, x
    # Tracers pass isinstance. Test this before ndarray subclasses: JAX's typed literals are both.
    if isinstance(x, getattr(modules.get("jax"), "Array", ())) or (
        type(x).__module__ == "jax._src.literals" and isinstance(x, np.ndarray)
    ):
        return backends.jax, x
    tensorflow: Any = modules.get("tensorflow")
    if tensorflow is not None and isinstance(x, _tensors(tensorflow)):
        usable(call, name, backends.tensorflow, x)
        if not hasattr(x, "ndim"):  # a Variable
            x = tensorflow.convert_to_tensor(x)
        return backends.tensorflow, x
    if isinstance(x, getattr(modules.get("dask.array"), "Array", ())):
        usable(call, name, backends.dask, x)
        return backends.dask, x
    if isinstance(x, _HOST):
        return backends.numpy, _numpy_array(call, name, x)
    if isinstance(x, _of_keras("Variable")):
        return resolve(call, name, x.value)
    if isinstance(x, _of_keras("KerasTensor")):
        raise TypeError(
            f"{call}: {name} is a keras.KerasTensor, which holds no values; expected {_SUPPORTED}; "
            f"make the call inside a keras.Layer (in its method call) or a keras.layers.Lambda."
        )
    # Look at the type: an instance may answer to any name (mocks, proxies).
    if hasattr(type(x), "__array_namespace__") or _known_to_compat(x):
        usable(call, name, backends.array_api, x)
        return backends.array_api, x
    if recorders and hasattr(type(x), "__torch_function__"):
        return cast("Backend", None), x
    remedy = "convert it to one of those"
    if isinstance(x, getattr(tensorflow, "RaggedTensor", ())):
        mask = "tf.sequence_mask of its row_lengths()"
        remedy = f"pass its .to_tensor(), and {mask} as where= of the logits"
    raise TypeError(f"{call}: {name} is a {type_name(x)}; expected {_SUPPORTED}; {remedy}.")


def _tensors(tensorflow: Any) -> Any:
    return getattr(tensorflow, "Tensor", ()), getattr(tensorflow, "Variable", ())


def _of_keras(name: str) -> Any:
    """Return a class of Keras, for isinstance; () where Keras is not imported, or has none."""
    return getattr(sys.modules.get("keras"), name, ())


def companion(call: str, name: str, value: Any, backend: Backend, like: Array) -> Array:
    """Return `value` as an array of the logits' library, on the logits' device."""
    if value is None:
        return value
    if backend.is_native(value, like):
        usable(call, name, backend, value)
        here, there = backend.device_of(value), backend.device_of(like)
        if here != there and backend.shape(value) != ():
            raise ValueError(
                f"{call}: {name} is on {here}; expected {there}, the logits' device; move it there."
            )
        return value
    value = of_column(value)
    if isinstance(value, _HOST):
        # Dynamo cannot look into an ndarray; torch itself then reports what it cannot convert.
        if not backend.is_compiling():
            value = _numpy_array(call, name, value)
        return backend.asarray(value, like)
    if isinstance(value, _of_keras("Variable")):
        return companion(call, name, value.value, backend, like)
    owner, _ = resolve(call, name, value)
    raise TypeError(
        f"{call}: {name} is a {type_name(value)} ({owner.LIBRARY}); expected an array of the "
        f"logits' library ({backend.LIBRARY}); convert it, or pass a NumPy array or a list."
    )


def usable(call: str, name: str, backend: Backend, x: Array) -> None:
    """Refuse an array of the library that no kernel accepts."""
    problem = backend.unusable(x)
    if problem is not None:
        kind, text = problem
        raise kind(f"{call}: {name} {text}.")


def of_column(value: Any) -> Any:
    """Return a column of pandas or polars as a NumPy array, anything else unchanged."""
    return value.to_numpy() if hasattr(type(value), "to_numpy") else value


def on_host(value: Any) -> bool:
    """Return whether `value` is a number, a list or a NumPy array, whose values can be read."""
    return isinstance(value, _HOST)


def type_name(x: Any) -> str:
    """Name the type of `x` as a user would import it."""
    kind = type(x)
    return kind.__qualname__ if kind.__module__ == "builtins" else _public_name(kind)


def _public_name(kind: type) -> str:
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def _numpy_array(call: str, name: str, x: Any) -> np.ndarray:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{call}: {name} is a numpy.ma.MaskedArray; expected {_SUPPORTED}; "
            f"pass its data, and its inverted mask as where=."
        )
    if isinstance(x, np.matrix):
        raise TypeError(
            f"{call}: {name} is a numpy.matrix; expected {_SUPPORTED}; pass numpy.asarray of it."
        )
    foreign = _foreign(x) if isinstance(x, list | tuple) else None
    if foreign is not None:
        # NumPy would silently copy a framework's arrays to the host, and off the tape.
        raise TypeError(
            f"{call}: {name} is a {type_name(x)} of {type_name(foreign)}; expected {_SUPPORTED}; "
            f"stack them with their own library."
        )
    try:
        array = np.asarray(x)
    except ValueError:
        raise ValueError(
            f"{call}: {name} is a {type_name(x)} of rows of different lengths; "
            f"expected a rectangular one; pad the rows, and mask with where= or ignore_index=."
        ) from None
    # ml_dtypes' bfloat16 and similar dtypes have NumPy's kind "V" and can be cast to float32.
    if array.dtype.kind in "OSUMmV" and not np.can_cast(array.dtype, np.float32):
        raise TypeError(
            f"{call}: {name} holds dtype {array.dtype}; expected numbers; convert it with astype."
        )
    return array


def _foreign(x: Any) -> Any:
    """Return the first item of nested lists that does not belong to NumPy, or None."""
    for item in x:
        if isinstance(item, list | tuple):
            item = _foreign(item)
        if isinstance(item, np.ma.MaskedArray):  # NumPy would drop the mask
            return item
        if item is not None and not isinstance(item, (*_HOST, str)):
            return item
    return None


def _known_to_compat(x: Any) -> bool:
    # Called after the tests for every framework, because loading array_api_compat costs a few ms,
    # once. These functions look at the type (an instance may answer to any name); its own
    # catch-all, is_array_api_obj, does not.
    import array_api_compat as compat

    try:
        return compat.is_cupy_array(x) or compat.is_ndonnx_array(x)
    except AttributeError:  # it looks into sys.modules, where a blocked framework is None
        return False

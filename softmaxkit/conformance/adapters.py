"""The adapters: a function for each library, and how one is found by its name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from softmaxkit._libraries import import_quietly, is_installed
from softmaxkit.conformance.adapter import (
    Adapter,
    Answer,
    Function,
    Request,
    Transform,
    eager,
    inside,
    through,
)
from softmaxkit.conformance.case import LABELS, Case
from softmaxkit.conformance.cases import of_each_call

Wanted = Mapping[int, tuple[int, Any]]  # as `through` has it

# The module that has to be there for each adapter of this file.
REQUIRES = {
    "numpy": "numpy",
    "torch": "torch",
    "jax": "jax",
    "tensorflow": "tensorflow",
    "array_api_strict": "array_api_strict",
    "dask": "dask",
    "mlx": "mlx.core",
}


def names() -> list[str]:
    """Return the adapters that SOFTMAXKIT_BACKENDS demands, or those whose library is installed.

    The variable holds names separated by commas; "package.module:adapter" is someone else's.
    A library that is named but missing is an error when it is loaded, never a skip.
    """
    demanded = os.environ.get("SOFTMAXKIT_BACKENDS")
    if demanded:
        return [name.strip() for name in demanded.split(",")]
    return [name for name, module in REQUIRES.items() if is_installed(module)]


def load(name: str) -> Adapter:
    """Return the adapter called `name`, importing its library."""
    if ":" in name:
        return _someone_elses(name)
    if name not in REQUIRES:
        raise ValueError(
            f"conformance: backend is {name!r}; expected one of {', '.join(REQUIRES)}, or "
            f"'package.module:adapter'; correct --backend or SOFTMAXKIT_BACKENDS."
        )
    try:
        return globals()[f"_{name}"]()
    except ImportError as error:
        raise ImportError(f"conformance: backend is {name!r}: {error}; install it.") from error


def _someone_elses(name: str) -> Adapter:
    """Return the adapter at "package.module:adapter"; one line says what is wrong with it."""
    module, _, attribute = name.partition(":")
    try:
        adapter = getattr(import_module(module), attribute)
        if not isinstance(adapter, Adapter):
            adapter = adapter()
    except Exception as error:
        raise ValueError(
            f"conformance: backend is {name!r}, which gives {type(error).__name__}: {error}; "
            f"expected an Adapter, or a function that returns one."
        ) from error
    if not isinstance(adapter, Adapter):
        raise ValueError(
            f"conformance: backend is {name!r}, which gives {adapter!r}; expected an Adapter, or "
            f"a function that returns one."
        )
    for dtype in adapter.dtypes:
        array = np.array([1.0, -2.5])
        try:
            there = adapter.to_backend(array, dtype)
            got = adapter.dtype_name(there), np.asarray(adapter.to_numpy(there)).tolist()
        except Exception as error:
            got = type(error).__name__, str(error)
        if got != (dtype, array.tolist()):
            raise ValueError(
                f"conformance: {name} takes [1.0, -2.5] in {dtype} there and back as "
                f"{': '.join(map(str, got))}; correct to_backend, to_numpy or dtype_name, or name "
                f"{dtype} in lacks."
            )
    return adapter


def _too_large(case: Case) -> str:
    if case.is_large:
        return "in float32 they show nothing that 66,000 rows do not; eager calls run in all dtypes"
    return ""


WRONG_IN_FORWARD_MODE = ("logsumexp-logsumexp of a row with +inf is +inf",)


def _no_forward_mode(case: Case) -> str:
    logits = case.arrays[0]
    if case.raises or case.operation in LABELS or logits.dtype.kind != "f":
        return "forward mode: nothing to differentiate"
    if logits.size > 10_000:
        return "forward mode: a Jacobian for more than 10,000 logits takes gigabytes"
    if case.name.endswith("alone"):  # one row, or element, is NaN
        return "forward mode: 0 x NaN carries a row of NaN to the derivatives by other rows"
    if str(case) in WRONG_IN_FORWARD_MODE:
        return "forward mode: a defect of softmaxkit: 0 for NaN beside a logit of +inf"
    return ""


def _one_of_each_call(case: Case) -> str:
    return "" if str(case) in of_each_call() else "sizes unknown, or shards: one case of each call"


def _first(results: Any) -> Any:
    """Return the first of a batch, also of results in tuples."""
    if isinstance(results, tuple | list):
        return tuple(map(_first, results))
    return results if results is None else results[0]


def _plain(array: Any) -> np.ndarray:
    return np.asarray(array)


def _numpy() -> Adapter:
    lacks = {"tracing": "NumPy has no compiler", "autodiff": "NumPy has no autodiff"}
    if is_installed("ml_dtypes"):
        import ml_dtypes  # noqa: F401  # gives NumPy the dtype of that name
    else:
        lacks["bfloat16"] = "NumPy has it from ml_dtypes, which is not installed"

    def to_backend(array: np.ndarray, dtype: str | None) -> np.ndarray:
        with np.errstate(over="ignore"):  # beyond the range of float16 is inf
            array = np.array(array, dtype or array.dtype)
        array.flags.writeable = False
        return array

    return Adapter("numpy", to_backend, _widened, _dtype_name, lacks)


def _widened(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _dtype_name(array: Any) -> str:
    return str(array.dtype).rpartition(".")[2]


def _torch() -> Adapter:
    import torch

    def to_backend(array: np.ndarray, dtype: str | None) -> Any:
        return torch.tensor(np.asarray(array), dtype=getattr(torch, dtype) if dtype else None)

    def to_numpy(tensor: Any) -> np.ndarray:
        tensor = tensor.detach()
        return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()

    def backward(program: Function, arrays: list[Any], wanted: Wanted) -> list[Answer]:
        leaves = {place: arrays[place].detach().requires_grad_() for place, _ in wanted.values()}
        values = program(*(leaves.get(place, array) for place, array in enumerate(arrays)))
        if not wanted:
            return [(value, None) for value in values]
        # At once: no value depends on the leaf of another.
        products = torch.autograd.grad(
            [values[index] for index in wanted],
            [leaves[place] for place, _ in wanted.values()],
            [cotangent for _, cotangent in wanted.values()],
        )
        by_index = dict(zip(wanted, products, strict=True))
        return [(value, by_index.get(index)) for index, value in enumerate(values)]

    def pull(function: Function, arrays: list[Any], by: int, cotangent: Any) -> Answer:
        def of(x: Any) -> Any:
            return function(*arrays[:by], x, *arrays[by + 1 :])

        value, product = torch.func.vjp(of, arrays[by])
        return value, product(cotangent)[0]

    def forward(function: Function, arrays: list[Any], by: int, cotangent: Any) -> Answer:
        def total(*arrays: Any) -> Any:
            return (cotangent * function(*arrays)).sum()

        gradient = torch.func.jacfwd(total, argnums=by)(*arrays)
        # The dtype of a Jacobian is the result's.
        return function(*arrays), gradient.to(arrays[by].dtype)

    def mapped(function: Function) -> Function:
        def call(*arrays: Any) -> Any:
            # flip knows no wide unsigned integers
            pairs = [torch.stack([a, a[[*range(len(a))][::-1]] if a.ndim else a]) for a in arrays]
            return _first(torch.func.vmap(function)(*pairs))

        return call

    def no_jacfwd(case: Case) -> str:
        if not case.arrays[0].size:
            return "forward mode: torch.func.jacfwd refuses a Jacobian without columns"
        return _no_forward_mode(case)

    def checkpointed(function: Function) -> Function:
        from torch.utils.checkpoint import checkpoint

        return partial(checkpoint, function, use_reentrant=False)

    def compiled(function: Function, backend: str = "aot_eager") -> Function:
        # Dynamo and AOTAutograd, without the seconds that code generation takes for each case.
        torch.compiler.reset()
        whole = torch.compile(function, fullgraph=True, backend=backend)

        def call(*arrays: Any) -> Any:
            try:
                return whole(*arrays)
            except torch._dynamo.exc.Unsupported:
                # With fullgraph, a refusal is hidden behind Dynamo's own error; without, it shows.
                torch.compile(function, backend=backend)(*arrays)
                raise

        return call

    def compiled_map(function: Function) -> Function:
        return compiled(mapped(function))

    def not_saturated(case: Case) -> str:
        return "" if case.saturated else "compiling a map takes a second: saturated rows"

    generated = partial(compiled, backend="inductor")

    def no_generated_code(case: Case) -> str:
        if not any(map(shutil.which, ("g++", "clang++", "c++", "cl"))):
            return "inductor: there is no C++ compiler"
        if case.raises or not case.saturated:
            return "inductor takes seconds for each program: where digits are lost, saturated rows"
        return ""

    return Adapter(
        "torch",
        to_backend,
        to_numpy,
        _dtype_name,
        {},
        {
            "eager": Transform(eager, through(eager, backward), reads_labels=True),
            "torch.compile": Transform(
                compiled, through(compiled, backward), groups=True, lacks=_too_large
            ),
            "inductor": Transform(
                generated, through(generated, backward), groups=True, lacks=no_generated_code
            ),
            "vmap": Transform(mapped, inside(mapped, pull)),
            "vmap, torch.compile": Transform(
                compiled_map, inside(compiled_map, pull), lacks=not_saturated
            ),
            "jacfwd": Transform(eager, inside(eager, forward), lacks=no_jacfwd),
            "checkpoint": Transform(
                checkpointed,
                through(checkpointed, backward),
                reads_labels=True,
                lacks=lambda case: (
                    "torch before 2.13: an exception breaks the next checkpoint"
                    if case.raises
                    else ""
                ),
            ),
        },
        default_float="float32",
    )


def _jax() -> Adapter:
    import jax
    import jax.export
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def to_backend(array: np.ndarray, dtype: str | None) -> Any:
        with np.errstate(over="ignore"):  # beyond the range of float16 is inf
            return jnp.asarray(array, dtype or array.dtype)

    def pull(function: Function, arrays: list[Any], by: int, cotangent: Any) -> Answer:
        value, product = jax.vjp(function, *arrays)
        return value, product(cotangent)[by]

    def forward(function: Function, arrays: list[Any], by: int, cotangent: Any) -> Answer:
        def total(*arrays: Any) -> Any:
            return (cotangent * function(*arrays)).sum()

        gradient = jax.jacfwd(total, argnums=by)(*arrays)
        return function(*arrays), gradient.astype(arrays[by].dtype)

    def backward(program: Function, arrays: list[Any], wanted: Wanted) -> list[Answer]:
        def both(cotangents: Any, *arrays: Any) -> Any:
            values, product = jax.vjp(program, *arrays)
            return values, product(
                tuple(
                    cotangents[index] if index in cotangents else jnp.zeros_like(value)
                    for index, value in enumerate(values)
                )
            )

        cotangents = {index: cotangent for index, (_, cotangent) in wanted.items()}
        values, products = jax.jit(both)(cotangents, *arrays)
        return [
            (value, products[wanted[index][0]] if index in wanted else None)
            for index, value in enumerate(values)
        ]

    def pairs(arrays: Any) -> Any:
        return [jnp.stack([a, jnp.flip(a, 0) if a.ndim else a]) for a in arrays]

    def mapped(function: Function) -> Function:
        return jax.jit(lambda *arrays: _first(jax.vmap(function)(*pairs(arrays))))

    def scanned(function: Function) -> Function:
        """Scan over a batch of two, each rematerialised on the way back."""

        def step(carry: Any, arrays: Any) -> Any:
            return carry, jax.checkpoint(function)(*arrays)

        return jax.jit(lambda *arrays: _first(jax.lax.scan(step, None, pairs(arrays))[1]))

    def exported(function: Function) -> Function:
        """Export it for sizes that are not known, and call what comes of that."""

        def call(*arrays: Any) -> Any:
            scope = jax.export.SymbolicScope()
            names = {n: f"n{n}" if n > 1 else str(n) for a in arrays for n in a.shape}
            specs = [
                jax.ShapeDtypeStruct(
                    jax.export.symbolic_shape(",".join(names[n] for n in a.shape), scope=scope),
                    a.dtype,
                )
                for a in arrays
            ]
            return jax.export.export(jax.jit(function))(*specs).call(*arrays)

        return call

    def sharded(requests: Sequence[Request]) -> Sequence[Answer]:
        """Compute with the rows along one axis of a mesh of devices, the classes along another."""
        from jax.sharding import AxisType, NamedSharding, PartitionSpec, reshard

        mesh = jax.make_mesh((1, 1), ("rows", "classes"), axis_types=2 * (AxisType.Explicit,))

        def laid(logits: Any, array: Any, is_labels: bool) -> Any:
            along: list[str | None] = [None] * array.ndim
            whole = array.ndim == logits.ndim > 1
            if (whole or is_labels) and array.shape[:1] == logits.shape[:1] != (1,):
                along[0] = "rows"
            if whole and array.shape[-1] > 1:
                along[-1] = "classes"
            return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*along)))

        def pull_of_laid(function: Function, arrays: list[Any], by: int, cotangent: Any) -> Answer:
            value, product = jax.vjp(function, *arrays)
            return value, product(reshard(cotangent, jax.typeof(value).sharding))[by]

        with jax.set_mesh(mesh):
            return inside(jax.jit, pull_of_laid)(
                [
                    replace(
                        request,
                        arrays=[
                            laid(request.arrays[0], a, place == 1 and a.dtype.kind in "iu")
                            for place, a in enumerate(request.arrays)
                        ],
                    )
                    for request in requests
                ]
            )

    def no_sharding(case: Case) -> str:
        if not hasattr(jax, "set_mesh"):
            return "JAX before 0.8: it has no jax.set_mesh"
        return _one_of_each_call(case)

    return Adapter(
        "jax",
        to_backend,
        _widened,
        _dtype_name,
        {},
        {
            "eager": Transform(eager, inside(eager, pull), reads_labels=True),
            "jit": Transform(jax.jit, inside(jax.jit, pull), groups=True),
            "vmap": Transform(mapped, inside(mapped, pull), groups=True, lacks=_too_large),
            "jacfwd": Transform(
                jax.jit, inside(jax.jit, forward), groups=True, lacks=_no_forward_mode
            ),
            "scan, checkpoint": Transform(
                scanned, through(scanned, backward), groups=True, lacks=_too_large
            ),
            "export": Transform(
                exported, inside(exported, pull), groups=True, lacks=_one_of_each_call
            ),
            "sharded": Transform(jax.jit, sharded, groups=True, lacks=no_sharding),
        },
        dtypes_under="jit",
    )


def _tensorflow() -> Adapter:
    tf = import_quietly("tensorflow")
    tf.get_logger().setLevel("ERROR")  # tracing a function for each case is the purpose here

    def to_backend(array: np.ndarray, dtype: str | None) -> Any:
        return tf.cast(tf.constant(array), dtype) if dtype else tf.constant(array)

    def to_numpy(tensor: Any) -> np.ndarray:
        return _widened(tensor.numpy())

    def pull(function: Function, arrays: list[Any], by: int, cotangent: Any) -> Answer:
        with tf.GradientTape() as tape:
            tape.watch(arrays[by])
            value = function(*arrays)
        return value, tape.gradient(value, arrays[by], output_gradients=cotangent)

    def mapped(function: Function) -> Function:
        def call(*arrays: Any) -> Any:
            pairs = [tf.stack([a, tf.reverse(a, [0]) if a.shape.rank else a]) for a in arrays]
            return _first(tf.vectorized_map(lambda each: function(*each), pairs))

        return call

    def unknown_shapes(function: Function) -> Function:
        def traced(*arrays: Any) -> Any:
            def unknown(shape: list[int]) -> list[int | None]:  # 0 classes are refused if known
                return [None, *(None if n else 0 for n in shape[1:])] if shape else []

            signature = [tf.TensorSpec(unknown(a.shape.as_list()), a.dtype) for a in arrays]
            return tf.function(function, input_signature=signature)(*arrays)

        return traced

    on_cpu = not tf.config.list_physical_devices("GPU")  # where an assertion makes nothing wait
    raising = partial(Transform, reads_labels=on_cpu, label_error=tf.errors.InvalidArgumentError)

    def xla(function: Function) -> Function:
        return tf.function(function, jit_compile=True)

    return Adapter(
        "tensorflow",
        to_backend,
        to_numpy,
        lambda tensor: tensor.dtype.name,
        {},
        {
            "eager": Transform(eager, inside(eager, pull), reads_labels=True),
            "tf.function": raising(
                unknown_shapes, inside(unknown_shapes, pull), groups=True, lacks=_too_large
            ),
            "XLA": Transform(xla, inside(xla, pull), groups=True, lacks=_too_large),
            "vectorized_map": raising(mapped, inside(mapped, pull), groups=True, lacks=_too_large),
        },
        default_float="float32",
    )


def _array_api_strict() -> Adapter:
    import array_api_strict

    def to_backend(array: np.ndarray, dtype: str | None) -> Any:
        return array_api_strict.asarray(np.array(array, dtype or array.dtype))

    lacks = {
        "float16": "the array-API standard has no such dtype",
        "bfloat16": "the array-API standard has no such dtype",
        "tracing": "array-api-strict has no compiler",
        "autodiff": "array-api-strict has no autodiff",
    }
    return Adapter("array_api_strict", to_backend, _plain, _dtype_name, lacks)


def _dask() -> Adapter:
    import dask.array

    def to_backend(array: np.ndarray, dtype: str | None) -> Any:
        chunks = tuple(max(1, (n + 1) // 2) for n in array.shape)  # several along every axis
        return dask.array.from_array(np.array(array, dtype or array.dtype), chunks=chunks)

    lacks = {
        "float16": "array-api-compat does not count it among the dtypes of Dask",
        "bfloat16": "array-api-compat does not count it among the dtypes of Dask",
        "tracing": "Dask is lazy: each case is a graph already",
        "autodiff": "Dask has no autodiff",
        "labels": "Dask is lazy: labels are not known before they are computed",
    }
    return Adapter("dask", to_backend, _plain, _dtype_name, lacks)


def _mlx() -> Adapter:
    import mlx.core as mx

    mx.set_default_device(mx.cpu)  # which alone has float64

    def to_backend(array: np.ndarray, dtype: str | None) -> Any:
        known = getattr(mx, dtype or "", None)
        return mx.array(array if known else np.array(array, dtype), known)

    def to_numpy(array: Any) -> np.ndarray:
        return np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)

    lacks = {
        "tracing": "MLX is lazy: each case is a graph already",
        "autodiff": "MLX differentiates each step, in plain digits; tests/test_mlx.py",
        "labels": "MLX is lazy: labels are not known before they are computed",
    }
    return Adapter("mlx", to_backend, to_numpy, _dtype_name, lacks, default_float="float32")

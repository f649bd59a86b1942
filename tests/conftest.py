"""The array libraries that tests run on: those SOFTMAXKIT_BACKENDS names, or all installed.

A library that is named and missing is an error, never a skip: a session that silently tests
nothing would look like one that passes.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import permutations
from pathlib import Path
from runpy import run_path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import softmaxkit
from softmaxkit.conformance import Adapter, adapters


@dataclass(frozen=True)
class Library:
    """An array library: its conformance adapter, and the backend module that serves it."""

    adapter: Adapter
    backend: ModuleType

    def array(self, value: Any, dtype: str = "float32") -> Any:
        return self.adapter.to_backend(np.asarray(value), dtype)

    def numpy(self, value: Any) -> np.ndarray:
        return self.adapter.to_numpy(value)

    def __repr__(self) -> str:
        return self.adapter.name


@cache
def libraries() -> dict[str, Library]:
    found = {}
    for name in adapters.names():
        try:
            adapter = adapters.load(name)
        except (ImportError, ValueError) as problem:
            raise pytest.UsageError(f"SOFTMAXKIT_BACKENDS: {problem}") from problem
        module = name if name in softmaxkit.backends.MODULES else "array_api"
        found[name] = Library(adapter, getattr(softmaxkit.backends, module))
    return found


def pytest_configure(config: pytest.Config) -> None:
    libraries()
    if os.environ.get("SOFTMAXKIT_TRITON") == "interpret":
        os.environ["TRITON_INTERPRET"] = "1"
        # By its path: the folder is not on the path of xdist's workers.
        run_path(str(Path(__file__).with_name("triton_interpreter.py")))["round_to_nearest"]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Spare the garbage collector the tests and the modules, which stay until the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


def pytest_unconfigure(config: pytest.Config) -> None:
    gc.unfreeze()  # else Triton, which looks when the interpreter exits, reports leaks


def pytest_report_header(config: pytest.Config) -> str:
    return f"softmaxkit backends: {', '.join(libraries())}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "other" in metafunc.fixturenames:
        pairs = list(permutations(libraries().values(), 2))
        metafunc.parametrize(("library", "other"), pairs, ids=repr)
    elif "library" in metafunc.fixturenames:
        metafunc.parametrize("library", libraries().values(), ids=repr)


def _module(library: str, module: str) -> ModuleType:
    if library not in libraries():
        pytest.skip(f"{library} is not among the libraries under test")
    return import_module(module)


@pytest.fixture
def torch() -> ModuleType:
    return _module("torch", "torch")


@pytest.fixture
def jax() -> ModuleType:
    return _module("jax", "jax")


@pytest.fixture
def optax(jax: ModuleType) -> ModuleType:
    pytest.importorskip("optax", reason="optax, with which this compares, is not installed")
    return import_module("optax.losses")


@pytest.fixture
def tf() -> ModuleType:
    return _module("tensorflow", "tensorflow")


@pytest.fixture
def da() -> ModuleType:
    return _module("dask", "dask.array")


@pytest.fixture
def strict() -> ModuleType:
    return _module("array_api_strict", "array_api_strict")


@pytest.fixture
def mx() -> ModuleType:
    return _module("mlx", "mlx.core")


@pytest.fixture
def same(torch: ModuleType) -> Callable[..., None]:
    """Compare value, dtype and shape of two tensors, and the gradients by some leaves."""

    def gradients(value: Any, leaves: list[Any]) -> Any:
        """Differentiate a fixed sum of the values."""
        weights = torch.linspace(0.5, 1.5, max(value.numel(), 1))[: value.numel()]
        return torch.autograd.grad((value * weights.view(value.shape)).sum(), leaves)

    def compare(got: Any, expected: Any, leaves: Any = (), **tolerance: Any) -> None:
        torch.testing.assert_close(got, expected, **tolerance)
        if leaves:
            pairs = zip(*(gradients(each, leaves) for each in (got, expected)), strict=True)
            for mine, other in pairs:
                torch.testing.assert_close(mine, other, **tolerance)

    return compare


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., str]:
    """Run a script in a fresh interpreter, on the softmaxkit under test; return what it prints."""

    def run(script: str, *path: Path | str) -> str:
        path = (*path, Path(softmaxkit.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))},
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

"""softmaxkit.keras on every Keras backend: keras_*cases.py in a process of its own for each.

Keras takes its backend from the environment, once, when it is imported.
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import softmaxkit
from softmaxkit.conformance import adapters

pytestmark = pytest.mark.skipif(
    find_spec("keras") is None, reason="Keras is not installed: pip install keras"
)
TESTS = Path(__file__).parent
CASES = ("keras_cases.py", "keras_function_cases.py", "keras_model_cases.py")


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax", "tensorflow"])
def test_every_case_on(backend, tmp_path):
    if backend not in adapters.names():
        pytest.skip(f"{backend} is not among the libraries under test")
    config = ("-c", str(TESTS.parent / "pyproject.toml"), "-p", "no:cacheprovider")
    config += ("-o", "pythonpath=tests")  # where keras_common.py is
    cases = [str(TESTS / name) for name in CASES]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *config, "-q", *cases],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=os.environ
        | {"KERAS_BACKEND": backend, "SOFTMAXKIT_BACKENDS": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        | {"PYTHONPATH": str(Path(softmaxkit.__file__).parents[1])},
        text=True,
    )
    print(done.stdout)  # what was skipped, and why
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert passed, done.stdout
    assert int(passed.group(1)) > 100


@pytest.mark.skipif("numpy" not in adapters.names(), reason="NumPy is not under test")
def test_a_saved_loss_needs_the_import(run_python, monkeypatch):
    """The name is registered by importing softmaxkit.keras, and only by that."""
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    script = """
import keras
name = "softmaxkit>SparseCategoricalFocalCrossentropy"
assert keras.saving.get_registered_object(name) is None
import softmaxkit.keras
print(keras.saving.get_registered_object(name).__module__)
"""
    assert run_python(script) == "softmaxkit.keras\n"

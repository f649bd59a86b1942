"""Every example runs as it stands and recognises at least 95 of 100 digits."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
BACKENDS = ("numpy", "torch", "jax", "tensorflow")


def backends_under_test():
    """Those that SOFTMAXKIT_BACKENDS names, there or not; else NumPy and what is installed."""
    named = os.environ.get("SOFTMAXKIT_BACKENDS")
    if named:
        return [name for name in BACKENDS if name in map(str.strip, named.split(","))]
    return [name for name in BACKENDS if find_spec(name)]


def test_there_is_an_example_for_each_backend_and_a_line_about_it():
    readme = (EXAMPLES / "README.md").read_text()
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {f"digits_{backend}.py" for backend in BACKENDS}
    assert all(f"`{name}`" in readme for name in names)


@pytest.mark.parametrize("backend", backends_under_test())
def test_example(backend):
    pytest.importorskip("sklearn", reason="the examples need scikit-learn: pip install '.[demo]'")
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"digits_{backend}.py")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    printed = re.fullmatch(r"test accuracy (\d\.\d{4})\n", result.stdout)
    assert printed, result.stdout
    assert float(printed.group(1)) >= 0.95

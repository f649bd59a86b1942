"""Keras's own tests on softmaxkit.keras: keras_losses.py in a process of its own for each backend.

Keras takes its backend from the environment, once, when it is imported.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax", "tensorflow"])
def test_losses(tally, backend):
    config = ("-c", str(HERE.parent / "pyproject.toml"), "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *config, "-q", str(HERE / "keras_losses.py")],
        capture_output=True,
        check=False,
        env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
    )
    print(done.stdout)  # what was skipped or differs, and why
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    counts = {what: int(count) for count, what in re.findall(r"(\d+) (\w+)", last.split(" in ")[0])}
    passed, excused = counts.pop("passed"), counts.pop("xfailed", 0)
    skipped = counts.pop("skipped", 0)  # by Keras itself
    assert not counts
    assert passed > 40
    run = passed + excused + skipped
    tally(f"Keras on {backend}", run=run, passed=passed, excused=excused, skipped=skipped)

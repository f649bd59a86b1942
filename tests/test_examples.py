"""Every example runs as it stands, and prints what its first lines promise."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
BACKENDS = ("numpy", "torch", "jax", "tensorflow")
OTHERS = {
    "keras_lines_of_digits.py",
    "optax_padded_batches.py",
    "torch_character_model.py",
    "torch_focal_loss.py",
}


def backends_under_test():
    """Those that SOFTMAXKIT_BACKENDS names, there or not; else NumPy and what is installed."""
    named = os.environ.get("SOFTMAXKIT_BACKENDS")
    if named:
        return [name for name in BACKENDS if name in map(str.strip, named.split(","))]
    return [name for name in BACKENDS if find_spec(name)]


def need(backend, **packages):
    """Skip a program whose library is not under test, or without the packages beside it."""
    if backend not in backends_under_test():
        pytest.skip(f"{backend} is not among the libraries under test")
    for package, name in packages.items():
        if find_spec(package) is None:
            pytest.skip(f"the example needs {name}: pip install {name}")


def run(name, *options, **env):
    """Return what an example prints; a warning is an error."""
    result = subprocess.run(
        [sys.executable, "-W", "error", *options, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        env=os.environ | env,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def table(printed):
    """Return the numbers, in percent too, at the ends of the lines: name -> numbers."""
    rows = re.findall(r"^(.*?\S)((?: +[+-]?\d[\d.]*%?)+)$", printed, flags=re.MULTILINE)
    return {name: [number(each) for each in numbers.split()] for name, numbers in rows}


def number(text):
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def test_there_is_an_example_for_each_backend_and_a_line_about_it():
    readme = (EXAMPLES / "README.md").read_text()
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {f"digits_{backend}.py" for backend in BACKENDS} | OTHERS
    assert all(f"`{name}`" in readme for name in names)


@pytest.mark.parametrize("backend", backends_under_test())
def test_example(backend):
    pytest.importorskip("sklearn", reason="the examples need scikit-learn: pip install '.[demo]'")
    printed = run(f"digits_{backend}.py")
    accuracy = re.fullmatch(r"test accuracy (\d\.\d{4})\n", printed)
    assert accuracy, printed
    assert float(accuracy.group(1)) >= 0.95


def test_torch_focal_loss():
    need("torch", sklearn="scikit-learn")
    printed = run("torch_focal_loss.py")
    first = re.search(r"torch ([\d.]+), softmaxkit ([\d.]+); gradients differ by (\S+)", printed)
    assert first, printed
    assert abs(float(first.group(1)) - float(first.group(2))) < 2e-6
    assert float(first.group(3)) < 1e-6  # of the largest: float32
    rows = table(printed)
    assert len(rows) == 5, printed
    # One digit of ten is rare: whoever never says it is right in nine of ten at best.
    assert all(accuracy > 0.88 for accuracy, *_ in rows.values()), printed
    theirs, ours = rows["torch cross_entropy"], rows["cross_entropy"]
    assert abs(theirs[0] - ours[0]) < 0.01, printed
    recall = {name: row[1] for name, row in rows.items()}
    assert recall["cross_entropy, class weights"] > recall["cross_entropy"], printed


def test_torch_character_model():
    need("torch")
    printed = run("torch_character_model.py")
    rows = {name: bits for name, (bits,) in table(printed).items()}
    assert rows["model"] < rows["by frequency"] < rows["all characters alike"], printed
    same = (rows["model, 50 more columns of padding"],
            rows["model, by torch.nn.functional.cross_entropy"])  # fmt: skip
    assert same == pytest.approx((rows["model"],) * 2, abs=1.5e-4), printed  # four digits
    assert re.search(r"^it writes: \S+", printed, re.MULTILINE), printed


def test_optax_padded_batches():
    need("jax", optax="optax", sklearn="scikit-learn")
    printed = run("optax_padded_batches.py")
    rows = table(printed)
    theirs, ours = rows["optax"], rows["softmaxkit.jax"]
    padded = rows["softmaxkit, padded, smoothed"]
    images = int(re.match(r"\d+", printed).group())
    assert [theirs[0], ours[0], padded[0]] == [images // 100 * 100] * 2 + [images], printed
    assert [row[1] for row in rows.values()] == [1, 1, 1], printed  # compiled once
    assert ours[2] == pytest.approx(theirs[2], rel=0.01), printed  # after 260 steps of rounding
    assert all(row[3] >= 0.95 for row in rows.values()), printed
    assert padded[4] < ours[4], printed  # smoothed: less sure


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_keras_lines_of_digits(backend):
    need(backend, keras="keras", sklearn="scikit-learn")
    # keras.ops.convert_to_numpy meets NumPy 2.4.
    ignored = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    printed = run("keras_lines_of_digits.py", "-W", ignored, KERAS_BACKEND=backend)
    assert printed.startswith(f"{backend}: "), printed
    first = re.search(r"keras\.losses ([\d.]+), softmaxkit ([\d.]+)", printed)
    assert abs(float(first.group(1)) - float(first.group(2))) < 2e-6, printed
    saved = re.search(r"test loss ([\d.]+), and ([\d.]+) after", printed)
    assert abs(float(saved.group(1)) - float(saved.group(2))) < 2e-6, printed
    plain, smoothed = table(printed)["0.0"], table(printed)["0.1"]
    assert min(plain[1], smoothed[1]) > 0.9, printed
    assert smoothed[2] < plain[2], printed
    assert smoothed[2] < 0.91 + 0.02, printed  # what smoothing by 0.1 asks of a label

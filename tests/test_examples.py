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
    "dask_out_of_core.py",
    "flax_masked_classes.py",
    "keras_lines_of_digits.py",
    "keras_train_step.py",
    "lightning_digits.py",
    "optax_padded_batches.py",
    "own_backend.py",
    "sklearn_regression.py",
    "tensorflow_replicas.py",
    "torch_character_model.py",
    "torch_focal_loss.py",
    "torch_tied_character_model.py",
    "torch_vocabulary_shards.py",
    "transformers_accumulation.py",
    "why.py",
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


def run(name, *options, arguments=(), **env):
    """Return what an example prints; a warning is an error."""
    result = subprocess.run(
        [sys.executable, "-W", "error", *options, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | env,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def table(printed):
    """Return the numbers, in percent too, at the ends of the lines: name -> numbers."""
    a_number = r"[+-]?\d[\d.]*(?:e[+-]\d+)?%?"
    rows = re.findall(rf"^(.*?\S)((?: +{a_number})+)$", printed, flags=re.MULTILINE)
    return {name: [number(each) for each in numbers.split()] for name, numbers in rows}


def number(text):
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def test_there_is_an_example_for_each_backend_and_a_line_about_it():
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.glob("*.py")}
    of_each = {f"{what}_{one}.py" for what in ("digits", "reject_others") for one in BACKENDS}
    assert names == of_each | OTHERS
    assert all(f"`{name}`" in readme for name in names)


@pytest.mark.parametrize("backend", backends_under_test())
def test_example(backend):
    pytest.importorskip("sklearn", reason="the examples need scikit-learn: pip install '.[demo]'")
    printed = run(f"digits_{backend}.py")
    accuracy = re.fullmatch(r"test accuracy (\d\.\d{4})\n", printed)
    assert accuracy, printed
    assert float(accuracy.group(1)) >= 0.95


@pytest.mark.parametrize("backend", backends_under_test())
def test_reject_others(backend, tmp_path):
    need(backend, sklearn="scikit-learn", **{"optax": "optax"} if backend == "jax" else {})
    picture = tmp_path / "picture.png"
    draws = backend == "torch" and find_spec("matplotlib") is not None
    printed = run(f"reject_others_{backend}.py", arguments=[picture] if draws else [])
    assert picture.exists() == draws
    every, nine, seven = table(printed)["100%"], table(printed)["90%"], table(printed)["70%"]
    # The binomial noise of 90 digits, three times.
    for (_, answered, right, _), asked in ((every, 1), (nine, 0.9), (seven, 0.7)):
        assert abs(answered - asked) < 0.15, printed
        assert right >= 0.94, printed
    assert nine[2] >= every[2], printed  # the sure answers are the right ones
    rejected = [row[3] for row in (every, nine, seven)]
    assert rejected == sorted(rejected), printed
    assert 0.1 < rejected[1] < 0.4, printed  # as its first lines say, and no more
    assert rejected[1] > 1 - nine[1], printed  # it gives up unknown digits rather than known ones


def test_why_prints_what_stands_in_the_readme():
    need("torch", jax="jax", optax="optax")
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    row = r"^\|.*\| (.+) \| (.+) \| `python examples/why.py (\w+)` \|$"
    promised = {
        name: [theirs, ours] for theirs, ours, name in re.findall(row, readme, re.MULTILINE)
    }
    facts = r"^(\w+): .+\n +(?:torch|optax) +(.+)\n +softmaxkit +(.+)$"
    printed = re.findall(facts, run("why.py"), re.MULTILINE)
    assert len(printed) == 8
    assert promised == {name: [theirs, ours] for name, theirs, ours in printed}


def test_torch_focal_loss():
    need("torch", sklearn="scikit-learn")
    printed = run("torch_focal_loss.py")
    first = re.search(r"torch ([\d.]+), softmaxkit ([\d.]+); gradients differ by (\S+)", printed)
    assert first, printed
    assert abs(float(first.group(1)) - float(first.group(2))) < 2e-6
    assert float(first.group(3)) < 1e-6  # of the largest: float32
    rows = table(printed.partition("\n")[2])
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


def test_torch_tied_character_model():
    need("torch")
    printed = run("torch_tied_character_model.py")
    rows = {name: number for name, (number, *_) in table(printed).items()}
    bits = [rows[f"after {steps:3} steps"] for steps in (0, 20, 40, 60)]
    assert bits == sorted(bits, reverse=True), printed
    assert bits[-1] < 0.6 * bits[0], printed
    assert rows["the model, by its logits"] == pytest.approx(bits[-1], abs=1.5e-4), printed
    assert rows["gradients of the table differ by"] < 1e-5, printed  # of the largest: float32
    if "all logits" in rows:  # which only Linux measures
        # A loss and a gradient of all logits need three of their size, one by chunks of a quarter
        # of them as many of those.
        assert rows["chunks of logits"] < 0.5 * rows["all logits"], printed


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


def test_tensorflow_replicas():
    need("tensorflow", sklearn="scikit-learn")
    printed = run("tensorflow_replicas.py", TF_CPP_MIN_LOG_LEVEL="3")
    rows = table(printed)
    for step in range(1, 11):
        one, two, averaged = rows[f"{step:4}"]
        assert two == pytest.approx(one, abs=2e-6), printed  # six digits
        assert step == 1 or abs(averaged - one) > 0.01, printed  # another objective
    assert rows["two devices"][0] < 1e-6, printed  # after ten steps of rounding in float32
    assert rows["means averaged"][0] > 0.1, printed


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
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


def test_dask_out_of_core():
    need("numpy", dask="dask")
    printed = run("dask_out_of_core.py")
    assert re.search(r"^256 rows of 131072 classes: 0.125 GiB in 8 chunks$", printed, re.M), printed
    rows = table(printed)
    # 256 rows, whose losses have a standard deviation of 1.
    assert rows["loss"][0] == pytest.approx(rows["loss"][1], abs=4 / 16), printed
    assert rows["norm of the gradient"][0] == pytest.approx(1 / 16, rel=1e-4), printed
    assert rows["sum of the bias's gradient"][0] < 1e-5, printed


def test_torch_vocabulary_shards():
    need("torch")
    printed = run("torch_vocabulary_shards.py")
    rows = table(printed)
    for step in (0, 15, 30, 45):
        two, one = rows[f"{step:4}"]
        assert two == pytest.approx(one, abs=2e-6), printed  # seven digits
    assert rows["  45"][0] < rows["   0"][0] / 2, printed
    assert float(printed.split()[-1]) < 1e-5, printed  # after 60 steps of rounding in float32


def test_own_backend():
    need("numpy")
    lines = run("own_backend.py").splitlines()
    checks = int(re.fullmatch(r"(\d+) checks in float32, 0 failed", lines[0]).group(1))
    assert checks > 100, lines
    assert all(re.match(r"\d+ cases not run: \w", line) for line in lines[1:]), lines
    for operation in ("focal_loss", "one_hot", "linear_cross_entropy"):
        assert any(line.endswith(f" it has no {operation}") for line in lines), lines

    def in_its_folder(*arguments):
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            capture_output=True,
            text=True,
            cwd=EXAMPLES,
            env=os.environ
            | {"SOFTMAXKIT_BACKENDS": "own_backend:adapter", "PYTHONPATH": str(EXAMPLES.parent)}
            | {"COLUMNS": "150"},
        )

    checked = in_its_folder("softmaxkit", "check", "--backend", "own_backend:adapter")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"check: all {checks} checks passed, in " in checked.stdout
    assert "it has no focal_loss" in checked.stdout
    suite = ("pytest", "--pyargs", "softmaxkit.conformance", "-q", "-rs", "-p", "no:cacheprovider")
    tested = in_its_folder(*suite, "-k", "not float16")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "it has no focal_loss" in tested.stdout
    assert "own_backend:adapter has no vjp: not compared: gradients of activ" in tested.stdout


# --- beside other libraries: `nox -s integrations` has those that the other sessions lack ---------
def test_sklearn_regression():
    need("numpy", sklearn="scikit-learn", scipy="scipy")
    # Threads of OpenBLAS for products this small: 27 s for 3.
    printed = run("sklearn_regression.py", OMP_NUM_THREADS="1")
    rows = table(printed)
    theirs, ours = rows["LogisticRegression"], rows["softmaxkit, SciPy"]
    assert ours[:2] == theirs[:2], printed
    assert ours[2] == pytest.approx(theirs[2], abs=1.5e-6), printed  # six digits
    assert ours[3] < 1e-6, printed  # of the largest: gradients below 1e-7 at both ends
    smoothed = rows["softmaxkit, SciPy, smoothed"]
    assert smoothed[1] < ours[1], printed
    assert min(ours[0], smoothed[0]) > 0.9, printed


def test_transformers_accumulation():
    need("torch", transformers="transformers")
    printed = run("transformers_accumulation.py")
    rows = table(printed)
    theirs, ours = rows["transformers"], rows["causal_lm_loss"]
    assert theirs[2:] == [0, 0], printed
    assert theirs[1] < 0.8 * theirs[0], printed  # it learns
    assert ours[2] < 1e-6, printed
    assert ours[3] < 1e-5, printed  # after 25 steps of rounding, over how far weights went
    assert rows["causal_lm_loss, one batch"][2] < 1e-6, printed
    assert rows["causal_lm_loss, means averaged"][2] > 1e-3, printed  # another objective


def test_lightning_digits():
    need("torch", lightning="lightning", sklearn="scikit-learn")
    # lightning_utilities meets torch 2.13.
    ignored = "ignore:`isinstance(treespec, LeafSpec)`:FutureWarning"
    printed = run("lightning_digits.py", "-W", ignored)
    rows = table(printed)
    warm = ", with a temperature"
    assert rows["torch"] == pytest.approx(rows["softmaxkit"], rel=1e-3), printed
    assert all(row[1] > 0.9 for row in rows.values()), printed
    for name in ("softmaxkit", "softmaxkit, smoothed"):
        assert rows[name + warm][3] < rows[name][3], printed
    assert rows["softmaxkit" + warm][0] > 1 > rows["softmaxkit, smoothed" + warm][0], printed


def test_flax_masked_classes():
    need("jax", flax="flax", optax="optax", sklearn="scikit-learn")
    printed = run("flax_masked_classes.py")
    rows = table(printed)
    theirs, ours = rows["-1e9, optax"], rows["where, softmaxkit"]
    assert ours[0] == pytest.approx(theirs[0], rel=1e-3), printed  # after 420 steps of rounding
    assert ours[1] == pytest.approx(theirs[1], abs=0.005), printed
    assert ours[1] > rows["every class, softmaxkit"][1], printed
    assert rows["-1e9, optax, smoothed"][0] > 1e6, printed
    loss, accuracy, confidence = rows["where, softmaxkit, smoothed"]
    assert loss < 1, printed
    assert accuracy > 0.95, printed
    assert confidence < ours[2], printed


def test_keras_train_step():
    need("tensorflow", keras="keras", sklearn="scikit-learn")
    printed = run("keras_train_step.py")
    rows = table(printed)
    labels, theirs, ours = (
        rows[f"student, {name}"] for name in ("labels only", "Keras's loss", "softmaxkit")
    )
    assert ours == pytest.approx(theirs, rel=0.01), printed  # after 420 steps of rounding
    assert ours[3] < labels[3], printed  # the teacher helps
    assert rows["teacher"][1] > ours[1] > 0.8, printed

"""`softmaxkit demo`: it learns, the libraries agree, and it says so when they do not."""

import dataclasses
import io
import os
import re
import struct
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

_WHY = "the demo needs it: pip install '.[demo]'"
for _module in ("typer", "rich", "sklearn", "matplotlib"):
    pytest.importorskip(_module, reason=f"{_module} is not installed; {_WHY}")

# Below the skips: noqa E402, imports that stand not at the top.
from rich.console import Console  # noqa: E402

import softmaxkit  # noqa: E402
from softmaxkit import calibration, demo  # noqa: E402
from softmaxkit._commands import CommandError  # noqa: E402
from softmaxkit.demo_training import TRAINERS  # noqa: E402


def backends_under_test():
    """Those that SOFTMAXKIT_BACKENDS names, there or not; else NumPy and what is installed."""
    named = os.environ.get("SOFTMAXKIT_BACKENDS")
    if named:
        return [name for name in TRAINERS if name in map(str.strip, named.split(","))]
    return [name for name in TRAINERS if find_spec(name)]


def run(*backends, **options):
    console = Console(file=io.StringIO(), width=100)
    return demo.run(backends, console=console, **options), console.file.getvalue()


@pytest.fixture
def picture(tmp_path):
    return tmp_path / "picture.png"


# --- the command, as a user runs it ---------------------------------------------------------------
@pytest.mark.parametrize("options", [[], ["--loss", "focal", "--label-smoothing", "0.1"]])
def test_the_command_trains_on_every_library_and_all_agree(options, picture):
    command = ["-m", "softmaxkit", "demo", "--epochs", "3", "--output", str(picture), *options]
    libraries = backends_under_test()[: 2 if options else None]
    for name in libraries:
        command += ["--backend", name]
    result = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for name in libraries:
        assert re.search(rf"^{name} +0\.\d{{6}} +0\.", result.stdout, re.M)
    assert re.search(r"^probabilities: at T = 1 mean confidence 0\.\d{3}", result.stdout, re.M)
    assert re.search(r"^after +[\d.]+ +0\.\d{4} .* 0\.\d{4} \[0\.\d{4}, ", result.stdout, re.M)
    if libraries == ["numpy"]:
        assert "agreement: nothing to compare numpy with." in result.stdout
    else:  # the worst of them
        assert re.search(r"loss \d\.\de[-+]\d+ \(\w+\).*; within the toler", result.stdout)
    assert f"picture: {picture}" in result.stdout
    assert picture.stat().st_size > 10_000


def test_a_seed_gives_the_same_numbers_again(picture):
    (first,), _ = run("numpy", epochs=2, seed=5, output=picture)
    (again,), _ = run("numpy", epochs=2, seed=5, output=picture)
    (other,), _ = run("numpy", epochs=2, seed=6, output=picture)
    assert first.epochs[-1].train_loss == again.epochs[-1].train_loss
    assert first.epochs[-1].train_loss != other.epochs[-1].train_loss


# --- what it learns -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained_on_numpy(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "picture.png"
    (trajectory,), text = run("numpy", output=path)
    return trajectory, text, path


def test_numpy_alone_recognises_95_of_100_digits(trained_on_numpy):
    trajectory, text, _ = trained_on_numpy
    accuracy = float(re.search(r"^numpy.* +(0\.\d{4}) ", text, re.M).group(1))
    assert accuracy >= 0.95
    assert trajectory.epochs[-1].train_loss < trajectory.epochs[0].train_loss / 3


def test_everything_is_float32(trained_on_numpy):
    last = trained_on_numpy[0].epochs[-1]
    assert {a.dtype for a in (last.weight, last.bias, last.test_logits)} == {np.dtype("float32")}


def test_numpy_descends_as_the_textbook_says():
    task = demo._make_task("cross-entropy", 0.1, 1, 3, 0.5, 32)
    weight, bias = task.weight.astype(np.float64), task.bias.astype(np.float64)
    for batch in next(task.batches()):
        x = task.train_images[batch].astype(np.float64)
        p = np.exp(x @ weight + bias)
        p /= p.sum(axis=1, keepdims=True)
        smoothed = 0.9 * np.eye(10)[task.train_labels[batch]] + 0.1 / 10
        gradient = (p - smoothed) / len(batch)
        weight -= 0.5 * x.T @ gradient
        bias -= 0.5 * gradient.sum(axis=0)
    (epoch,) = TRAINERS["numpy"](task)
    # Float32: some ten roundings of numbers up to 1, in each of the steps.
    np.testing.assert_allclose(epoch.weight, weight, rtol=0, atol=1e-6)
    np.testing.assert_allclose(epoch.bias, bias, rtol=0, atol=1e-6)


def test_the_split_is_stratified_and_complete():
    task = demo._make_task("cross-entropy", 0.0, 1, 0, 0.5, 32)
    assert task.train_images.dtype == np.float32
    assert task.train_images.max() == 1
    parts = [
        np.bincount(labels)
        for labels in (task.train_labels, task.validation_labels, task.test_labels)
    ]
    assert [sum(part) for part in parts] == [1077, 270, 450]
    shares = np.array(parts) / sum(parts)
    assert abs(shares - [[0.6], [0.15], [0.25]]).max() < 0.01
    (batches,) = task.batches()
    assert batches.shape == (len(task.train_labels) // 32, 32)
    assert len(np.unique(batches)) == batches.size


# --- what it says about itself --------------------------------------------------------------------
@pytest.fixture
def numpy_with_a_wrong_gradient(monkeypatch):
    """Stand in for torch: NumPy's descent with every gradient one thousandth too long."""

    def trainer(task):
        return TRAINERS["numpy"](
            dataclasses.replace(task, learning_rate=task.learning_rate * 1.001)
        )

    monkeypatch.setitem(demo.TRAINERS, "torch", trainer)
    monkeypatch.setattr(demo, "is_installed", lambda name: True)
    monkeypatch.setattr(demo, "import_quietly", lambda name: None)


@pytest.mark.usefixtures("numpy_with_a_wrong_gradient")
def test_a_gradient_wrong_by_a_thousandth_is_noticed(picture):
    from typer.testing import CliRunner

    from softmaxkit.cli import app

    options = ["--backend", "numpy", "--backend", "torch", "--epochs", "2"]
    result = CliRunner().invoke(app, ["demo", *options, "--output", str(picture)])
    assert result.exit_code == 1
    assert re.fullmatch(
        r"demo: agreement: over all 2 epochs the largest relative difference from numpy is "
        r"loss \S+ \(torch\), weights \S+ \(torch\); NOT within the tolerance of 1e-04\.\n",
        result.stderr,
    )


def test_a_loss_that_is_not_a_number_does_not_agree(trained_on_numpy):
    good = trained_on_numpy[0]
    last = dataclasses.replace(good.epochs[-1], train_loss=float("nan"))
    bad = demo.Trajectory("torch", [*good.epochs[:-1], last], 0.0)
    for others in ([bad], [good, bad], [bad, good]):
        line, agreed = demo.agreement_line([good, *others])
        assert not agreed
        assert "loss nan (torch)" in line


@pytest.mark.parametrize(
    ("scale", "verdict"),
    [(50.0, "overconfident by 0.200"), (0.0, "underconfident by 0.300"), (1.3863, "neither")],
)
def test_confidence_is_held_against_accuracy(scale, verdict):
    # 800 of 1000 are right; logits (scale, 0) give class 0 the probability sigmoid(scale).
    labels = np.repeat([0, 1], [800, 200])
    line = demo.confidence_line(np.tile([scale, 0.0], (1000, 1)), labels)
    assert verdict in line
    assert "accuracy 0.800 ± 0.013 on 1000 test digits" in line


def test_the_temperature_is_fitted_to_digits_that_it_is_not_measured_on(trained_on_numpy):
    trajectory, text, _ = trained_on_numpy
    task = demo._make_task("cross-entropy", 0.0, 30, 0, 0.5, 32)
    last = trajectory.epochs[-1]
    logits = task.validation_images @ last.weight + last.bias
    temperature = calibration.fit_temperature(logits, task.validation_labels)
    assert temperature < 1  # so short a descent is less sure than it is right
    assert "T, fitted to 270 validation digits" in text
    assert "on the 450 test digits" in text
    rows = re.findall(r"(before|after) +([\d.]+) +([\d.]+) +[\d.]+ +([\d.]+) \[", text)
    numbers = {name: [float(one) for one in row] for name, *row in rows}
    for name, t in (("before", 1.0), ("after", temperature)):
        nll = softmaxkit.cross_entropy(last.test_logits, task.test_labels, temperature=t)
        ece = calibration.calibration_error(last.test_logits, task.test_labels, temperature=t)
        assert numbers[name] == pytest.approx([t, nll, ece], abs=1e-4)
    assert numbers["after"][1] < numbers["before"][1]
    assert numbers["after"][2] < numbers["before"][2]


def test_a_learning_rate_that_blows_up_is_named(picture):
    with pytest.raises(CommandError, match=r"not stay finite with --learning-rate 1e\+38"):
        run("numpy", epochs=1, learning_rate=1e38, output=picture)


@pytest.mark.parametrize("batch_size", [0, 1078])
def test_a_batch_is_between_one_digit_and_all(batch_size, picture):
    message = f"--batch-size is {batch_size}; expected 1 to 1077."
    with pytest.raises(CommandError, match=re.escape(message)):
        run("numpy", batch_size=batch_size, output=picture)
    assert not picture.exists()


def test_a_backend_that_cannot_be_imported_is_named(monkeypatch, picture):
    def broken(name):
        raise OSError("no libtorch.so\nand more")

    monkeypatch.setattr(demo, "is_installed", lambda name: True)
    monkeypatch.setattr(demo, "import_quietly", broken)
    with pytest.raises(CommandError, match=r"importing torch failed \(OSError: no libtorch.so\)"):
        run("torch", output=picture)


# --- the picture ----------------------------------------------------------------------------------
def test_the_picture_is_a_png_that_shows_something(trained_on_numpy):
    content = trained_on_numpy[2].read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert 1000 <= width <= 3000
    assert 500 <= height <= 2000

    from matplotlib.image import imread

    pixels = imread(trained_on_numpy[2])
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 100


def test_the_picture_leaves_no_figure_open(trained_on_numpy):
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []


def test_an_existing_picture_survives_a_refused_option(picture):
    picture.write_bytes(b"mine")
    with pytest.raises(CommandError):
        run("numpy", batch_size=0, output=picture)
    assert picture.read_bytes() == b"mine"


def test_the_losses_on_offer_are_those_of_the_package():
    assert demo.LOSSES["cross-entropy"] is softmaxkit.cross_entropy
    assert demo.LOSSES["focal"] is softmaxkit.focal_loss
    assert len(demo.LOSSES) == 2

"""`softmaxkit calibrate`: the files it reads, what it shows and writes, and what it refuses."""

import json
import re
from importlib.util import find_spec

import numpy as np
import pytest

from softmaxkit import softmax
from softmaxkit.calibration import fit_temperature

pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from softmaxkit.cli import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("softmaxkit.calibrate.RESAMPLES", 20)
    return lambda *arguments: CliRunner().invoke(app, ["calibrate", *arguments])


@pytest.fixture
def data(tmp_path):
    """Write logits of overconfident rows, and their labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (200, 5)).astype("float32")
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(1)
    np.save(tmp_path / "x.npy", logits)
    np.save(tmp_path / "y.npy", labels)
    return logits, labels


def saved(path, logits, labels):
    """Write logits and labels as files of each kind; return their names."""
    np.savez(path / "both.npz", logits=logits, labels=labels)
    np.savetxt(path / "x.csv", logits, "%.9g", ",", header="a,b,c,d,e", comments="")
    np.savetxt(path / "y.csv", labels, "%d")
    kinds = {"npz": ("both.npz", "both.npz"), "csv": ("x.csv", "y.csv")}
    if find_spec("torch"):
        import torch

        torch.save(torch.tensor(logits), path / "x.pt")
        torch.save({"labels": torch.tensor(labels), "more": 1}, path / "y.pt")
        kinds["pt"] = "x.pt", "y.pt"
    if find_spec("safetensors"):
        from safetensors.numpy import save_file

        save_file({"logits": logits, "labels": labels}, path / "both.safetensors")
        kinds["safetensors"] = "both.safetensors", "both.safetensors"
    return kinds


def test_every_kind_of_file_gives_the_same(invoke, data, tmp_path):
    expected = fit_temperature(*data)
    for pair in [("x.npy", "y.npy"), *saved(tmp_path, *data).values()]:
        result = invoke(*pair, "--save-temperature", "t.txt")
        assert (result.exit_code, result.stderr) == (0, "")
        # Nine digits in a .csv, read in float64, are 5e-10 off.
        assert float((tmp_path / "t.txt").read_text()) == pytest.approx(expected, rel=1e-8)


def test_the_table_and_the_numbers(invoke, data, tmp_path):
    result = invoke("x.npy", "y.npy", "--json", "o.json")
    found = json.loads((tmp_path / "o.json").read_text())
    before, after = found["before"], found["after"]
    assert (found["rows"], found["classes"], before["temperature"]) == (200, 5, 1.0)
    assert after["temperature"] == fit_temperature(*data)
    assert after["nll"] < before["nll"]
    assert after["accuracy"] == before["accuracy"] == (data[0].argmax(1) == data[1]).mean()
    for one in (before, after):
        for number in ("nll", "brier", "ece", "ece_low", "ece_high"):
            assert f"{one[number]:.4f}" in result.stdout


def test_probabilities_are_noticed_and_taken_by_their_option(invoke, data, tmp_path):
    np.save(tmp_path / "p.npy", softmax(np.float64(data[0])))
    result = invoke("p.npy", "y.npy")
    assert result.exit_code == 0
    assert result.stderr == (
        "calibrate: every row of p.npy sums to 1, as probabilities do; expected logits; pass "
        "--probabilities if they are probabilities.\n"
    )
    result = invoke("p.npy", "y.npy", "--probabilities", "--save-temperature", "t.txt")
    assert (result.exit_code, result.stderr) == (0, "")
    value = float((tmp_path / "t.txt").read_text())
    # log p, rounded, is the logits up to a constant of each row.
    assert value == pytest.approx(fit_temperature(np.float64(data[0]), data[1]), rel=1e-9)


def test_an_end_of_the_range_is_said(invoke, data, tmp_path):
    np.save(tmp_path / "y.npy", data[0].argmax(1))
    result = invoke("x.npy", "y.npy")
    assert result.exit_code == 0
    assert "every label has the largest logit of its row" in result.stderr


def test_a_picture(invoke, data, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install '.[plot]'")
    assert invoke("x.npy", "y.npy", "--plot", "o.png").exit_code == 0
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")


REFUSED = {
    "no file": (("no.npy", "y.npy"), "no.npy cannot be read: No such file or directory."),
    "another kind": (("x.txt", "y.npy"), r"x.txt ends in '.txt'; expected one of .npy, .+"),
    "a pickle": (("pickle.npy", "y.npy"), r"pickle.npy holds no arrays that can be read: .+"),
    "labels first": (
        ("y.npy", "x.npy"),
        r"y.npy holds int64 of shape .+; expected floats .+",
    ),
    "logits twice": (
        ("x.npy", "x.npy"),
        r"x.npy holds float32 of shape \(200, 5\); expected integers of shape \(200,\), .+",
    ),
    "too few labels": (
        ("x.npy", "short.npy"),
        r"short.npy holds int64 of shape \(3,\); expected integers of shape \(200,\), .+",
    ),
    "a row of NaN": (("nan.npy", "y.npy"), r"nan.npy: row 7 holds NaN or inf; .+"),
    "no rows": (("empty.npy", "y.npy"), r"empty.npy is empty; expected finite logits."),
    "a label out of range": (("x.npy", "large.npy"), r".*labels\[3\] is 5; expected a class .+"),
    "no such name": (("two.npz", "y.npy"), "two.npz holds a, b; expected one array, or one .+"),
    "no probabilities": (
        ("x.npy", "y.npy", "--probabilities"),
        "x.npy holds rows that do not sum to 1; .+",
    ),
    "no bins": (
        ("x.npy", "y.npy", "--bins", "0"),
        ".*bins is 0; expected an int of .+",
    ),
    "no PNG": (("x.npy", "y.npy", "--plot", "o.pdf"), ".+expected a name that ends in .png."),
    "no folder": (("x.npy", "y.npy", "--json", "no/o.json"), ".+ cannot be written: No such .+"),
}


@pytest.mark.parametrize(("arguments", "line"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(invoke, data, tmp_path, arguments, line):
    if "--plot" in arguments:
        pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install '.[plot]'")
    logits, labels = data
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "short.npy", labels[:3])
    np.save(tmp_path / "empty.npy", logits[:0])
    np.savez(tmp_path / "two.npz", a=logits, b=logits)
    labels[3] = 5
    np.save(tmp_path / "large.npy", labels)
    logits[7, 2] = np.nan
    np.save(tmp_path / "nan.npy", logits)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.fullmatch(f"calibrate: {line}\n", result.stderr)
    assert not list(tmp_path.glob("o.*"))

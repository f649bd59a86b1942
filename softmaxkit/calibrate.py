"""``softmaxkit calibrate``: a temperature for logits in a file, and what it is worth."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import softmaxkit
from softmaxkit._commands import CommandError, check_writable, save_picture
from softmaxkit._libraries import import_quietly, is_installed
from softmaxkit._terminal import new_console, new_table, print_table, say
from softmaxkit.calibration import brier_score, calibration_error, fit_temperature
from softmaxkit.calibration._pictures import plot_reliability

__all__ = ["fitted", "measured", "one_legend", "read", "run", "show"]

ENDINGS = (".npy", ".npz", ".csv", ".pt", ".safetensors")
# Rows of float16 probabilities sum to 1 within this; rows of logits hardly ever all do.
SUM = 1e-2
LEVEL, RESAMPLES = 0.95, 1000


def run(
    logits_file: Path,
    labels_file: Path,
    *,
    probabilities: bool,
    bins: int,
    binning: str,
    seed: int,
    picture: Path | None,
    json_file: Path | None,
    temperature_file: Path | None,
) -> None:
    """Read, check, fit, and show a table."""
    if picture is not None:
        if not is_installed("matplotlib"):
            raise CommandError("--plot needs matplotlib; pip install 'softmaxkit[plot]'", 1)
        check_writable("--plot", picture, ".png")
    for option, path in (("--json", json_file), ("--save-temperature", temperature_file)):
        if path is not None:
            check_writable(option, path, path.suffix.lower())
    logits = _logits(logits_file, probabilities)
    labels = _labels(labels_file, len(logits))
    how = {"bins": bins, "binning": binning, "seed": seed}
    try:
        temperature, warned = fitted(logits, labels)
        found = {
            name: measured(logits, labels, t, **how)
            for name, t in (("before", 1.0), ("after", temperature))
        }
    except (TypeError, ValueError, IndexError) as refusal:
        raise CommandError(" ".join(str(refusal).split())) from None
    if not probabilities and _are_probabilities(logits):
        warned.append(
            f"every row of {logits_file} sums to 1, as probabilities do; expected logits; pass "
            f"--probabilities if they are probabilities."
        )
    for line in warned:
        say(new_console(stderr=True), f"calibrate: {line}")
    rows, classes = logits.shape
    title = f"{rows} rows of {classes} classes, which T is fitted to and measured on"
    show(new_console(), found, title)
    if json_file is not None:
        numbers = {"rows": rows, "classes": classes, **found}
        json_file.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    if temperature_file is not None:
        temperature_file.write_text(f"{temperature!r}\n", encoding="utf-8")
    if picture is not None:
        _save_picture(picture, logits, labels, temperature, bins, binning)


def fitted(logits: Any, labels: Any) -> tuple[float, list[str]]:
    """Return the temperature of `fit_temperature`, and what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        temperature = fit_temperature(logits, labels)
    return temperature, [str(one.message) for one in caught]


def measured(
    logits: np.ndarray, labels: np.ndarray, temperature: float, **how: Any
) -> dict[str, float]:
    """Return what is measured of logits at a temperature; `how` is for `calibration_error`."""
    error: Any = calibration_error(
        logits, labels, temperature=temperature, interval=LEVEL, resamples=RESAMPLES, **how
    )
    nll = softmaxkit.cross_entropy(logits, labels, temperature=temperature, dtype="float64")
    return {
        "temperature": temperature,
        "nll": float(nll),
        "brier": brier_score(logits, labels, temperature=temperature),
        "ece": error.value,
        "ece_low": error.low,
        "ece_high": error.high,
        "accuracy": float((logits.argmax(1) == labels).mean()),
    }


def show(console: Console, found: dict[str, dict[str, float]], title: str) -> None:
    """Print a table with a line for each of what `measured` returned."""
    table = new_table(title, ["", "T", "NLL", "Brier", "ECE", "accuracy"])
    for name, one in found.items():
        table.add_row(
            name,
            f"{one['temperature']:.6g}",
            f"{one['nll']:.4f}",
            f"{one['brier']:.4f}",
            f"{one['ece']:.4f} [{one['ece_low']:.4f}, {one['ece_high']:.4f}]",
            f"{one['accuracy']:.4f}",
        )
    print_table(console, table, f"NLL in nats; ECE with {LEVEL:.0%} of the bootstrap.")


def _save_picture(
    path: Path, logits: np.ndarray, labels: np.ndarray, temperature: float, bins: int, binning: Any
) -> None:
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(9, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, t in zip(panels, (1.0, temperature), strict=True):
        plot_reliability(logits, labels, ax=ax, temperature=t, bins=bins, binning=binning)
        ax.set_title(f"T = {t:.4g}: {ax.get_legend().get_title().get_text()}", fontsize="medium")
    one_legend(figure, panels)
    save_picture("--plot", path, figure, dpi=120)


def one_legend(figure: Any, panels: Any) -> None:
    """Move what the legends of reliability diagrams say below all of them, where no bar is."""
    for ax in panels:
        ax.get_legend().remove()
    for ax in panels[1:]:
        ax.set_ylabel("")
    names = panels[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=4, frameon=False, fontsize="small")


# --- files ----------------------------------------------------------------------------------------
def read(path: Path, name: str) -> np.ndarray:
    """Return the array of a file, or that of this name among several; never unpickle one."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise CommandError(f"{path} ends in {ending!r}; expected one of {', '.join(ENDINGS)}.")
    package = {".pt": "torch", ".safetensors": "safetensors"}.get(ending)
    if package is not None and not is_installed(package):
        raise CommandError(f"{path} needs {package}, which is not installed; pip install {package}")
    try:
        found = _load(path, ending)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # each library has its own for a file that is not what it should be
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise CommandError(f"{path} holds no arrays that can be read: {reason}.") from None
    if isinstance(found, dict):
        only = next(iter(found)) if len(found) == 1 else name
        if only not in found:
            raise CommandError(
                f"{path} holds {', '.join(map(str, found)) or 'nothing'}; expected one array, or "
                f"one that is called {name}."
            )
        found = found[only]
    if hasattr(found, "detach"):
        found = found.detach().cpu()
        found = (found.float() if str(found.dtype) == "torch.bfloat16" else found).numpy()
    if not isinstance(found, np.ndarray):
        raise CommandError(f"{path} holds a {type(found).__name__}; expected an array.")
    return found


def _load(path: Path, ending: str) -> Any:
    if ending == ".npy":
        return np.load(path, allow_pickle=False)
    if ending == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    if ending == ".csv":
        return _load_csv(path)
    if ending == ".pt":
        torch: Any = import_quietly("torch")
        return torch.load(path, map_location="cpu", weights_only=True)
    return import_quietly("safetensors.numpy").load_file(path)


def _load_csv(path: Path) -> np.ndarray:
    """Read numbers; a first line without one is a header."""
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
    header = not any(map(_is_number, first.split(",")))
    return np.loadtxt(path, delimiter=",", skiprows=int(header), ndmin=2, encoding="utf-8-sig")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _logits(path: Path, probabilities: bool) -> np.ndarray:
    logits = read(path, "logits")
    if logits.ndim != 2 or logits.dtype.kind != "f":
        raise CommandError(
            f"{path} holds {logits.dtype} of shape {logits.shape}; expected floats of shape "
            f"(rows, classes)."
        )
    bad = ~np.isfinite(logits).all(1) if len(logits) else np.ones(1, bool)
    if bad.any():
        what = f"{path}: row {bad.argmax()} holds NaN or inf" if len(logits) else f"{path} is empty"
        raise CommandError(f"{what}; expected finite logits.")
    if not probabilities:
        return logits
    if not _are_probabilities(logits):
        raise CommandError(
            f"{path} holds rows that do not sum to 1; expected probabilities with --probabilities."
        )
    with np.errstate(divide="ignore"):
        return np.log(logits)


def _are_probabilities(x: np.ndarray) -> bool:
    return bool((x >= 0).all() and (abs(x.sum(1, dtype=np.float64) - 1) <= SUM).all())


def _labels(path: Path, rows: int) -> np.ndarray:
    labels = read(path, "labels")
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.reshape(-1)
    if labels.dtype.kind == "f" and (labels == np.round(labels)).all():  # of a .csv
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iu" or labels.shape != (rows,):
        raise CommandError(
            f"{path} holds {labels.dtype} of shape {labels.shape}; expected integers of shape "
            f"({rows},), a class index for each row of the logits."
        )
    return labels

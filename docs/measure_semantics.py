"""What softmaxkit and other libraries give for a call, in words: cells of a table.

A cell says **number**, **NaN**, **refuses**, **accepts**, **dtype** or **shape** where a library
differs from softmaxkit, and how.
"""

# ruff: noqa: D103 - docstrings only where the name does not say it

import inspect
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from peers import NotOffered
from softmaxkit.conformance import load
from softmaxkit.conformance.case import CLASS_LOSSES, LOSSES
from softmaxkit.conformance.running import gradient_terms

WITH_GRADIENT = (*LOSSES, "logsumexp")
SHOWN = 12  # entries; of a larger array the page has the extremes
# How far a number may be off and agree, in units of itself: one unit in the last place of the half
# precisions; a hundred of float32, for this page is no contest of last digits.
CLOSE = {"float32": 100 * 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALLEST = {"float32": 1e-15, "float16": 2.0**-24, "bfloat16": 1e-15}  # float16's is subnormal
NOISE = 2.0**-20  # of a gradient's terms that cancel: what is left of them


@dataclass
class Outcome:
    """What a library gave for a call: arrays, or what was raised in their place."""

    value: Any
    dtype: str = ""
    gradients: dict[str, Any] = field(default_factory=dict)
    noise: dict[str, Any] = field(default_factory=dict)  # below which an entry may be 0


def measure(adapter, case, transform="eager"):
    """Call an operation; NotOffered is raised, every other exception returned."""
    operation = getattr(adapter.functions, case.operation)
    options = offered_options(case, inspect.signature(operation).parameters)
    named = [name for name, option in options.items() if isinstance(option, np.ndarray)]
    plain = {name: option for name, option in options.items() if name not in named}
    count = len(case.arrays)
    inputs = [
        adapter.to_backend(array, case.page_dtype if array.dtype.kind == "f" else None)
        for array in (*case.arrays, *(options[name] for name in named))
    ]

    def call(*arrays):
        return operation(*arrays[:count], **dict(zip(named, arrays[count:], strict=True)), **plain)

    change = adapter.transforms[transform]
    try:
        value = change.call(call)(*inputs)
        outcome = Outcome(plain_array(adapter, value), adapter.dtype_name(value))
    except NotOffered:
        raise
    except Exception as refusal:
        return Outcome(refusal)
    differentiable = change.compute and case.arrays[0].dtype.kind == "f"
    if differentiable and (case.operation in WITH_GRADIENT or case.cotangent is not None):
        seed = np.ones(outcome.value.shape) if case.cotangent is None else case.cotangent
        seed = adapter.to_backend(seed, adapter.dtype_name(value))
        for name in ("logits", *case.by):
            at = count + named.index(name) if name in named else 0
            try:
                _, gradient = change.vjp(call, inputs, at, seed)
                outcome.gradients[name] = plain_array(adapter, gradient)
            except Exception as refusal:
                outcome.gradients[name] = refusal
    return outcome


def plain_array(adapter, array):
    array = np.asarray(adapter.to_numpy(array))
    return array if array.dtype.kind == "c" else array.astype(float)


def offered_options(case, offered):
    """Return the options of a call; ignore_index only where some label has it."""
    options = dict(case.options)
    if case.operation in CLASS_LOSSES and case.arrays[1].dtype.kind in "iu":
        ignored = options.setdefault("ignore_index", -100)
        if ignored is not None and ignored not in case.arrays[1]:
            del options["ignore_index"]
    options = {
        name: option for name, option in options.items() if name in offered or option is not None
    }
    lacking = [name for name in options if name not in offered]
    if lacking:
        raise NotOffered(*lacking)
    return options


def measure_softmaxkit(case):
    """Return what softmaxkit gives; for labels that tracing hides, also what it gives traced."""
    outcome = with_noise(load("torch" if case.arrays[0].dtype.kind == "f" else "numpy"), case)
    traced = with_noise(load("torch"), case, "torch.compile") if case.raises is IndexError else None
    raised = type(outcome.value) if isinstance(outcome.value, Exception) else None
    results = [*outcome.gradients.values()]
    if traced:
        results += [traced.value, *traced.gradients.values()]
    if raised is not case.raises or any(isinstance(each, Exception) for each in results):
        wanted = case.raises.__name__ if case.raises else "numbers"
        raise RuntimeError(f"{case}: expected {wanted}; softmaxkit gave {outcome}, {traced=}")
    return outcome, traced


def with_noise(adapter, case, transform="eager"):
    outcome = measure(adapter, case, transform)
    for name, gradient in outcome.gradients.items():
        if isinstance(gradient, Exception):
            continue
        noise = NOISE * largest(gradient)
        if name == "logits":
            terms = gradient_terms(adapter, case, case.page_dtype, transform)
            noise = 0.0 if case.operation == "logsumexp" else NOISE * terms
        outcome.noise[name] = noise
    return outcome


def wrong_entries(got, wanted, case, noise=0.0):
    """Return where a result is not softmaxkit's; it is False where it agrees."""
    finite = np.isfinite(wanted)
    allowed = CLOSE[case.page_dtype] * np.abs(wanted) + SMALLEST[case.page_dtype] + noise
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    return ~np.where(finite, np.abs(got - wanted) <= allowed, same)


def largest(array):
    return np.abs(array).max(initial=0.0, where=np.isfinite(array))


def compare(case, library, outcome, traced):
    """Return a library's cells: of the value and of each gradient."""
    try:
        theirs = measure(library, case)
    except NotOffered as lack:
        return ("no " + ", ".join(f"`{name}`" for name in lack.args),)
    wanted = traced or outcome
    if isinstance(theirs.value, Exception):
        agreed = isinstance(outcome.value, Exception)
        return (f"{'refuses' if agreed else '**refuses**'}: {error(theirs.value)}",)
    if isinstance(wanted.value, Exception):
        return (f"**accepts**: {numbers(theirs.value, case)}",)
    same = "same as traced" if traced else "same"
    cells = [difference(theirs.value, wanted.value, case)]
    if not cells[0] and theirs.dtype != expected_dtype(library, case):
        cells = [f"**dtype**: {theirs.dtype}"]
    for name, expected in wanted.gradients.items():
        gradient = theirs.gradients.get(name)
        if gradient is None:
            cells.append("–")
        elif isinstance(gradient, Exception):
            cells.append(f"**refuses**: {error(gradient)}")
        else:
            cells.append(difference(gradient, expected, case, wanted.noise[name]))
    return tuple(cell or same for cell in cells)


def difference(got, wanted, case, noise=0.0):
    """Say how a result differs from softmaxkit's, or nothing."""
    if got.shape != wanted.shape:
        return f"**shape**: {got.shape}, {numbers(got, case)}"
    wrong = wrong_entries(got, wanted, case, noise)
    kind = "NaN" if np.isnan(got[wrong]).any() else "number"
    return f"**{kind}**: {numbers(denoised(got, noise), case, wrong)}" if wrong.any() else ""


def expected_dtype(library, case):
    """Return the dtype of softmaxkit's result on a library's array."""
    floating = case.arrays[0].dtype.kind == "f"
    return case.options.get("dtype") or (case.page_dtype if floating else library.default_float)


def own_cells(case, outcome):
    if isinstance(outcome.value, Exception):
        return [error(outcome.value, limit=1000)]
    gradients = [denoised(each, outcome.noise[name]) for name, each in outcome.gradients.items()]
    return [numbers(array, case) for array in (outcome.value, *gradients)]


def denoised(gradient, noise):
    return np.where(np.abs(gradient) < noise, 0.0, gradient)


def numbers(array, case, wrong=None):
    """Write a result: all of it when it is small, or what it ranges over."""
    if array.size == 0:
        return f"empty, shape {array.shape}"
    if array.size <= SHOWN:
        return f"`{nested(array.tolist(), number)}`"
    low, high = number(array.min()), number(array.max())
    extent = f"all `{low}`" if low == high else f"from `{low}` to `{high}`"
    count = "" if wrong is None or wrong.all() else f", {wrong.sum():,} of them off"
    return f"{array.size:,} entries, {extent}{count}"


def number(x, digits=4):
    return f"{x + 0.0:.{digits}g}"  # + 0.0: no negative zero


def nested(x, write):
    return f"[{', '.join(nested(each, write) for each in x)}]" if isinstance(x, list) else write(x)


def error(exception, limit=60):
    """Write an exception in one line, without what libraries add about their insides."""
    text = re.sub(r"{{.*?}} *| *\[Op:.*|\n.*|`", "", str(exception), flags=re.DOTALL)
    if len(text) > limit:
        text = text[:limit].rsplit(" ", 1)[0] + " …"
    return f"`{type(exception).__name__}: {text}`".replace("|", "\\|")


def call_text(case):
    """Write a call as a user would type it: on one line, or a line for each argument."""
    arguments = [case.text] if case.text else [literal(array, case) for array in case.arrays]
    for name, option in case.options.items():
        if isinstance(option, np.ndarray):
            text = literal(option, case) if option.ndim else f"array({literal(option, case)})"
        else:
            text = f'"{option}"' if isinstance(option, str) else repr(option)
        arguments.append(f"{name}={text}")
    line = f"{case.operation}({', '.join(arguments)})"
    if len(line) <= 96:
        return line
    return "\n".join([f"{case.operation}(", *(f"    {each}," for each in arguments), ")"])


def literal(array, case):
    """Write an array in Python, so that NumPy would make it of the same kind."""
    if array.size > 4 * SHOWN:
        raise RuntimeError(f"{case} has an array of shape {array.shape}; give its rule a text.")
    dtype = case.page_dtype if array.dtype.kind == "f" else array.dtype.name
    if array.size == 0:
        shape = array.shape if array.ndim > 1 else array.size
        return f"zeros({shape}{', int' if dtype == 'int64' else ''})"
    floating = array.dtype.kind in "fc"
    text = nested(array.tolist(), (lambda x: number(x, 12)) if floating else str)
    if floating and not re.search("[.enj]", text):
        text = re.sub(r"\d+", r"\g<0>.0", text, count=1)  # one point makes them floats
    return text if dtype in ("float32", "int64", "bool") else f"{dtype}({text})"


# What is seen on some machines, where others see "same".
ON_SOME_CPUS = {
    (name, "softmax(zeros(70000, float16))"): "**number**: 70,000 entries, all `0`"
    for name in ("TensorFlow", "Keras")
}


def on_some_cpus(name, case, cells):
    """Return the cells that stand on the page, on whatever machine it is made."""
    seen = ON_SOME_CPUS.get((name, call_text(case)))
    if seen and cells in (("same",), (seen,)):
        return (seen.replace(":", " on some CPUs:"),)
    return cells

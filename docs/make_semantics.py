"""Write docs/semantics.md: every rule of the conformance suite, and what other libraries give.

python docs/make_semantics.py [--check]

With --check nothing is written: a page that is not what the suite makes of it is an error, and its
differences are shown. Numbers have four digits, and what agrees with softmaxkit's is "same", so
that the page does not depend on the machine.
"""

# ruff: noqa: D103 - docstrings only where the name does not say it

import argparse
import difflib
import inspect
import os
import re
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np

from peers import PEERS, NotOffered, peers
from softmaxkit.conformance import FEATURES, load
from softmaxkit.conformance.adapters import names as installed
from softmaxkit.conformance.case import CLASS_LOSSES, LOSSES
from softmaxkit.conformance.rules import rules
from softmaxkit.conformance.running import gradient_terms

PAGE = Path(__file__).with_name("semantics.md")
LIBRARIES = ("torch", "jax", "optax", "tensorflow-cpu", "keras", "scipy")
WITH_GRADIENT = (*LOSSES, "logsumexp")
SHOWN = 12  # entries; of a larger array the page has the extremes
# How far a number may be off and agree, in units of itself: one unit in the last place of the half
# precisions; a hundred of float32, for this page is no contest of last digits.
CLOSE = {"float32": 100 * 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALLEST = {"float32": 1e-15, "float16": 2.0**-24, "bfloat16": 1e-15}  # float16's is subnormal
NOISE = 2.0**-20  # of a gradient's terms that cancel: what is left of them
SAME, DIFFERS, LACKS = "agree", "differ", "no such option"


@dataclass
class Outcome:
    """What a library gave for a call: arrays, or what was raised in their place."""

    value: Any
    gradients: dict[str, Any] = field(default_factory=dict)
    noise: dict[str, Any] = field(default_factory=dict)  # below which an entry may be 0


# Measuring


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
        outcome = Outcome(plain_array(adapter, value))
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
    traced = with_noise(load("jax"), case, "jit") if case.raises is IndexError else None
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
    if got.shape != wanted.shape:
        return np.array(True)
    finite = np.isfinite(wanted)
    allowed = CLOSE[case.page_dtype] * np.abs(wanted) + SMALLEST[case.page_dtype] + noise
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    return ~np.where(finite, np.abs(got - wanted) <= allowed, same)


def largest(array):
    return np.abs(array).max(initial=0.0, where=np.isfinite(array))


def compare(case, theirs, outcome, traced):
    """Return a library's cells, of the value and of each gradient, and the verdict."""
    wanted = traced or outcome
    if isinstance(theirs.value, Exception):
        refused = isinstance(outcome.value, Exception)
        verdict = SAME if refused else DIFFERS
        return (f"{'refuses' if refused else '**differs**'}: {error(theirs.value)}",), verdict
    if isinstance(wanted.value, Exception):
        return (f"**differs**: accepts, {numbers(theirs.value, case)}",), DIFFERS
    same = "same as traced" if traced else "same"
    cells = [same]
    wrong = wrong_entries(theirs.value, wanted.value, case)
    if wrong.any():
        cells = [f"**differs**: {numbers(theirs.value, case, wrong)}"]
    for name, expected in wanted.gradients.items():
        gradient = theirs.gradients.get(name)
        if gradient is None:
            cells.append("–")
        elif isinstance(gradient, Exception):
            cells.append(f"**differs**: {error(gradient)}")
        else:
            noise = wanted.noise[name]
            wrong = wrong_entries(gradient, expected, case, noise)
            text = f"**differs**: {numbers(denoised(gradient, noise), case, wrong)}"
            cells.append(text if wrong.any() else same)
    return tuple(cells), DIFFERS if any("differs" in cell for cell in cells) else SAME


# Writing


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


def table(head, rows):
    """Write a table; a row shorter than the head is filled up."""
    rows = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join([*row, *[''] * (len(head) - len(row))])} |" for row in rows] + [""]


# What is seen on some machines, where others see "same".
ON_SOME_CPUS = {
    (name, "softmax(zeros(70000, float16))"): "**differs**: 70,000 entries, all `0`"
    for name in ("TensorFlow", "Keras")
}


def block(case, libraries, counts):
    """Return the lines of one call, and count the verdicts on it."""
    outcome, traced = measure_softmaxkit(case)
    rows = [["**softmaxkit**", *own_cells(case, outcome)]]
    if traced:
        rows.append(["**softmaxkit**, traced", *own_cells(case, traced)])
    said = {}  # cells -> who has them
    for library in libraries:
        if not hasattr(library.functions, case.operation):
            continue
        try:
            cells, verdict = compare(case, measure(library, case), outcome, traced)
        except NotOffered as lack:
            cells, verdict = ("no " + ", ".join(f"`{name}`" for name in lack.args),), LACKS
        seen = ON_SOME_CPUS.get((library.name, call_text(case)))
        if seen and cells in (("same",), (seen,)):
            cells, verdict = (seen.replace(":", " on some CPUs:"),), DIFFERS
        counts[case.section, library.name, verdict] += 1
        said.setdefault(cells, []).append(library.name)
    rows += [[", ".join(names), *cells] for cells, names in said.items()]
    head = ["", "value", *(f"gradient by {name}" for name in (traced or outcome).gradients)]
    text = call_text(case)
    if case.cotangent is not None:
        text += f"\nv = {literal(case.cotangent, case)}"
    return ["```", text, "```", "", *table(head, rows)]


INTRODUCTION = """\
# What every call means, and what other libraries give

{rules} rules, {calls} calls. Each call is a case of the conformance suite, which runs on every
backend of softmaxkit, in every dtype, and compiled. The page is made of the suite by
`python docs/make_semantics.py`: change the rules, not the page. Made with {versions}.

Numbers are in float32 unless the call says otherwise, with four digits. softmaxkit's are those of
torch tensors (of NumPy arrays where the first argument is not of floats); “traced” is under
`jax.jit`, where labels cannot be read; a graph of TensorFlow on the CPU raises InvalidArgumentError
for a bad label when it runs. A gradient is that of the sum of the result's entries, or of those
times a cotangent v where the call has a line for it.
`nan`, `inf`, `zeros`, `int8` and the like are NumPy's.

What was called in the other libraries, with the arguments nearest to the call:

{called}

and how their results compare:

- same: shape and numbers agree, the numbers to {single:.0f} units in the last place of float32 or
  one of float16 and bfloat16; or both refuse, with whatever type of exception.
- **differs**: another number, NaN or an exception where softmaxkit gives a number; or a number
  where softmaxkit refuses.
- no `where`: there is no such argument, or not with such a value.

Who lacks an operation is not in the table of its calls.

## Independence of the batch

What a row gives, and its gradient, depends on the other rows in its last bits only, within the
limits of the suite. On NumPy it does not depend on them at all from 4097 logits on: the same bits
in whatever batch, block or thread (`tests/test_batches.py`). Below that, few classes are summed in
another order. Elsewhere there is no such promise: PyTorch computes what is left at the end of a
block by another exponential than the vectors before it, and up to 16384 logits in float64 if no
row is saturated; JAX and TensorFlow compile for a shape, and sum otherwise if some row is
saturated; an array-API library does as it does.
"""


def page():
    """Return the whole page."""
    libraries, counts, sections = peers(), Counter(), {}
    for case in rules():
        blocks = sections.setdefault(case.section, {}).setdefault(case.name, [])
        blocks.append(block(case, libraries, counts))
    lines = introduction(sections)
    lines += summary([library.name for library in libraries], sections, counts)
    for section, named in sections.items():
        lines += [f"## {section}", ""]
        for name, blocks in named.items():
            lines += [f"### {name}", "", *(line for block in blocks for line in block)]
    return "\n".join([*lines, *capabilities()])


def introduction(sections):
    blocks = [blocks for named in sections.values() for blocks in named.values()]
    text = INTRODUCTION.format(
        rules=len(blocks),
        calls=sum(map(len, blocks)),
        versions=", ".join(f"{name} {version(name).partition('+')[0]}" for name in LIBRARIES),
        called="\n".join(f"- {name}: {called}" for name, _, called in PEERS.values()),
        single=CLOSE["float32"] * 2**23,
    )
    return [*text.splitlines(), ""]


def summary(names, sections, counts):
    """Count the verdicts: all of them by library, those that differ by section."""
    totals = Counter()
    for (_, name, verdict), count in counts.items():
        totals[name, verdict] += count
    verdicts = (SAME, DIFFERS, LACKS)
    rows = [[name, *(str(totals[name, verdict]) for verdict in verdicts)] for name in names]
    lines = ["Calls:", "", *table(["", *verdicts], rows), "Calls that differ, by section:", ""]
    rows = []
    for section in sections:
        anchor = re.sub(r"[^\w -]", "", section.lower()).replace(" ", "-")
        differ = (str(counts[section, name, DIFFERS] or "") for name in names)
        rows.append([f"[{section}](#{anchor})", *differ])
    return [*lines, *table(["", *names], rows), "[What a backend lacks](#what-a-backend-lacks)", ""]


def capabilities():
    lines = ["## What a backend lacks", "", "Cases that need it are then not run.", ""]
    lines += [f"- {feature}: {meaning}" for feature, meaning in FEATURES.items()]
    rows = []
    for name in installed():
        lacks = load(name).lacks
        rows.append([name, *(lacks.get(feature, "yes") for feature in FEATURES)])
    return [*lines, "", *table(["", *FEATURES], rows)]


def main():
    """Write the page, or compare it with what stands there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail where the page is stale")
    check = parser.parse_args().check
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of the other libraries; ours has none, see the suite
        new = page()
    if not check:
        PAGE.write_text(new, encoding="utf-8")
        return
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if old != new:
        names = ("docs/semantics.md", "what the suite makes of it")
        lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="")
        print(*lines, sep="\n")
        sys.exit("docs/semantics.md is stale: run python docs/make_semantics.py and commit it.")


if __name__ == "__main__":
    main()

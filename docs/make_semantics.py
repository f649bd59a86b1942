"""Write docs/semantics.md, a line for each rule, and docs/semantics_evidence.md, the calls behind.

python docs/make_semantics.py [--section NAME]... [--check]

Both pages are made of the rules in softmaxkit/conformance/rules.py, with every library of
docs/peers in the version that constraints.txt has.

With --section only the rules of that section are made anew. That needs torch, and measures the
libraries that are installed in the versions of the page; of others the page keeps what it says, and
of a new call it says that they were not measured.

With --check nothing is written: pages that are not what the suite makes of them are an error, and
the differences are shown. Numbers have four digits, and what agrees with softmaxkit's is "same", so
that the pages do not depend on the machine.
"""

# ruff: noqa: D103 - docstrings only where the name does not say it

import argparse
import difflib
import os
import re
import sys
import warnings
from collections import Counter
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
from measure_semantics import (
    CLOSE,
    call_text,
    compare,
    literal,
    measure_softmaxkit,
    on_some_cpus,
    own_cells,
)

from peers import PEERS, adapter, installed
from softmaxkit.conformance import FEATURES, load
from softmaxkit.conformance.adapters import names as backends
from softmaxkit.conformance.rules import rules

DOCS = Path(__file__).parent
PAGE, EVIDENCE = DOCS / "semantics.md", DOCS / "semantics_evidence.md"
LACKING = "## What a backend lacks"
NOT_MEASURED = ("not measured",)
# What a cell says where a library differs -> what its line on the page says.
KINDS = {
    "NaN": "NaN",
    "number": "another number",
    "refuses": "refuses",
    "accepts": "accepts",
    "dtype": "another dtype",
    "shape": "another shape",
}
# The columns of the counts; a call counts in the first that it has.
COLUMNS = {
    "agrees": ("same",),
    "another number or NaN": ("NaN", "number"),
    "refuses": ("refuses",),
    "accepts": ("accepts",),
    "another dtype or shape": ("dtype", "shape"),
    "no such option": ("no",),
}


class Call(NamedTuple):
    """A call as it is typed, the columns of its table, and the cells of each library."""

    text: str
    columns: tuple[str, ...]
    cells: dict[str, tuple[str, ...]]


def kinds(cells):
    """Return in what ways a library differs, or that it does not."""
    if cells[0].startswith("no `"):
        return {"no"}
    if cells == NOT_MEASURED:
        return {"not measured"}
    return set(re.findall(r"\*\*(\w+)\*\*", " ".join(cells))) or {"same"}


# Measuring


def measured(sections, versions, known):
    """Return sections with their rules and calls, made anew with packages in these versions.

    What is `known`, by text and columns, stays where a library is not at hand.
    """
    here = installed()
    there = [peer for peer in PEERS if all(here.get(p) == versions.get(p) for p in peer.packages)]
    missing = [peer.name for peer in PEERS if peer not in there]
    if missing:
        print(f"Not installed, or in another version than the page's: {', '.join(missing)}.")
    libraries = [adapter(peer) for peer in there]
    made = {}
    for case in rules():
        if case.section in sections:
            call = measured_call(case, libraries)
            before = known.get(call[:2])
            for name in missing:
                cells = before.cells.get(name) if before else NOT_MEASURED
                if cells:
                    call.cells[name] = cells
            made.setdefault(case.section, {}).setdefault(case.name, []).append(call)
    return made


def measured_call(case, libraries):
    outcome, traced = measure_softmaxkit(case)
    cells = {"**softmaxkit**": tuple(own_cells(case, outcome))}
    if traced:
        cells["**softmaxkit**, traced"] = tuple(own_cells(case, traced))
    for library in libraries:
        if hasattr(library.functions, case.operation):
            found = compare(case, library, outcome, traced)
            cells[library.name] = on_some_cpus(library.name, case, found)
    text = call_text(case)
    if case.cotangent is not None:
        text += f"\nv = {literal(case.cotangent, case)}"
    columns = ("value", *(f"gradient by {name}" for name in (traced or outcome).gradients))
    return Call(text, columns, cells)


# Writing


PAGE_INTRODUCTION = """\
# What every call means, and who differs

{rules} rules, shown by {calls} calls. Each call is a case of the conformance suite, which runs on
every backend of softmaxkit, in every dtype, and compiled. A line says what holds in softmaxkit, and
which library differs. Its link leads to the calls, to softmaxkit's results and to those of
{peers}. `python docs/make_semantics.py` makes both pages
from the suite: change the rules, not the pages.

C and K are numbers of classes, p is the softmax, q a target that is a probability, T is
`temperature`, γ `gamma`, λ `z_loss`, ε `label_smoothing` (`epsilon` of the poly loss), α the
`smoothing` of `smooth_labels`. A traced call is one under `jit`, `torch.compile` or XLA, where
labels cannot be read.

A library that differs gives **another number** or **NaN** (some of these are errors, others are
conventions), **refuses** the call, **accepts** what softmaxkit refuses, or gives the same numbers
in **another dtype or shape**. One that is not named agrees, or has no such operation or option.
Calls of an operation that a library lacks are not in its counts:

"""
INDEPENDENCE = """\
## Independence of the batch

What a row gives, and its gradient, depends on the other rows in its last bits only, within the
limits of the suite. On NumPy it does not depend on them at all from 4097 logits on: the same bits
in whatever batch, block or thread (`tests/test_batches.py`). Below that, few classes are summed in
another order. Elsewhere there is no such promise: PyTorch computes what is left at the end of a
block by another exponential than the vectors before it, and up to 16384 logits in float64 if no
row is saturated; JAX and TensorFlow compile for a shape, and sum otherwise if some row is
saturated; an array-API library does as it does.

"""
EVIDENCE_INTRODUCTION = """\
# The evidence behind semantics.md

The calls that show each rule, what softmaxkit gives, and what other libraries give. Made by
`python docs/make_semantics.py` with {versions}.

Numbers are in float32 unless the call says otherwise, with four digits. softmaxkit's are those of
torch tensors (of NumPy arrays where the first argument is not of floats); “traced” is under
`torch.compile`, where labels cannot be read; a graph of TensorFlow on the CPU raises
InvalidArgumentError for a bad label when it runs. A gradient is that of the sum of the result's
entries, or of those times a cotangent v where the call has a line for it.
`nan`, `inf`, `zeros`, `int8` and the like are NumPy's.

What was called in the other libraries, with the arguments nearest to the call:

{called}

and how their results compare:

- same: shape, dtype and numbers agree, the numbers to {single:.0f} units in the last place of
  float32 or one of float16 and bfloat16; or both refuse, with whatever type of exception. For
  integers and booleans the dtype is the library's default float.
- **number**, **NaN**, **dtype**, **shape**: what the library gives in place of softmaxkit's result.
- **refuses**: an exception where softmaxkit gives a number. **accepts**: a result where it refuses.
- no `where`: there is no such argument, or not with such a value.

Who lacks an operation is not in the table of its calls.

"""


def write_page(sections):
    blocks = [calls for named in sections.values() for calls in named.values()]
    *others, last = (peer.name for peer in PEERS)
    text = PAGE_INTRODUCTION.format(
        rules=len(blocks),
        calls=sum(map(len, blocks)),
        peers=f"{', '.join(others)} and {last}",
    )
    lines = [*text.splitlines(), *count_table(sections)]
    anchor = anchors()
    for section, named in sections.items():
        lines += [f"## {section}", ""]
        for rule, calls in named.items():
            link = f"[{rule}]({EVIDENCE.name}#{anchor(rule)})"
            lines.append(" · ".join([f"- {link}", *differences(calls)]))
        lines.append("")
    return "\n".join([*lines, *INDEPENDENCE.splitlines()]) + "\n"


def differences(calls):
    """Say who differs in some call of a rule: a part of its line for each way to differ."""
    said = {}
    for peer in PEERS:
        found = {kind for call in calls for kind in kinds(call.cells.get(peer.name, ("same",)))}
        for kind in (*KINDS, *NOT_MEASURED):
            if kind in found:
                said.setdefault(kind, []).append(peer.name)
    ordered = (kind for kind in (*KINDS, *NOT_MEASURED) if kind in said)
    return [f"{KINDS.get(kind, kind)}: {', '.join(said[kind])}" for kind in ordered]


def count_table(sections):
    """Count the calls of each library by how they compare."""
    counts = Counter()
    for call in (call for named in sections.values() for calls in named.values() for call in calls):
        for name, cells in call.cells.items():
            found = kinds(cells)
            column = next((c for c, some in COLUMNS.items() if found & set(some)), None)
            counts[name, column] += 1
    rows = [[peer.name, *(str(counts[peer.name, c]) for c in COLUMNS)] for peer in PEERS]
    return table(["calls", *COLUMNS], rows)


def write_evidence(sections, versions, lacking):
    text = EVIDENCE_INTRODUCTION.format(
        versions=", ".join(" ".join(each) for each in versions.items()),
        called="\n".join(f"- {peer.name}: {peer.called}" for peer in PEERS),
        single=CLOSE["float32"] * 2**23,
    )
    lines = text.splitlines()
    anchor = anchors()
    for section, named in sections.items():
        lines += [f"## {section}", ""]
        for rule, calls in named.items():
            lines += [f'### <a id="{anchor(rule)}"></a>{rule}', ""]
            lines += [line for call in calls for line in call_lines(call)]
    return "\n".join([*lines, lacking])


def anchors():
    """Return a function that makes an anchor of a rule: ASCII, and another for each rule."""
    seen = Counter()

    def anchor(rule):
        slug = "-".join(re.findall("[a-z0-9]+", rule.lower()))
        seen[slug] += 1
        return slug if seen[slug] == 1 else f"{slug}-{seen[slug]}"

    return anchor


def call_lines(call):
    """Return a call and its table; libraries with the same cells share a row."""
    said = {}
    for name in ("**softmaxkit**", "**softmaxkit**, traced", *(peer.name for peer in PEERS)):
        if name in call.cells:
            cells = call.cells[name]
            said.setdefault((cells, name.startswith("**")), []).append(name)
    rows = [[", ".join(names), *cells] for (cells, _), names in said.items()]
    return ["```", call.text, "```", "", *table(["", *call.columns], rows)]


def table(head, rows):
    """Write a table; a row shorter than the head is filled up."""
    rows = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join([*row, *[''] * (len(head) - len(row))])} |" for row in rows] + [""]


def backends_lack():
    lines = [LACKING, "", "Cases that need it are then not run.", ""]
    lines += [f"- {feature}: {meaning}" for feature, meaning in FEATURES.items()]
    rows = []
    for name in backends():
        lacks = load(name).lacks
        rows.append([name, *(lacks.get(feature, "yes") for feature in FEATURES)])
    return "\n".join([*lines, "", *table(["", *FEATURES], rows)])


# Reading


def read_evidence():
    """Return what stands on the page: its sections, its versions, and what backends lack."""
    text, _, lacking = EVIDENCE.read_text(encoding="utf-8").partition(LACKING)
    made_with = re.search(r"make_semantics.py` with (.*)\.\n", text)[1]
    versions = dict(each.split() for each in made_with.split(", "))
    sections = {}
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("## "):
            named = sections.setdefault(line.removeprefix("## "), {})
        elif line.startswith("### "):
            calls = named.setdefault(line.partition("</a>")[2], [])
        elif line == "```":
            call = "\n".join(takewhile(lambda line: line != "```", lines))
            next(lines)
            calls.append(read_call(call, list(takewhile(bool, lines))))
    return sections, versions, LACKING + lacking


def read_call(text, lines):
    (_, *columns), _, *rows = (line[2:-2].split(" | ") for line in lines)
    cells = {}
    for names, *said in rows:
        while said and not said[-1]:
            said.pop()
        for name in [names] if names.startswith("**") else names.split(", "):
            cells[name] = tuple(said)
    return Call(text, tuple(columns), cells)


# Both


def pages(only):
    """Return the text of both pages: all of it anew, or only some sections."""
    order = list(dict.fromkeys(case.section for case in rules()))
    unknown = [section for section in only if section not in order]
    if unknown:
        sys.exit(
            f"make_semantics: --section is {unknown[0]!r}; expected one of {', '.join(order)}."
        )
    if only:
        before, versions, lacking = read_evidence()
        calls = (call for named in before.values() for calls in named.values() for call in calls)
        there = before | measured(only, versions, {call[:2]: call for call in calls})
        sections = {section: there[section] for section in order if section in there}
    else:
        versions = installed()
        missing = {p: None for peer in PEERS for p in peer.packages if p not in versions}
        if missing:
            sys.exit(
                f"make_semantics: {', '.join(missing)} not installed; expected every peer; install "
                "them, or make one section anew with --section, which needs torch alone."
            )
        sections = measured(order, versions, {})
        lacking = backends_lack()
    return {PAGE: write_page(sections), EVIDENCE: write_evidence(sections, versions, lacking)}


def main():
    """Write the pages, or compare them with what stands there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--section", action="append", default=[], help="make this one alone anew")
    parser.add_argument("--check", action="store_true", help="fail where a page is stale")
    options = parser.parse_args()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of the other libraries; ours has none, see the suite
        made = pages(options.section)
    stale = []
    for path, new in made.items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if not options.check:
            path.write_text(new, encoding="utf-8")
        elif old != new:
            names = (f"docs/{path.name}", "what the suite makes of it")
            lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="")
            print(*lines, sep="\n")
            stale.append(f"docs/{path.name}")
    if stale:
        sys.exit(f"{', '.join(stale)} stale: run python docs/make_semantics.py and commit it.")


if __name__ == "__main__":
    main()

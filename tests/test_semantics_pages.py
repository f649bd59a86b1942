"""Both pages of the semantics have the rules of the suite, and what its calls answer."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from softmaxkit import conformance
from softmaxkit.conformance.rules import rules

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
EVIDENCE = (ROOT / "docs" / "semantics_evidence.md").read_text(encoding="utf-8")


def of_the_suite():
    """Return the rules in the order of the pages, as (section, rule)."""
    sections = {}
    for case in rules():
        sections.setdefault(case.section, {})[case.name] = None
    return [(section, rule) for section, names in sections.items() for rule in names]


def of_a_page(text, pattern):
    """Return (section, rule) for each line that has one."""
    parts = re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", text, re.MULTILINE)
    return [
        (name, rule) for name, part in parts for rule in re.findall(pattern, part, re.MULTILINE)
    ]


def test_both_pages_have_every_rule_and_its_calls():
    on_the_page = of_a_page(PAGE, r"^- \[(.*)\]\(semantics_evidence\.md#")
    assert on_the_page == of_a_page(EVIDENCE, r"^### <a .*></a>(.*)$") == of_the_suite()
    assert f"{len(on_the_page)} rules, shown by {len(list(rules()))} calls." in PAGE
    assert EVIDENCE.count("\n```\n\n|") == len(list(rules()))


def test_every_line_links_to_its_rule():
    anchors = re.findall(r'<a id="(.*?)"></a>(.*)$', EVIDENCE, re.MULTILINE)
    links = re.findall(r"^- \[(.*)\]\(semantics_evidence\.md#([^)]*)\)", PAGE, re.MULTILINE)
    assert [(anchor, rule) for rule, anchor in links] == anchors
    assert len({anchor for anchor, _ in anchors}) == len(anchors)


def test_the_page_stays_one_to_read():
    assert len(PAGE.splitlines()) <= 300


def check(*options):
    """Measure the calls, with XLA as users have it, and compare the pages."""
    env = {name: one for name, one in os.environ.items() if name != "XLA_FLAGS"}
    result = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_semantics.py"), "--check", *options],
        capture_output=True,
        text=True,
        env=env | {"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_one_section_is_made_anew_without_the_other_libraries(torch):
    check("--section", "Poly loss")


def test_both_pages_are_what_the_libraries_answer():
    missing = {"torch", "jax", "tensorflow"} - set(conformance.names())
    missing |= {name for name in ("keras", "optax", "scipy") if find_spec(name) is None}
    if missing:
        pytest.skip(f"the pages quote {', '.join(sorted(missing))}, too")
    check()

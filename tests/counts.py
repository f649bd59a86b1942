"""Print how many there are of what the tests are made of, and write it to docs/how-we-test.md."""

import json
import re
from pathlib import Path
from runpy import run_path

from softmaxkit.conformance import cases
from softmaxkit.conformance.rules import rules

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "how-we-test.md"
HEAD = "| what | how many | where |\n| --- | --- | --- |"


def counts():
    """Return (what, how many, where)."""
    golden = json.loads((TESTS / "golden" / "golden.json").read_text(encoding="utf-8"))
    refusals = run_path(str(TESTS / "bad_input.py"))
    properties = (TESTS / "test_properties.py").read_text(encoding="utf-8")
    programs = run_path(str(TESTS.parent / "integrations" / "run.py"))["PROGRAMS"]
    return [
        (
            "calls with results from mpmath",
            len(golden["cases"]) + len(golden["linear"]),
            "tests/golden/golden.json",
        ),
        ("cases of the conformance suite", len(list(cases())), "softmaxkit/conformance/cases.py"),
        ("of them calls that show a rule", len(list(rules())), "softmaxkit/conformance/rules.py"),
        ("rules", len({(case.section, case.name) for case in rules()}), "docs/semantics.md"),
        (
            "refusals, each with its text",
            len(refusals["ROWS"]) + len(refusals["CALIBRATION"]),
            "tests/bad_input.py",
        ),
        (
            "properties of calls drawn at random",
            len(re.findall(r"^def test_", properties, re.MULTILINE)),
            "tests/test_properties.py",
        ),
        (
            "faults that must be found",
            len(list((TESTS / "mutations").glob("*.patch"))),
            "tests/mutations/",
        ),
        ("programs of other libraries", len(programs), "integrations/run.py"),
    ]


def table():
    """Return the lines of the table."""
    rows = [f"| {what} | {number} | `{where}` |" for what, number, where in counts()]
    return "\n".join([HEAD, *rows])


if __name__ == "__main__":
    print(table())
    before, _, after = PAGE.read_text(encoding="utf-8").partition(HEAD)
    _, blank, rest = after.partition("\n\n")
    PAGE.write_text(before + table() + blank + rest, encoding="utf-8")

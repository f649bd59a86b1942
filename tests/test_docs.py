"""The blocks of docs/reading_a_softmax.md print what stands there, as do counts of the tests."""

import contextlib
import io
import os
import re
import textwrap
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "reading_a_softmax.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^( *)```python\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)


def promised(code):
    """Return the comments behind a print, or on lines of their own below one."""
    return re.findall(r"^(?:.*\bprint\(.*\S  | +)# (.*)$", code, re.MULTILINE)


def under_test(library):
    """Whether SOFTMAXKIT_BACKENDS names it, or it is installed where that names none."""
    named = os.environ.get("SOFTMAXKIT_BACKENDS")
    return library in map(str.strip, named.split(",")) if named else bool(find_spec(library))


def test_the_blocks_print_what_stands_beside_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where they save their arrays
    assert len(BLOCKS) == PAGE.count("```") / 2
    names = {}
    for indent, block in BLOCKS:
        code = textwrap.dedent(block) if indent else block
        if code.startswith("import torch") and not under_test("torch"):
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert printed.getvalue().splitlines() == promised(code), code
    assert (tmp_path / "logits.npy").exists()


def test_its_pictures_are_there_and_small():
    pictures = re.findall(r"!\[.+\]\((pictures/\w+\.png)\)", PAGE)
    assert len(pictures) == 2
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    shown = {*pictures, *re.findall(r"\]\(docs/(pictures/\w+\.png)\)", readme)}
    assert {f"pictures/{path.name}" for path in (DOCS / "pictures").iterdir()} == shown
    for picture in pictures:
        content = (DOCS / picture).read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(content) < 60_000


def test_how_we_test_has_the_counts_of_today():
    printed = run_path(str(Path(__file__).with_name("counts.py")))["table"]()
    page = (DOCS / "how-we-test.md").read_text(encoding="utf-8")
    assert printed in page, "run python tests/counts.py, which writes the table"

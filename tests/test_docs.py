"""Every page tells the truth: its blocks run, in their order, and print what stands beside them.

A page is README.md or a Markdown file of docs/. A block is Python that is fenced as such; comments
behind a print, or on indented lines of their own, say what it prints. In docs/migration/ rows of
tables are evaluated, too, with the names that the blocks above them define:

| theirs | ours | ...           the two agree to the digits of float32
| theirs | gives | ours | gives  each gives what stands beside it: numbers, or an exception's name

A block whose library is not under test is left out, and so are blocks and rows that use what it
defines; the page is then reported as skipped, with what was left out. With SOFTMAXKIT_DOCS=all
nothing is left out: a library that is missing is an error.
"""

import ast
import contextlib
import io
import os
import re
import textwrap
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\|( `.+)\|$", re.MULTILINE)
# What SOFTMAXKIT_BACKENDS can name, by the packages that pages import.
LIBRARIES = {
    "array_api_strict": "array_api_strict", "dask": "dask", "flax": "jax", "jax": "jax",
    "keras": "tensorflow", "optax": "jax", "tensorflow": "tensorflow", "torch": "torch",
}  # fmt: skip
OTHERS = {"matplotlib", "scipy", "sklearn"}
# What a page leaves to its reader: by a word of the block before which it is defined.
_GROUP = """
    import torch.distributed
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
"""
SUPPLIED = {
    "docs/drop_in.md": {
        "model.loss_function": """
            from types import SimpleNamespace
            model, trainer = SimpleNamespace(), SimpleNamespace()
        """,
    },
    "docs/data_parallel.md": {"DistributedDataParallel": _GROUP},
    "docs/scaling.md": {"after dist.init_process_group()": _GROUP},
}
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
    if "_build" not in path.parts
}


def promised(code):
    """Return the comments behind a print, or on lines of their own below one."""
    return re.findall(r"^(?:.*\bprint\(.*\S  | +)# (.*)$", code, re.MULTILINE)


def under_test(package):
    """Whether SOFTMAXKIT_BACKENDS names its library, and it is installed."""
    named = os.environ.get("SOFTMAXKIT_BACKENDS")
    library = LIBRARIES.get(package)
    if library and named and library not in map(str.strip, named.split(",")):
        return False
    return find_spec(package) is not None


def names(code):
    """Return what it imports, the names that it uses and does not define, and those it defines."""
    packages, used, defined = set(), set(), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [one.name for one in node.names]
            defined |= {one.asname or one.name.partition(".")[0] for one in node.names}
            if isinstance(node, ast.ImportFrom):
                modules = [f"{node.module}.{one}" for one in modules]
            # A façade of softmaxkit needs its library.
            packages |= {one.removeprefix("softmaxkit.").partition(".")[0] for one in modules}
        elif isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
    return packages & (LIBRARIES.keys() | OTHERS), used - defined, defined


def parts(page):
    """Yield the blocks of a page, and in docs/migration/ the rows of tables, with their lines."""
    text = PAGES[page]
    found = [(one.start(), textwrap.dedent(one[2]), None) for one in FENCE.finditer(text)]
    if page.startswith(f"docs{os.sep}migration"):
        rows = ((one, [cell.strip() for cell in one[1].split("|")]) for one in ROW.finditer(text))
        found += [(one.start(), None, cells) for one, cells in rows]
    for start, code, cells in sorted(found, key=lambda one: one[0]):
        yield text.count("\n", 0, start) + 1, code, cells


def run(code, space):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, space)
    assert printed.getvalue().splitlines() == promised(code), code


def value(cell, space):
    """Return what the code of a cell gives, as NumPy's, or the name of its exception."""
    try:
        with np.errstate(all="ignore"):  # SciPy lets NumPy warn of the NaN that it gives
            found = eval(cell.strip("`"), space)
    except Exception as error:
        return type(error).__name__
    if isinstance(found, tuple):
        return [np.asarray(one) for one in found]
    return np.asarray(found.detach() if hasattr(found, "detach") else found)


def codes(cells):
    return [cell.strip("`") for cell in cells if re.fullmatch("`[^`]+`", cell)]


def compare(cells, space):
    if len(cells) == 4 and cells[2].startswith("`"):
        for code, gives in (cells[:2], cells[2:]):
            found = value(code, space)
            rounded = found if isinstance(found, str) else np.round(found.astype(float), 4).tolist()
            assert str(rounded) == gives.strip("`"), code
        return
    theirs, ours = (value(cell, space) for cell in cells[:2])
    assert not isinstance(theirs, str), (theirs, cells)
    assert not isinstance(ours, str), (ours, cells)
    # Two programs in float32 add the same few terms in another order.
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=" | ".join(cells))


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in PAGES[page]])
def test_blocks_print_what_stands_beside_them(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where they save their arrays
    everything = os.environ.get("SOFTMAXKIT_DOCS") == "all"
    space, gone, left_out, ran = {"__name__": "page"}, {}, {}, 0
    assert sum(code is not None for _, code, _ in parts(page)) == PAGES[page].count("```python")
    for line, code, cells in parts(page):
        more = SUPPLIED.get(page, {}).items()
        supplied = "".join(textwrap.dedent(one) for word, one in more if word in str(code))
        packages, used, defined = names(supplied + (code or "\n".join(codes(cells))))
        missing = {one for one in packages if not under_test(one)}
        missing |= {gone[name] for name in used if name in gone}
        if missing and not everything:
            needs = ", ".join(sorted(missing))
            gone |= dict.fromkeys(defined, needs)
            left_out.setdefault(needs, []).append(line)
            continue
        gone = {name: needs for name, needs in gone.items() if name not in defined}
        ran += 1
        if code is None:
            compare(cells, space)
        else:
            exec(supplied, space)
            run(code, space)
    if left_out:
        what = (f"{len(one)} from line {one[0]} on need {needs}" for needs, one in left_out.items())
        pytest.skip(f"{page}: ran {ran} blocks and rows, not {'; '.join(what)}")


def test_how_we_test_has_the_counts_of_today():
    printed = run_path(str(Path(__file__).with_name("counts.py")))["table"]()
    page = (DOCS / "how-we-test.md").read_text(encoding="utf-8")
    assert printed in page, "run python tests/counts.py, which writes the table"


def test_every_name_that_pages_import_is_known():
    known = {*LIBRARIES, *OTHERS, "numpy", "softmaxkit", "functools"}
    for page in PAGES:
        for _, code, _ in parts(page):
            for node in ast.walk(ast.parse(code or "")):
                if isinstance(node, ast.Import):
                    assert {one.name.partition(".")[0] for one in node.names} <= known, page
                elif isinstance(node, ast.ImportFrom):
                    assert node.module.partition(".")[0] in known, page


def test_pictures_are_there_and_small():
    shown = set()
    for page, text in PAGES.items():
        for picture in re.findall(r"!\[[^]]+\]\(([^)]*\bpictures/\w+\.png)\)", text):
            shown.add((ROOT / page).parent.joinpath(picture).resolve())
    assert shown == set((DOCS / "pictures").resolve().iterdir())
    for picture in shown:
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(content) < 100_000

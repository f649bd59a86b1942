"""What the commands print with: tables in which nothing is cut, at any width, and no colour."""

import io

import pytest

pytest.importorskip("rich", reason="the command line needs rich: pip install '.[cli]'")

# They come after the skip, which they need.
from rich.console import Console
from rich.text import Text

from softmaxkit import _terminal

NAMES = ("cross_entropy_probabilities_grad", "linear_cross_entropy_smoothing_grad")
NUMBERS = ("1234.56", "0.0276?", "12 / 0.84", "98304x512")


def printed(width):
    console = Console(file=io.StringIO(), width=width)
    heads = ["operation", *(f"rival_{i}" for i in range(4)), "why"]
    table = _terminal.new_table("A title", heads, prose=["why"])
    for name in NAMES:
        table.add_row(name, *NUMBERS, "a reason of several words, to be broken between them")
    _terminal.print_table(console, table, "A caption")
    return console.file.getvalue()


@pytest.mark.parametrize("width", [50, 60, 80, 100, 200])
def test_nothing_is_cut(width):
    text = printed(width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    for word in (
        *NAMES,
        *NUMBERS,
        "rival_0",
        "rival_3",
        *["a", "reason", "of", "several", "words"],
    ):
        assert word in text
    assert "…" not in text
    assert lines[0] == "A title"
    assert "A caption" in lines


def test_columns_that_do_not_fit_stand_below_with_the_first_one():
    assert printed(200).count("operation") == 1
    assert printed(60).count("operation") > 1
    assert printed(60).count(NAMES[0]) == printed(60).count("operation")


def test_where_a_name_alone_is_too_long_it_is_broken_and_all_of_it_is_there():
    text = printed(20)
    assert max(map(len, text.splitlines())) <= 20
    first_column = "".join(line.partition(" ")[0] for line in text.splitlines())
    for name in NAMES:
        assert first_column.count(name) == len(NUMBERS) + 1  # once for each other column
    for number in NUMBERS:
        assert number in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("array_api_strict", "array_api_\nstrict"),
        ("torch.nn.functional", "torch.nn.\nfunctional"),
        ("torch, chunked", "torch,\nchunked"),
        ("jax.nn", "jax.nn"),
        ("softmaxkit", "softmaxkit"),
    ],
)
def test_a_long_name_heads_a_column_in_two_lines(name, heading):
    assert _terminal.heading(name) == heading


@pytest.mark.parametrize(("no_color", "has_codes"), [("1", False), ("", True)])
def test_no_color_leaves_no_code_at_all(monkeypatch, capsys, no_color, has_codes):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    console = _terminal.new_console()
    table = _terminal.new_table("A title", ["name", "ratio"])
    table.add_row("softmax", Text("0.5", "red"), style="dim")
    _terminal.print_table(console, table, "A caption")
    _terminal.say(console, "failed", style="red")
    assert ("\x1b" in capsys.readouterr().out) is has_codes


def test_progress_is_for_terminals(capsys):
    with _terminal.progress() as bars:
        bars.advance(bars.add_task("working", total=2))
    assert capsys.readouterr() == ("", "")

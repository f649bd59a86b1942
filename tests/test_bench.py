"""`softmaxkit bench`: its arithmetic, its rivals, its workers, what it refuses and what it writes.

No timing is asserted.
"""

import io
import os
import re
import stat
import sys
from itertools import pairwise
from math import inf
from pathlib import Path

import numpy as np
import pytest

from softmaxkit._libraries import is_installed
from softmaxkit.bench import environment, libraries, measuring
from softmaxkit.bench.operations import LINEAR_OPERATIONS, LINEAR_QUICK_SHAPES, OPERATIONS
from softmaxkit.bench.results import LARGE_SPREAD, Cell, Result, geometric_mean, groups
from softmaxkit.bench.worker import Inputs, LinearInputs, calls_of
from softmaxkit.conformance import reference, reference_linear

NEEDS_BENCH = "the benchmark needs typer, rich and pyperf: pip install '.[bench]'"
ROOT = Path(__file__).parents[1]


def installed():
    """Return the libraries that SOFTMAXKIT_BACKENDS names, or all that there are."""
    named = os.environ.get("SOFTMAXKIT_BACKENDS")
    names = [*map(str.strip, named.split(","))] if named else libraries.NAMES
    return [name for name in libraries.NAMES if name in names and is_installed(name)]


# Those that have rivals: not the `library` of conftest.py.
for_each_library = pytest.mark.parametrize("name_of_library", installed())


@pytest.fixture
def invoke():
    pytest.importorskip("typer", reason=NEEDS_BENCH)
    pytest.importorskip("pyperf", reason=NEEDS_BENCH)
    from typer.testing import CliRunner

    from softmaxkit.cli import app

    return lambda *arguments: CliRunner().invoke(app, ["bench", *map(str, arguments)])


# --- arithmetic, on made-up timings ---------------------------------------------------------------
def cell(operation="softmax", shape=(1000, 100), setting="eager"):
    return Cell("torch", "float32", setting, operation, shape)


def result(ours, rival, where=None, **more):
    seconds = {"softmaxkit": ours, "rival": rival, "copy": [0.5, 0.5, 0.5]}
    return Result(where or cell(), seconds=seconds, **more)


def test_geometric_mean():
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([0.5, 2.0, 27.0]) == pytest.approx(3.0)


def test_a_ratio_is_that_of_the_medians():
    one = result(ours=[1.0, 9.0, 2.0], rival=[30.0, 5.0, 6.0])
    assert one.ratio("rival", "softmaxkit") == 3.0  # 6 / 2
    assert one.ratio("softmaxkit", "copy") == 4.0
    assert one.ratio("missing", "softmaxkit") is None
    assert one.rivals == ["rival"]


def test_a_spread_is_the_distance_of_the_quartiles_over_the_median():
    one = result(ours=[1.0, 2.0, 3.0, 4.0, 5.0], rival=[2.0])
    assert one.spread("softmaxkit") == pytest.approx(2 / 3)  # (4 - 2) / 3
    assert one.spread("copy") == 0.0
    assert one.spread("rival") is None  # a single round
    assert one.spread("missing") is None


def test_a_large_spread_makes_unsteady_what_it_is_part_of():
    one = result(ours=[1.0, 1.1, 1.2], rival=[1.0, 1.3, 1.6])
    assert one.spread("softmaxkit") < LARGE_SPREAD <= one.spread("rival")
    assert one.is_unsteady("softmaxkit", "rival")
    assert not one.is_unsteady("softmaxkit", "copy")
    assert not result([1.0], [2.0]).is_unsteady("softmaxkit", "rival")


@pytest.mark.parametrize(
    ("load", "cores", "is_said"), [(2.1, 2, True), (2.0, 2, False), (9.0, 16, False)]
)
def test_a_busy_machine_is_said(load, cores, is_said):
    line = environment.busy_line(load, cores)
    assert bool(line) is is_said
    assert not is_said or f"{load:.1f} processes wanted its {cores} cores" in line
    assert environment.busy_line(None, cores) == ""  # a system that does not say


def test_memory_is_relative_to_the_logits():
    one = result([1.0], [1.0], memory={"softmaxkit": 500_000})
    assert one.cell.nbytes == 400_000
    assert one.memory_ratio("softmaxkit") == 1.25
    assert one.memory_ratio("rival") is None


def test_logits_that_are_a_product_and_the_gradients_of_its_factors_have_a_size():
    linear = cell("linear_cross_entropy_grad", (100, 10, 1000))
    assert (linear.nbytes, linear.nbytes_not_counted) == (400_000, 44_000)
    assert cell("cross_entropy_grad").nbytes_not_counted == 0


def test_groups_have_a_mean_and_the_worst_of_large_and_small_arrays():
    found = groups(
        [
            result([1.0], [8.0]),
            result([1.0], [0.5], cell("log_softmax")),
            result([1.0], [2.0], cell(shape=(32, 10))),
            result([1.0], [7.0], cell("cross_entropy")),
            result([1.0], [5.0], cell(setting="jit")),
            Result(cell("log_softmax", (2, 2)), failed={"softmaxkit": "out of memory"}),
        ]
    )
    assert [(g.setting, g.family, g.rival, len(g.ratios)) for g in found] == [
        ("eager", "activation", "rival", 3),
        ("eager", "loss", "rival", 1),
        ("jit", "activation", "rival", 1),
    ]
    assert found[0].mean == pytest.approx(2.0)  # of 8, 1/2 and 2
    assert found[0].worst(small=False) == (cell("log_softmax"), 0.5)
    assert found[0].worst(small=True) == (cell(shape=(32, 10)), 2.0)
    assert found[1].worst(small=True) is None


@pytest.mark.parametrize(
    ("seconds", "shown"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (4.56e-6, "4.56 µs"), (None, "")]
)
def test_seconds_are_shown_in_the_unit_that_fits(seconds, shown):
    report = pytest.importorskip("softmaxkit.bench.report", reason=NEEDS_BENCH)
    assert report.shown_seconds(seconds) == shown


SHOWN = {
    "machine": {"platform": "a machine", "python_version": "3"}, "cores_usable": 2, "rounds": 3,
    "softmaxkit": "0", "commit": "unknown", "libraries": {}, "not_measured": {},
}  # fmt: skip
# The longest names that there are.
LONGEST = [
    Result(
        Cell(library, "bfloat16", setting, operation, shape),
        seconds={"softmaxkit": [1.0, 1.1, 1.2], "copy": [0.5] * 3, **rivals},
        memory={"softmaxkit": 10**9, **dict.fromkeys(rivals, 2 * 10**9)},
    )
    for library, setting, rivals in (
        ("numpy", "eager", {"scipy.special": [1.0, 1.3, 1.6], "textbook": [0.4] * 3}),
        ("torch", "compile", {"torch.nn.functional": [0.4] * 3}),
        ("tensorflow", "tf.function", {"tf.nn": [3000.0] * 3}),
    )
    for operation in ("softmax", "cross_entropy_probabilities_grad")
    for shape in ((32, 10), (32, 81, 8732))
] + [
    Result(
        Cell(
            "torch", "float32", "eager", "linear_cross_entropy_smoothing_grad", (4096, 512, 65536)
        ),
        seconds={"softmaxkit": [1.0] * 3, "whole logits": [2.0] * 3, "torch, chunked": [3.0] * 3},
    )
]


def shown(results, width, **more):
    report = pytest.importorskip("softmaxkit.bench.report", reason=NEEDS_BENCH)
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width)
    report.show(console, results, SHOWN | more)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80])
def test_the_tables_fit_and_cut_no_name_nor_number(width):
    text = shown(LONGEST, width)
    # Sentences are whole in a pipe; the name of a rule's column is followed by a rule.
    tables = text.partition("ours: median")[0]
    assert max(map(len, tables.splitlines())) <= width
    assert "…" not in text
    lines = {line.strip() for line in tables.splitlines()}
    for one in LONGEST:
        assert " ".join(one.cell.place) in tables
        assert any(re.match(rf"{one.cell.operation}$", line) for line in lines)
        assert any(line.startswith("x".join(map(str, one.cell.shape))) for line in lines)
    for number in ("0.364", "2727"):
        assert re.search(rf"\s{number}\s", tables)


def test_unsteady_numbers_are_marked_and_the_mark_is_explained():
    steady, unsteady = [1.0, 1.01, 1.02], [1.0, 1.5, 2.0]
    one = result(steady, unsteady, loops=dict.fromkeys(("softmaxkit", "rival", "copy"), 1))
    text = shown([one], 80)
    (row,) = (line for line in text.splitlines() if line.startswith("  1000x100"))
    assert re.fullmatch(r"  1000x100 +1\.01 s +2\.02 +1\.49\? +33%", row.rstrip())
    assert "1.49?  softmax 1000x100" in text  # the worst cell
    assert (
        "?: a time that this number comes from has a spread of 20% or more (1 of 1 cells)" in text
    )
    assert "?" not in shown([result(steady, steady)], 80)


def test_a_busy_machine_stands_under_the_tables():
    assert "busy machine: 5.0 processes" in shown([], 80, load_at_start=5.0)
    assert "busy" not in shown([], 80, load_at_start=1.0)


def test_memory_has_a_table_only_where_it_was_measured():
    assert "eager: memory" not in shown([result([1.0], [2.0])], 80)
    assert "eager: memory" in shown([result([1.0], [2.0], memory={"softmaxkit": 7})], 80)


def drawn(results, tmp_path, monkeypatch):
    """Return the figure of the chart."""
    pytest.importorskip("matplotlib", reason="the chart needs matplotlib: pip install '.[bench]'")
    from softmaxkit.bench import chart

    figures = []
    monkeypatch.setattr(
        chart, "save_picture", lambda option, path, figure, dpi: figures.append(figure)
    )
    chart.save(tmp_path / "chart.png", results, SHOWN)
    return figures[0]


@pytest.mark.parametrize("memory", [{}, {"softmaxkit": 500_000}])
def test_the_chart_has_no_empty_panel(tmp_path, monkeypatch, memory):
    figure = drawn([result([1.0], [2.0], memory=memory)], tmp_path, monkeypatch)
    panels = figure.get_axes()
    assert len(panels) == (3 if memory else 2)
    for axes in panels:
        assert any(line.get_marker() != "None" for line in axes.get_lines())
        assert axes.get_title()
        assert axes.get_xlabel()


@pytest.mark.parametrize("largest", [1.5, 30.0, 3000.0, 1e7])
def test_ticks_of_the_chart_do_not_collide(tmp_path, monkeypatch, largest):
    found = [result([1.0], [largest]), result([largest], [1.0], cell("log_softmax"))]
    figure = drawn(found, tmp_path, monkeypatch)
    figure.canvas.draw()
    for axes in figure.get_axes():
        low, high = axes.get_window_extent().intervalx
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        boxes = sorted(
            b.intervalx.tolist() for b in boxes if low - 1 <= b.intervalx.mean() <= high + 1
        )
        assert len(boxes) >= 2
        assert all(a[1] + 4 < b[0] for a, b in pairwise(boxes))


def test_the_chart_shows_what_is_unsteady(tmp_path, monkeypatch):
    found = [
        result([1.0, 1.0, 1.0], [2.0, 3.0, 4.0]),
        result([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], cell("log_softmax")),
    ]
    figure = drawn(found, tmp_path, monkeypatch)
    beside_rival = figure.get_axes()[0]
    fills = [line.get_fillstyle() for line in beside_rival.get_lines() if line.get_marker() in "os"]
    assert fills == ["none", "full"]
    assert "hollow" in figure.legends[0].get_texts()[-1].get_text()


def test_a_reason_is_given_once():
    report = pytest.importorskip("softmaxkit.bench.report", reason=NEEDS_BENCH)
    missing = {"optax": "optax is not installed"}
    lines = report.failures(
        [
            Result(cell(), failed=missing),
            Result(cell("log_softmax"), failed=missing),
            Result(cell(), memory_failed={"softmaxkit": "killed"}),
        ]
    )
    assert lines == [
        "not measured: optax in torch float32 eager softmax 1000x100 and 1 more: "
        "optax is not installed",
        "not measured: memory of softmaxkit in torch float32 eager softmax 1000x100: killed",
    ]


# --- measuring ------------------------------------------------------------------------------------
def test_contestants_alternate_and_every_one_is_first_in_its_turn():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    times = measuring.alternate(calls, {"a": 1, "b": 2, "c": 1}, rounds=3)
    assert order == [*"abbc", *"bbca", *"cabb"]
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3, "c": 3}


@pytest.mark.skipif(not measuring.can_read_peaks(), reason=measuring.NO_PEAK)
@pytest.mark.parametrize(
    ("call", "arrays"),
    [
        ("np.ones(N)", 1),
        ("np.add(np.ones(N), np.ones(N))", 3),
        ("(np.ones(N).sum(), np.ones(N).sum())", 1),
    ],
)
def test_peak_memory_is_what_a_call_holds_at_once(run_python, monkeypatch, call, arrays):
    for name, value in measuring.WITHOUT_RESERVES.items():
        monkeypatch.setenv(name, value)
    printed = run_python(
        "import numpy as np\n"
        "from softmaxkit.bench.measuring import extra_peak\n"
        "N = 1 << 24\n"
        f"call = lambda: {call}\n"
        "call()\n"
        "print(extra_peak(call) / (8 * N))"
    )
    # Two cores are 0.2 % off at most; many more, see SMALLEST_FOR_MEMORY.
    assert float(printed) == pytest.approx(arrays, rel=0.1)


# --- rivals compute what softmaxkit does ----------------------------------------------------------
def expected(name, logits, beside):
    operation = OPERATIONS[name]
    if name == "softmax_masked":
        return [reference.softmax(logits, 1, where=beside)]
    function = operation.function.__name__
    if operation.family == "activation":
        return [getattr(reference, function)(logits, 1)]
    options = {"axis": 1, **operation.options}
    value = getattr(reference, function)(logits, beside, **options)
    if not operation.gradient:
        return [value]
    return [value, reference.gradient(function, logits, beside, **options)]


@for_each_library
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 2, 4)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_contestant_computes_the_operation(name_of_library, name, shape):
    how = libraries.load(name_of_library, "float32")
    inputs = Inputs(how, "float32", shape)
    setting = "jit" if name_of_library == "jax" else "eager"  # which compiles each step alone
    calls, missing = calls_of(how, inputs, setting, name)
    rivals = set(calls) - {"softmaxkit", "copy"}
    assert rivals or missing
    beside = OPERATIONS[name].beside and np.asarray(getattr(inputs, OPERATIONS[name].beside))
    logits = np.asarray(inputs.logits)
    for contestant in ("softmaxkit", *rivals):
        results = calls[contestant]()
        results = results if isinstance(results, tuple) else (results,)
        for got, want in zip(results, expected(name, logits, beside), strict=True):
            np.testing.assert_allclose(np.asarray(got), want, 2e-5, 2e-6, err_msg=contestant)
    np.testing.assert_array_equal(np.asarray(calls["copy"]()), logits)


@for_each_library
@pytest.mark.parametrize("name", LINEAR_OPERATIONS)
def test_every_contestant_computes_the_linear_loss(name_of_library, name):
    how = libraries.load(name_of_library, "float32")
    inputs = LinearInputs(how, "float32", (5, 3, 4))
    (setting,) = libraries.LINEAR_SETTINGS[name_of_library]
    calls, missing = calls_of(how, inputs, setting, name)
    assert len(calls) > 1 or missing
    arrays = [np.asarray(one) for one in (*inputs.variables, inputs.labels)]
    options = LINEAR_OPERATIONS[name].options
    value = reference_linear.linear_cross_entropy(*arrays, **options)
    gradients, _ = reference_linear.linear_gradients(*arrays, **options)
    for contestant, call in calls.items():
        loss, *found = call()
        found = found[0] if len(found) == 1 else found
        got = [np.sum(np.asarray(loss)), *found[:2]]  # JAX returns what it differentiates
        for one, want in zip(got, [np.sum(value), *gradients[:2]], strict=True):
            np.testing.assert_allclose(np.asarray(one), want, 2e-5, 2e-6, err_msg=contestant)


@for_each_library
def test_the_settings_are_those_of_the_table(name_of_library):
    settings = libraries.load(name_of_library, "float32").settings
    assert tuple(settings) == libraries.SETTINGS[name_of_library]
    assert set(libraries.LINEAR_SETTINGS[name_of_library]) <= set(settings)


def test_a_rival_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(libraries, "is_installed", lambda name: name != "scipy")
    how = libraries.load("numpy", "float32")
    calls, missing = calls_of(how, Inputs(how, "float32", (3, 2)), "eager", "softmax")
    assert missing == {"scipy.special": "scipy is not installed"}
    assert set(calls) == {"softmaxkit", "textbook", "copy"}


# --- the command ----------------------------------------------------------------------------------
@pytest.mark.parametrize("linear", [False, True])
def test_the_command_measures_every_library_and_writes_what_it_found(invoke, tmp_path, linear):
    pytest.importorskip("matplotlib", reason="the chart needs matplotlib: pip install '.[bench]'")
    from softmaxkit.bench import files

    path, picture = tmp_path / "found.json", tmp_path / "found.png"
    shapes, operations = ("4x3",), ("cross_entropy_grad",)
    rounds, settings, expected = 7, libraries.SETTINGS, {"softmaxkit", "copy"}
    names = installed()
    if linear:  # its libraries compile loops: two will do
        names = names[:2]
        shapes, operations = ("4x2x3",), ("linear_cross_entropy_grad",)
        rounds, settings, expected = 1, libraries.LINEAR_SETTINGS, {"softmaxkit"}
    done = invoke(
        *(["--linear"] if linear else []),
        *(argument for name in names for argument in ("--backend", name)),
        *(argument for shape in shapes for argument in ("--shape", shape)),
        *(argument for name in operations for argument in ("--operation", name)),
        *("--rounds", rounds, "--json", path, "--chart", picture),
    )
    assert done.exit_code == 0, done.output
    assert "cores usable" in done.stdout
    results, environment = files.load(path)
    count = sum(len(settings[name]) for name in names)
    assert len(results) == count * len(shapes) * len(operations)
    for one in results:
        assert not expected - set(one.seconds), one
        assert one.rivals or one.failed
        assert all(len(seconds) == rounds for seconds in one.seconds.values())
        assert all(0 < each < inf for seconds in one.seconds.values() for each in seconds)
        assert " ".join(one.cell.place) in done.stdout
    assert set(environment["libraries"]) == set(names)
    assert {"machine", "cores_usable", "softmaxkit", "commit", "rounds"} < set(environment)
    assert not {"hostname", "python_executable"} & set(environment["machine"])
    # What reads pyperf's files reads this one.
    import pyperf

    names = pyperf.BenchmarkSuite.load(str(path)).get_benchmark_names()
    assert f"numpy float32 eager {operations[0]} {shapes[0]} softmaxkit" in names
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    assert len(content) > 10_000


@pytest.mark.skipif(not measuring.can_read_peaks(), reason=measuring.NO_PEAK)
def test_a_linear_loss_needs_less_memory_than_all_the_logits(invoke, tmp_path):
    from softmaxkit.bench import files

    path = tmp_path / "found.json"
    done = invoke("--linear", "--quick", "--backend", "numpy", "--rounds", 1, "--json", path)
    assert done.exit_code == 0, done.output
    (found,), _ = files.load(path)
    assert found.cell.shape == LINEAR_QUICK_SHAPES[0]
    assert 0 < found.memory_ratio("softmaxkit") < found.memory_ratio("whole logits")


def test_nothing_is_lost_in_the_file(tmp_path):
    files = pytest.importorskip("softmaxkit.bench.files", reason=NEEDS_BENCH)
    environment = {"machine": {"platform": "a machine"}, "cores_usable": 2}
    results = [
        result([1.0, 2.0], [3.0, 4.0], memory={"softmaxkit": 7}, loops=dict.fromkeys(
            ("softmaxkit", "rival", "copy"), 5)),
        Result(cell("log_softmax"), failed={"softmaxkit": "out of memory"}),
        result([1.0], [3.0], cell(shape=(2, 2)), memory_failed={"rival": "killed"},
               loops=dict.fromkeys(("softmaxkit", "rival", "copy"), 1)),
    ]  # fmt: skip
    path = tmp_path / "found.json"
    files.save(path, results, environment)
    import pyperf

    first = pyperf.BenchmarkSuite.load(str(path)).get_benchmarks()[0]
    assert first.get_metadata()["spread"] == pytest.approx(0.5 / 1.5)  # of 1 and 2
    loaded, about = files.load(path)
    assert {one.cell: one for one in loaded} == {one.cell: one for one in results}
    assert about == environment


def test_a_file_without_any_measurement_is_read_back(tmp_path):
    files = pytest.importorskip("softmaxkit.bench.files", reason=NEEDS_BENCH)
    path = tmp_path / "found.json"
    results = [Result(cell(), failed={"softmaxkit": "out of memory"})]
    files.save(path, results, {"machine": {}})
    assert files.load(path) == (results, {"machine": {}})


# A worker that dies of its second cell, and finishes when started again.
DYING = """\
import json, os, signal, sys
job = json.load(sys.stdin)
say = lambda **event: print(json.dumps(event), flush=True)
say(versions={"numpy": "0"}, threads="1")
for i, (setting, operation, shape) in enumerate(job["cells"]):
    say(start=i)
    if operation == "log_softmax":
        DEATH
    say(result={"seconds": {"softmaxkit": [1.0]}, "loops": {"softmaxkit": 1}, "failed": {}})
"""


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "the process was killed, most likely as memory ran out",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the process was ended by SIGSEGV"),
        (
            "sys.exit('first line\\nno such thing')",
            "the process ended with exit code 1: no such thing",
        ),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_worker_that_dies_leaves_the_other_cells(invoke, monkeypatch, tmp_path, death, reason):
    from softmaxkit.bench import files, workers

    worker = tmp_path / "python"
    worker.write_text(f"#!{sys.executable}\n{DYING.replace('DEATH', death)}")
    worker.chmod(worker.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(workers.sys, "executable", str(worker))
    path = tmp_path / "found.json"
    names = ("softmax", "log_softmax", "cross_entropy")
    done = invoke(
        *("--backend", "numpy", "--shape", "4x3", "--json", path),
        *(argument for name in names for argument in ("--operation", name)),
    )
    monkeypatch.undo()
    assert done.exit_code == 0, done.output
    found = {one.cell.operation: one for one in files.load(path)[0]}
    assert found["log_softmax"].failed == {"softmaxkit": reason}
    assert [name for name, one in found.items() if one.seconds] == ["softmax", "cross_entropy"]
    assert f"numpy float32 eager log_softmax 4x3: {reason}" in done.stdout


def test_a_library_that_cannot_be_imported_is_said(invoke, monkeypatch, tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise OSError('no libjax.so')\n")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", str(ROOT))])
    )
    from softmaxkit.bench import running

    monkeypatch.setattr(running, "is_installed", lambda name: True)
    done = invoke("--backend", "jax", "--setting", "jit", "--shape", "4x3", "--shape", "5x3")
    assert done.exit_code == 1
    assert "jit softmax 4x3 and 15 more: OSError: no libjax.so" in done.stdout
    assert done.stderr.endswith("bench: nothing could be measured.\n")


@pytest.mark.parametrize("measured_before", [0, 1])
def test_an_interruption_shows_and_keeps_what_was_measured(
    invoke, monkeypatch, tmp_path, measured_before
):
    from softmaxkit.bench import files, workers

    def measured(cells, *arguments):
        for one in cells[:measured_before]:
            yield result([1.0, 1.0], [2.0, 2.0], one, loops=dict.fromkeys(
                ("softmaxkit", "rival", "copy"), 1))  # fmt: skip
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "measured", measured)
    path = tmp_path / "found.json"
    done = invoke("--quick", "--backend", "numpy", "--json", path)
    assert done.exit_code == 130
    last = done.stderr.splitlines()[-1]
    if measured_before:
        assert last == "bench: interrupted; 1 of 6 cells were measured until then."
        assert len(files.load(path)[0]) == 1
        assert "numpy float32 eager: time" in done.stdout
    else:
        assert last == "bench: interrupted."
        assert done.stdout == ""
        assert not path.exists()


# --- what it refuses ------------------------------------------------------------------------------
REFUSED = {
    "backend": (
        ["--backend", "cupy"],
        "--backend is 'cupy'; expected one of numpy, torch, jax, tensorflow.",
    ),
    "operation": (
        ["--operation", "relu"],
        f"--operation is 'relu'; expected one of {', '.join(OPERATIONS)}.",
    ),
    "dtype": (
        ["--dtype", "int8"],
        "--dtype is 'int8'; expected one of float32, float64, float16, bfloat16.",
    ),
    "setting": (
        ["--backend", "numpy", "--setting", "jit"],
        "--setting is 'jit'; expected one of eager.",
    ),
    "rounds": (["--rounds", "6"], "--rounds is 6; expected at least 7."),
    "rounds of linear losses": (
        ["--linear", "--rounds", "0"],
        "--rounds is 0; expected at least 1.",
    ),
    "shape of linear losses": (
        ["--linear", "--shape", "4x3"],
        "--shape is '4x3'; expected ROWSxWIDTHxCLASSES with --linear, such as 4096x512x65536.",
    ),
    "operation of logits": (
        ["--linear", "--operation", "softmax"],
        f"--operation is 'softmax'; expected one of {', '.join(LINEAR_OPERATIONS)}.",
    ),
    "JSON": (["--json", "a.txt"], "--json is 'a.txt'; expected a name that ends in .json."),
    "chart": (["--chart", "a.pdf"], "--chart is 'a.pdf'; expected a name that ends in .png."),
    "folder": (
        ["--json", "no-such-folder/a.json"],
        "--json is 'no-such-folder/a.json', which cannot be written: No such file or directory.",
    ),
} | {
    f"shape {shape!r}": (
        ["--shape", shape],
        f"--shape is {shape!r}; expected ROWSxCLASSES, such as 4096x4096, or with more axes after "
        f"the classes, such as 8x21x256x256.",
    )
    for shape in ("10", "4x", "0x4", "-1x4", "4*4", "²x4")
}


@pytest.fixture
def unmeasured(invoke, monkeypatch):
    from softmaxkit.bench import workers

    def measured(*arguments):
        pytest.fail("measured before the option was refused")

    monkeypatch.setattr(workers, "measured", measured)


def assert_refused(done, line, exit_code):
    assert done.exit_code == exit_code
    assert done.stdout == ""
    assert done.stderr == f"bench: {line}\n"


@pytest.mark.parametrize(("arguments", "line"), REFUSED.values(), ids=REFUSED)
def test_bench_refuses_in_one_line(invoke, unmeasured, arguments, line):
    assert_refused(invoke(*arguments), line, 2)


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_bench_names_the_remedy_for_a_backend_that_is_not_installed(
    invoke, unmeasured, monkeypatch, backend
):
    monkeypatch.setitem(sys.modules, backend, None)
    line = f"--backend is {backend!r}, which is not installed; pip install {backend}"
    assert_refused(invoke("--backend", backend), line, 1)


@pytest.mark.parametrize("module", ["pyperf", "matplotlib"])
def test_bench_names_the_remedy_for_a_missing_package(
    invoke, unmeasured, monkeypatch, tmp_path, module
):
    from softmaxkit.bench import running

    # The other one may be missing too where these tests run.
    monkeypatch.setattr(running, "is_installed", lambda name: name != module)
    done = invoke("--backend", "numpy", "--chart", tmp_path / "picture.png")
    assert_refused(done, f"{module} is not installed; pip install 'softmaxkit[bench]'", 1)


def test_the_library_does_not_import_the_benchmark_nor_that_a_framework(run_python):
    loaded = "import sys; {}; print(*sys.modules)"
    assert not any(
        name.startswith("softmaxkit.bench")
        for name in run_python(loaded.format("import softmaxkit")).split()
    )
    pytest.importorskip("rich", reason=NEEDS_BENCH)
    modules = run_python(loaded.format("import softmaxkit.bench.running")).split()
    assert not {"torch", "jax", "tensorflow", "scipy", "matplotlib", "pyperf"} & set(modules)

"""The scripts of benchmarks/: what they compute, and what they find to measure."""

import importlib.util
import json
import sys
import warnings
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

import softmaxkit
from softmaxkit import conformance
from softmaxkit.bench.libraries import NAMES
from softmaxkit.bench.results import Cell, Result

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(name):
    """Import a script of benchmarks/."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_growth_finds_exponent_and_cliff():
    growth = script("growth")
    sizes = growth.sweep(100)
    assert (sizes[0], sizes[-1], len(sizes)) == (100, 1_000_000, 17)
    exponent, fitted = growth.trend(sizes, [1e-5 + 2e-9 * n**1.5 for n in sizes])
    assert exponent == pytest.approx(1.5, abs=0.01)
    np.testing.assert_allclose(
        fitted, [1e-5 + 2e-9 * n**1.5 for n in sizes], rtol=0.3
    )  # it looks for 2x
    seconds = [1e-5 + 2e-9 * n for n in sizes]
    seconds[8] *= 4
    _, fitted = growth.trend(sizes, seconds)
    off = [i for i, ratio in enumerate(seconds / fitted) if not 1 / 2 <= ratio <= 2]
    assert off == [8]


@pytest.mark.parametrize("name_of_library", [name for name in conformance.names() if name in NAMES])
def test_dispatch_finds_the_kernel_with_what_it_is_called_with(name_of_library):
    dispatch = script("dispatch")
    module = getattr(softmaxkit.backends, name_of_library)
    before = dict(vars(module))
    found = list(dispatch.calls_of(name_of_library))
    assert {"softmax", "cross_entropy"} <= {operation for operation, _, _ in found}
    for _, _, call in found:
        got, want = (
            result if isinstance(result, tuple) else (result,)
            for result in (dispatch.kernel_call(module, call)(), call())
        )
        for one, other in zip(got, want, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert dict(vars(module)) == before


def test_thresholds_find_the_constants_of_a_backend():
    """Not those, private, that are no matter of speed."""
    found = {(module.__name__, name) for module, name, _ in script("thresholds").constants("numpy")}
    assert ("softmaxkit.backends.numpy.blocks", "BLOCK_ELEMENTS") in found
    assert not any("ALIGNMENT" in name for _, name in found)


def test_thresholds_leave_the_constant_as_it_was():
    thresholds = script("thresholds")
    seen = []

    class Module:
        SIZE = 16

    times = thresholds.compare(
        "numpy", Module, "SIZE", lambda: lambda: seen.append(Module.SIZE), rounds=2
    )
    assert Module.SIZE == 16
    assert set(seen) == {2, 4, 8, 16, 32, 64, 128}
    assert set(times) == {*map(str, set(seen)), thresholds.AGAIN}


def test_goals_are_judged_cell_by_cell(monkeypatch, capsys, tmp_path):
    files = pytest.importorskip("softmaxkit.bench.files", reason="needs pyperf")
    loops = dict.fromkeys(("softmaxkit", "rival", "copy"), 1)
    environment = {
        "machine": {"platform": "a machine", "python_version": "3"}, "cores_usable": 2, "rounds": 1,
        "softmaxkit": "0", "commit": "unknown", "libraries": {}, "not_measured": {},
    }  # fmt: skip
    found = [
        Result(
            Cell("torch", "float32", "eager", operation, (1000, 100)),
            seconds={"softmaxkit": [1.0], "rival": [rival], "copy": [0.5]},
            loops=loops,
        )
        for operation, rival in (("softmax", 2.0), ("log_softmax", 0.9))
    ]
    chunked = script("goals").TORCH_CHUNKED
    found.append(
        Result(
            Cell("torch", "float32", "eager", "linear_cross_entropy_grad", (40, 10, 1000)),
            seconds={"softmaxkit": [1.2], "rival": [1.0], chunked: [0.5]},
            loops={"softmaxkit": 1, "rival": 1, chunked: 1},
            memory={"softmaxkit": 30, "rival": 400, chunked: 20},
        )
    )
    path = tmp_path / "found.json"
    files.save(path, found, environment)
    monkeypatch.setattr(sys, "argv", ["goals.py", str(path)])
    script("goals").main()
    lines = capsys.readouterr().out.splitlines()
    assert (
        "MISSED  torch softmax and log_softmax: 2 cells, geometric mean 1.34 (goal >= 1.3), "
        "worst 0.90 (goal >= 0.95)"
    ) in lines
    assert "        0.90, goal >= 0.95: torch float32 eager log_softmax 1000x100, rival" in lines
    assert "        JAX jitted: not measured" in lines
    where = "torch float32 eager linear_cross_entropy_grad 40x10x1000"
    assert f"        1.20, goal <= 1.1: {where}, rival" in lines
    assert f"        1.50, goal <= 1: {where}, {chunked}" in lines
    assert not any("<= 0.1" in line for line in lines)
    assert (
        "met     softmax over a copy: 1 cells, geometric mean 2.00 (goal <= 2.5), "
        "worst 2.00 (goal <= 4)"
    ) in lines


@pytest.fixture
def gpu(torch, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # main sets it, and so it goes again
    return script("gpu")


def exit_code(monkeypatch, gpu, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    with pytest.raises(SystemExit) as exited:
        gpu.main()
    return exited.value.code


def cases_named(gpu, *names):
    calls = gpu.gpu_checks.calls
    return lambda rows, classes: [case for case in calls(rows, classes) if case.name in names]


def test_gpu_runs_on_the_cpu(gpu, monkeypatch, capsys, tmp_path):
    # Every operation, in a third of the cases.
    some = cases_named(gpu, "last axis", "labels", "probabilities")
    monkeypatch.setattr(gpu.gpu_checks, "calls", some)
    assert exit_code(monkeypatch, gpu, "--dry-run", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "gpu.txt").read_text(encoding="utf-8") == printed
    lines = printed.splitlines()
    if importlib.util.find_spec("matplotlib"):
        assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")
    else:
        assert lines.pop() == "no picture: ModuleNotFoundError: No module named 'matplotlib'"
    assert lines[1] == "gpu: CPU dry run: these numbers mean nothing about a GPU"
    assert lines[-1] == "0 failed"
    skipped = [lines[i - 1] for i, line in enumerate(lines) if line == "  skipped: needs a GPU"]
    assert skipped == [
        *("kernels", "synchronisation", "memory", "graphs", "jax", "cupy", "cupy_times"),
    ]
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert list(found["seconds"]) == [
        *("accuracy", "pieces", "compiled", "deterministic", "times", "jax_times"),
    ]
    rows = found["rows"]
    assert {row["name"].partition("-")[0] for row in rows["accuracy"]} == {*conformance.OPERATIONS}
    assert all(row["note"] or set(row["cells"].values()) == {"passed"} for row in rows["pieces"])
    assert {row["name"] for row in rows["times"] if "ms" in row["cells"]} >= {
        "copy", "softmaxkit", "softmaxkit, compiled", "torch", "torch, compiled", "predicted, H200",
    }  # fmt: skip
    if importlib.util.find_spec("jax"):
        assert {row["name"] for row in rows["jax_times"]} >= {"softmaxkit", "copy"}
    else:
        assert rows["jax_times"][0]["note"].startswith("skipped: ModuleNotFoundError")
    assert {row["cells"][""] for row in rows["goals"]} == {"not measured"}


def test_gpu_finds_a_wrong_kernel(gpu, monkeypatch, capsys, tmp_path):
    kernels = softmaxkit.backends.torch.kernels
    softmax = kernels.softmax
    monkeypatch.setattr(kernels, "softmax", lambda *given: softmax(*given) * (1 + 1e-5))
    monkeypatch.setattr(gpu.gpu_checks, "calls", cases_named(gpu, "last axis"))
    arguments = "--dry-run", "--only", "accuracy", "--out", str(tmp_path)
    assert exit_code(monkeypatch, gpu, *arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  softmax-last axis"))
    assert lines[at + 1].startswith("    FAILED float32 value: ")
    assert lines[-1] == "1 failed"


def test_gpu_wants_a_gpu(gpu, torch, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert exit_code(monkeypatch, gpu) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "gpu.py: torch finds no GPU; pass --dry-run to run on the CPU.\n")


def test_gpu_believes_no_device_that_does_nothing(gpu, torch, monkeypatch):
    """Where nothing is noticed, and a graph that is replayed leaves the results as they were."""
    checks = gpu.gpu_checks
    monkeypatch.setattr(checks, "SMALL", (6, 50))
    monkeypatch.setattr(checks, "VOCABULARY", (6, 50))
    device = MagicMock()
    device.mem_get_info.return_value = 1 << 20, 1 << 20
    device.memory_allocated.return_value, device.max_memory_allocated.return_value = 0, 2400
    monkeypatch.setattr(torch, "cuda", device)
    first, *others = checks.synchronisation("cpu")
    assert (first.name, first.problems) == ("Tensor.item() is noticed", ["so nothing would be"])
    assert not any(row.problems for row in others)
    for row in checks.graphs("cpu"):
        assert set(row.cells.values()) == {"failed"}
    rows = list(checks.memory("cpu"))
    wanted = [dict.fromkeys(("softmaxkit", "torch"), ratio) for ratio in (4.0, 4.0, 2.0, 2.0)]
    assert [row.cells for row in rows] == wanted


def test_gpu_finds_what_is_not_deterministic(gpu, torch, monkeypatch):
    x, calls = torch.ones(2, 3), []

    def another_each_time():
        calls.append(0)
        return x + len(calls)

    def refused():
        return x.put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)

    functions = {"softmax": another_each_time, "log_softmax": refused, "logsumexp": x.clone}
    checks = gpu.gpu_checks
    cases = [conformance.Case("case", name, ()) for name in functions]
    monkeypatch.setattr(checks, "calls", lambda rows, classes: cases)
    monkeypatch.setattr(checks, "prepared", lambda _, case, dtype: (functions[case.operation], x))
    found = [set(row.cells.values()) for row in checks.deterministic("cpu")]
    assert found == [{"failed"}, {"refused: put_"}, {"passed"}]
    assert not torch.are_deterministic_algorithms_enabled()


def test_gpu_finds_rows_that_depend_on_others(gpu, torch, monkeypatch):
    checks = gpu.gpu_checks
    monkeypatch.setattr(checks, "LARGE", (10, 20))
    softmax = softmaxkit.softmax
    monkeypatch.setattr(softmaxkit, "softmax", lambda x: softmax(x) * (1 + (len(x) > 5) / 8))
    rows = [row for row in checks.pieces("cpu") if not row.note]
    assert {row.name for row in rows if row.problems} == {"softmax"}
    assert len({row.name for row in rows}) == 4


def test_gpu_runs_with_triton_and_without(gpu, monkeypatch):
    """A kernel that fails warns and has another serve: a failure, where Triton is measured."""
    checks, cases = gpu.gpu_checks, sys.modules["gpu_cases"]
    states = []
    monkeypatch.setattr(softmaxkit.torch, "use_triton", states.append, raising=False)
    monkeypatch.setattr(cases, "find_spec", lambda name: name == "triton")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in a program
        with pytest.raises(UserWarning), cases.engines("cuda")["Triton"]():
            warnings.warn("softmax: Triton failed.", UserWarning, stacklevel=1)
    assert states == [True, True]
    states.clear()
    check = checks.by_engine(lambda device: [gpu.Row("table", str(states[-1]))])
    assert [(row.under, row.name) for row in check("cuda")] == [
        ("Triton, table", "True"), ("torch operations, table", "False"),
    ]  # fmt: skip
    assert states == [True, True, False, True]
    assert [*cases.engines("cpu")] == ["torch operations"]
    assert [*gpu.gpu_times.ours_by_engine("cuda")] == ["softmaxkit", "softmaxkit, torch operations"]


def test_gpu_races_only_who_computes_the_same(gpu, torch, monkeypatch):
    """One that writes over its logits has its own; others that fail are named with the reason."""
    times = gpu.gpu_times
    functional, seen = torch.nn.functional, []

    def overwrites(x, labels):
        seen.append(x.detach().clone())
        loss = functional.cross_entropy(x.clone(), labels)
        x.detach().zero_()
        return loss

    def missing():
        raise ModuleNotFoundError("No module named 'quack'")

    def other(x, labels):
        return 2 * functional.cross_entropy(x, labels)

    makers = {
        "softmaxkit": lambda: softmaxkit.cross_entropy, "Liger": lambda: overwrites,
        "torch": lambda: functional.cross_entropy, "other": lambda: other, "quack": missing,
    }  # fmt: skip
    monkeypatch.setattr(times, "contestants", lambda cell, device: makers)
    result = times.race(times.cell_of("cross_entropy_grad", "float32", (8, 5)), "cpu")
    assert list(result.seconds) == ["copy", "softmaxkit", "Liger", "torch"]
    assert result.failed["quack"] == "ModuleNotFoundError: No module named 'quack'"
    assert result.failed["other"].startswith("AssertionError: Tensor-likes are not close!")
    assert all(torch.equal(one, seen[0]) for one in seen)
    rows = {row.name: row for row in times.rows_of(result)}
    assert rows["quack"].note == "not measured: ModuleNotFoundError: No module named 'quack'"
    assert not any(row.problems for row in rows.values())


@pytest.mark.parametrize(("error", "fails"), [("OutOfMemoryError", False), ("TypeError", True)])
def test_gpu_excuses_our_own_failure_only_where_the_gpu_is_too_small(
    gpu, monkeypatch, error, fails
):
    times = gpu.gpu_times
    cell = times.cell_of("cross_entropy", "float32", (8, 5))
    result = times.Result(cell, {"torch": [1.0, 1.0]}, failed={"softmaxkit": f"{error}: here"})
    row = next(row for row in times.rows_of(result) if row.name == "softmaxkit")
    wanted = ([f"{error}: here"], "") if fails else ([], f"not measured: {error}: here")
    assert (row.problems, row.note) == wanted


def test_gpu_predicts_from_the_data_sheets(gpu):
    """3 x 2 bytes x 8192 x 128256 at 3.35 and 4.8 TB/s; 6 x 8192 x 4096 x 128256 at 989 TFLOP/s."""
    times = gpu.gpu_times
    cell = times.cell_of("cross_entropy_grad", "bfloat16", (8192, 128256))
    assert times.predicted_seconds(cell, "H100 SXM") == pytest.approx(1.882e-3, rel=1e-3)
    assert times.predicted_seconds(cell, "H200") == pytest.approx(1.313e-3, rel=1e-3)
    cell = times.cell_of("linear_cross_entropy_grad", "bfloat16", (8192, 4096, 128256))
    assert times.predicted_seconds(cell, "H100 SXM") == pytest.approx(26.11e-3, rel=1e-3)


def test_gpu_judges_its_goals(gpu):
    times, checks = gpu.gpu_times, gpu.gpu_checks
    cell = times.cell_of("cross_entropy_grad", "bfloat16", (8192, 128256))
    report = gpu.Report({}, dry_run=False)
    seconds = {"copy": [1e-3], "softmaxkit": [1.8e-3], "torch": [3.5e-3], "Liger": [1.8e-3]}
    seconds = {name: each * 2 for name, each in seconds.items()}
    report.rows["times"] = [*times.rows_of(times.Result(cell, seconds))]
    name = "bfloat16, 8192x128256, smoothing 0.0"
    report.rows["memory"] = [
        gpu.Row("Triton, peak", name, {"softmaxkit": 1.01, "torch": 3.0}),
        gpu.Row("torch operations, peak", name, {"softmaxkit": 1.2, "torch": 3.0}),
    ]
    assert checks.memory_row(gpu.torch.bfloat16, cell.shape, 0.0) == name
    cells = [[*row.cells.values()] for row in gpu.goals(report)]
    assert cells == [
        ["<= 1.15", "1.2", "missed"], ["<= 1.05", "1.01", "met"], ["<= 0", "", "not measured"],
        [">= 1.0", "1", "met"], [">= 2.0", "1.94", "missed"],
    ]  # fmt: skip
    report.rows["synchronisation"], report.seconds["synchronisation"] = [], 1.0
    assert [*gpu.goals(report)][2].cells["measured"] == "0"


def test_gpu_stops_when_its_time_is_over(gpu, monkeypatch, capsys):
    ended = []

    def endless(device):
        try:
            while True:
                yield gpu.Row("table", "row")
        finally:
            ended.append(device)

    monkeypatch.setitem(gpu.SECTIONS, "endless", (endless, 0, True))
    report = gpu.Report({}, dry_run=False)
    gpu.run("endless", report)
    assert (len(report.rows["endless"]), report.unfinished, ended) == (1, ["endless"], ["cuda"])
    assert "  stopped: its 0 s are over" in capsys.readouterr().out
    assert sum(seconds for _, seconds, _ in gpu.SECTIONS.values()) <= 8 * 60 - 15

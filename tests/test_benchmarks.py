"""The scripts of benchmarks/: what they compute, and what they find to measure."""

import importlib.util
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

import softmaxkit
from softmaxkit import conformance
from softmaxkit.bench.libraries import NAMES
from softmaxkit.bench.results import Cell, Result
from softmaxkit.conformance.case import CLASS_LOSSES, LINEAR_LOSSES

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


def exit_code(monkeypatch, gpu, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    with pytest.raises(SystemExit) as exited:
        gpu.main()
    return exited.value.code


def test_gpu_runs_on_the_cpu(torch, monkeypatch, capsys):
    gpu = script("gpu")
    assert exit_code(monkeypatch, gpu, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {row.partition("-")[0].strip() for row in lines if row.startswith("  ")}
    assert rows >= set(conformance.OPERATIONS)
    assert lines[-1] == "0 failed"
    skipped = [lines[i - 1] for i, line in enumerate(lines) if line.startswith("  skipped: ")]
    assert skipped == ["synchronisation", "memory", "graphs", "jax", "cupy"]


def test_gpu_finds_a_wrong_kernel(torch, monkeypatch, capsys):
    gpu = script("gpu")
    kernels = softmaxkit.backends.torch.kernels
    softmax = kernels.softmax
    monkeypatch.setattr(kernels, "softmax", lambda *given: softmax(*given) * (1 + 1e-5))
    some = [case for case in gpu.calls(*gpu.SMALL) if case.name == "last axis"]
    monkeypatch.setattr(gpu, "calls", lambda rows, classes: some)
    assert exit_code(monkeypatch, gpu, "--dry-run") == 1
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  softmax-last axis"))
    assert lines[at + 1].startswith("    FAILED float32 value: ")
    assert lines[-1] == "1 failed"


def test_gpu_wants_a_gpu(torch, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert exit_code(monkeypatch, script("gpu")) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "gpu.py: torch finds no GPU; pass --dry-run to run on the CPU.\n")


def test_gpu_believes_no_device_that_does_nothing(torch, monkeypatch):
    """Where nothing is noticed, and a graph that is replayed leaves the results as they were."""
    gpu = script("gpu")
    monkeypatch.setattr(gpu, "LARGE", (6, 50))
    monkeypatch.setattr(gpu, "LARGEST", (6, 50))
    device = MagicMock()
    device.mem_get_info.return_value = 1 << 20, 1 << 20
    device.memory_allocated.return_value, device.max_memory_allocated.return_value = 0, 2400
    monkeypatch.setattr(torch, "cuda", device)
    problems = {call: list(found) for call, _, found in gpu.synchronisation("cpu")}
    assert problems.pop("Tensor.item() is noticed")
    wrong = {f"{name}-label out of range" for name in CLASS_LOSSES + LINEAR_LOSSES}
    assert {call for call, found in problems.items() if found} == wrong  # refused on the CPU
    _, *rows = gpu.graphs("cpu")
    assert all(cells == ["failed"] * 3 for _, cells, _ in rows)
    _, *rows = gpu.memory("cpu")
    assert [cells for _, cells, _ in rows] == [["2.00"] * 2] * 2 + [["4.00"] * 2] * 2

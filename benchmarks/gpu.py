"""Check softmaxkit on a GPU: errors, synchronisation, memory, CUDA graphs.

python benchmarks/gpu.py [--only accuracy memory] [--dry-run]

Not measured on a GPU yet: so far it has only been run with --dry-run, which computes the errors on
the CPU and skips the rest. It uses the installed torch, from 2.12 on, and should take at most 4
minutes. The exit code is 1 if something failed, 2 if torch finds no GPU.

accuracy         largest error of value and gradient in ULP/limit, by the reference in float64 and
                 the limits of the conformance suite
synchronisation  forward and backward under torch.cuda.set_sync_debug_mode("error")
memory           peak of forward and backward over the size of the logits, gradient included
graphs           forward and backward in a CUDA graph, replayed on other values, against eager
jax, cupy        accuracy there
"""

import argparse
import os
import sys
import traceback
from dataclasses import replace
from functools import partial

import numpy as np
import torch

import softmaxkit
from softmaxkit import conformance
from softmaxkit._operations import BY_CLASS
from softmaxkit.bench.results import shown_shape
from softmaxkit.conformance import Adapter, Case
from softmaxkit.conformance.case import ACTIVATIONS, LINEAR_LOSSES, LOSSES

SMALL = (33, 1000)
LARGE = (130, 32768)  # two blocks of ACCELERATOR_ELEMENTS, the second of two rows
LARGEST = (8192, 32768)  # for memory; fewer rows if the device has no room for 8 such arrays
# float16 takes the same path as bfloat16; it is left out where a dtype takes half a minute.
DTYPES = ("float32", "bfloat16", "float16")
ON_DEVICE = {"labels": "they are on the device, for which nothing waits"}


def calls(rows, classes):
    """Yield every operation, on ordinary and saturated rows, and every option with its own path."""
    random = np.random.default_rng(0)
    # More than 16 below the largest logit, an ordinary softmax may be off by more than its limit.
    x = random.normal(0.0, 1.0, (rows, classes))
    labels = random.integers(0, classes, rows)
    q = random.gamma(0.5, 1.0, x.shape)
    q /= q.sum(-1, keepdims=True)
    weight = random.random(classes) + 0.5
    yes_or_no = random.integers(0, 2, x.shape)
    mask = random.random(x.shape) < 0.7
    sure = x.copy()
    mask[np.arange(rows), labels], sure[np.arange(rows), labels] = True, 25.0
    ignored, wrong = labels.copy(), labels.copy()
    ignored[::3], wrong[1] = -100, classes
    each = {"reduction": "none"}
    # Eighths, whose products are exact, so that only the loss is judged.
    h, weight_matrix = (random.normal(0.0, 1.0, (n, 4)) for n in (rows, classes))
    h, weight_matrix = ((8 * one).round() / 8 for one in (h, weight_matrix))
    parts = {"chunk_size": rows // 2}

    for name in ACTIVATIONS:
        yield Case("last axis", name, (x,))
        yield Case("first axis", name, (x,), {"axis": 0})
        yield Case("saturated", name, (sure,), saturated=True)
    for name, by_class in BY_CLASS.items():
        yield Case("labels", name, (x, labels))
        yield Case("saturated", name, (sure, labels), each, saturated=True)
        yield Case("first axis", name, (np.ascontiguousarray(x.T), labels), {"axis": 0})
        yield Case("class weights", name, (x, labels), {by_class: weight})
        yield Case("mask", name, (x, labels), {"where": mask})
        yield Case("ignored rows", name, (x, ignored))
        yield Case("temperature", name, (x, labels), {"temperature": 2.5})
        yield Case("smoothing", name, (x, labels), {"label_smoothing": 0.1})
        yield Case("probabilities", name, (x, q))
        # Refused on the CPU; NaN where labels are not read.
        yield Case("label out of range", name, (x, wrong), each, raises=IndexError)
    for name in LINEAR_LOSSES:
        yield Case("labels", name, (h, weight_matrix, labels))
        yield Case("in chunks", name, (h, weight_matrix, labels), parts)
        yield Case("no reduction", name, (h, weight_matrix, labels), parts | each)
        yield Case("ignored rows", name, (h, weight_matrix, ignored), parts)
        yield Case("smoothing", name, (h, weight_matrix, labels), parts | {"label_smoothing": 0.1})
        wrong_rows = h, weight_matrix, wrong
        yield Case("label out of range", name, wrong_rows, parts | each, raises=IndexError)
    yield Case("z-loss", "cross_entropy", (x, labels), {"z_loss": 0.01})
    for name, weights in (("binary_cross_entropy", "pos_weight"), ("sigmoid_focal_loss", "alpha")):
        by_label = weight if weights == "pos_weight" else 0.25
        yield Case("labels", name, (x, yes_or_no), {weights: by_label})
        yield Case("probabilities", name, (x, q))
    yield Case("labels", "one_hot", (labels,), {"num_classes": classes})
    yield Case("probabilities", "smooth_labels", (q,), {"smoothing": 0.1})


# --- the checks: each yields a row for every call, with its cells and what is wrong ---------------
def accuracy(device):
    yield from errors(torch_on(device), SMALL, DTYPES)
    if device == "cuda":
        yield from errors(torch_on(device), LARGE, DTYPES[:2])


def errors(adapter, shape, dtypes):
    dtypes = [dtype for dtype in dtypes if dtype in adapter.dtypes]
    yield f"{adapter.name}, {shown_shape(shape)}", dtypes, []
    for case in calls(*shape):
        cells, problems = [], []
        for dtype in dtypes:
            results = conformance.run_case(adapter, case, dtype, adapter.dtypes_under)
            results, problem = attempted(list, results)
            worst = {}
            for one in sorted(results or (), key=lambda result: result.ulp):
                worst[one.what] = f"{one.ulp:.2g}/{one.limit:g}"
                problem = f"{one.what}: {one.problem}" if one.problem else problem
            cells.append("  ".join(worst[what] for what in sorted(worst, reverse=True)))
            problems += [f"{dtype} {problem}"] if problem else []
        yield str(case), cells, problems


def synchronisation(device):
    _, noticed = attempted(without_waiting, torch.ones(1, device=device).item)
    yield "Tensor.item() is noticed", [], [] if noticed else ["so nothing would be"]
    yield from every_call(device, lambda *call: without_waiting(prepared(*call)[0]))


def without_waiting(run):
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode(before)


def memory(device):
    rows, classes = LARGEST
    rows = min(rows, torch.cuda.mem_get_info()[0] // (8 * 4 * classes))
    yield f"cross_entropy, {shown_shape((rows, classes))}", ("softmaxkit", "torch"), []
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(rows, classes, device=device, dtype=dtype, requires_grad=True)
        labels = torch.randint(classes, (rows,), device=device)
        for smoothing in (0.0, 0.1):
            cells = []
            for loss in (softmaxkit.cross_entropy, torch.nn.functional.cross_entropy):
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                torch.autograd.grad(loss(x, labels, label_smoothing=smoothing), x)
                peak = torch.cuda.max_memory_allocated() - before
                cells.append(f"{peak / x.nbytes:.2f}")
            yield f"{dtype}, smoothing {smoothing}", cells, []


def graphs(device):
    yield from every_call(device, replayed)


def replayed(adapter, case, dtype):
    run, x = prepared(adapter, case, dtype)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    x.copy_(x.flip(0))
    graph.replay()
    # The same kernels on the same numbers: equal to the last bit.
    torch.testing.assert_close(results, run(), rtol=0, atol=0, equal_nan=True)


def every_call(device, check):
    adapter = torch_on(device)
    yield f"{adapter.name}, {shown_shape(LARGE)}", DTYPES, []
    for case in calls(*LARGE):
        found = [attempted(check, adapter, case, dtype)[1] for dtype in DTYPES]
        yield str(case), ["failed" if each else "passed" for each in found], filter(None, found)


def prepared(adapter, case, dtype):
    """Return forward and backward as a function without arguments, and the array it is for."""

    def moved(value):
        if not isinstance(value, np.ndarray):
            return value
        return adapter.to_backend(value, dtype if value.dtype.kind == "f" else None)

    x, *others = map(moved, case.arrays)
    options = {name: moved(value) for name, value in case.options.items()}
    call = getattr(softmaxkit, case.operation)
    if case.operation in ACTIVATIONS:
        others = [call(x, **options)]  # a cotangent like any other
        call = softmaxkit.vjp(call)
    elif case.operation in LOSSES + LINEAR_LOSSES:
        call = softmaxkit.value_and_grad(call)
    return partial(call, x, *others, **options), x


def attempted(function, *arguments):
    """Return a result, and the exception in a line if there is one."""
    try:
        return function(*arguments), ""
    except Exception as error:
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:300]


# --- libraries ------------------------------------------------------------------------------------
def torch_on(device):
    adapter = conformance.load("torch")
    if device == "cpu":
        return adapter
    return replace(
        adapter,
        name=f"torch {torch.__version__}, {torch.cuda.get_device_name()}",
        to_backend=lambda array, dtype: adapter.to_backend(array, dtype).to(device),
        to_numpy=lambda tensor: adapter.to_numpy(tensor.cpu()),
        lacks=ON_DEVICE,
    )


def jax_on_gpu():
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs some, too
    import jax

    device = jax.devices("gpu")[0].device_kind
    return replace(conformance.load("jax"), name=f"JAX {jax.__version__}, {device}")


def cupy_on_gpu():
    import cupy

    cupy.cuda.runtime.getDeviceCount()  # raises an error where there is none
    return Adapter(
        f"CuPy {cupy.__version__}",
        lambda array, dtype: cupy.asarray(array, dtype or array.dtype),
        cupy.asnumpy,
        lambda array: str(array.dtype),
        ON_DEVICE | dict.fromkeys(("bfloat16", "tracing", "autodiff"), "CuPy has none"),
    )


def elsewhere(load, _device):
    adapter, reason = attempted(load)
    if adapter is None:
        yield f"skipped: {reason}", [], []
    else:
        yield from errors(adapter, SMALL, DTYPES[:2])


CHECKS = {
    "accuracy": accuracy,
    "synchronisation": synchronisation,
    "memory": memory,
    "graphs": graphs,
    "jax": partial(elsewhere, jax_on_gpu),
    "cupy": partial(elsewhere, cupy_on_gpu),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=[*CHECKS])
    parser.add_argument("--dry-run", action="store_true", help="on the CPU")
    options = parser.parse_args()
    if not (options.dry_run or torch.cuda.is_available()):
        print("gpu.py: torch finds no GPU; pass --dry-run to run on the CPU.", file=sys.stderr)
        sys.exit(2)

    failed = 0
    for name in options.only:
        print(f"\n{name}")
        if options.dry_run and name != "accuracy":
            print("  skipped: it needs a GPU, and a dry run is on the CPU")
            continue
        try:
            for call, cells, problems in CHECKS[name]("cpu" if options.dry_run else "cuda"):
                print(f"  {call:<40}", *(f"{cell:>18}" for cell in cells), flush=True)
                for problem in problems:
                    print(f"    FAILED {problem}")
                    failed += 1
        except Exception:  # run the other checks anyway
            traceback.print_exc()
            failed += 1
    print(f"\n{failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

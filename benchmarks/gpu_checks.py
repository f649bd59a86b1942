"""The checks of gpu.py: each yields a row for every call, with its cells and what is wrong."""

from dataclasses import replace
from functools import partial

import torch
from gpu_cases import (
    Row,
    attempted,
    calls,
    compile_for,
    engines,
    moved,
    name_of,
    prepared,
    torch_on,
)
from torch.autograd import DeviceType

import softmaxkit
from softmaxkit import conformance
from softmaxkit.bench.results import shown_shape
from softmaxkit.conformance.case import ACTIVATIONS, LINEAR_LOSSES

SMALL = (33, 1000)
FEW = (1000, 10)
WIDE = (2, 128256)  # in float32, where errors show; the reference takes 0.3 s for each call
LARGE = (130, 32768)  # two blocks of ACCELERATOR_ELEMENTS, the second of two rows
VOCABULARY = (8192, 128256)
BEYOND_32_BITS = (17_000, 128256)
# float16 takes the same path as bfloat16; it is left out where a dtype takes half a minute.
DTYPES = ("float32", "bfloat16", "float16")


def by_engine(check):
    def each(device):
        for name, engine in engines(device).items():
            with engine():
                for row in check(device):
                    yield replace(row, under=f"{name}, {row.under}")

    return each


# --- the checks -----------------------------------------------------------------------------------
def kernels(device):
    """Names of what runs on the device in cross_entropy, forward and backward, by engine."""
    x = torch.randn(LARGE, device=device, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.zeros(LARGE[0], device=device, dtype=torch.int64)
    found = []
    for name, engine in engines(device).items():
        with engine():
            torch.autograd.grad(softmaxkit.cross_entropy(x, labels), x)  # compiles
            with torch.profiler.profile() as profile:
                torch.autograd.grad(softmaxkit.cross_entropy(x, labels), x)
        names = {event.name for event in profile.events() if event.device_type == DeviceType.CUDA}
        problems = ["the same as without"] if names in found or not names else []
        found.append(names)
        yield Row("kernels", name, problems=problems, note=", ".join(sorted(names)))


@by_engine
def accuracy(device):
    """Errors in ULP/limit by the reference in float64 and the limits of the conformance suite."""
    adapter = torch_on(device)
    yield from errors(adapter, SMALL, DTYPES)
    if device == "cuda":
        yield from errors(adapter, FEW, DTYPES[:2])
        # The products of linear losses are torch's; summed over 128256 classes in float32 they are
        # 100 ULP off on a CPU, where 24 are allowed.
        yield from errors(adapter, WIDE, DTYPES[:1], without=LINEAR_LOSSES)


def errors(adapter, shape, dtypes, without=()):
    dtypes = [dtype for dtype in dtypes if dtype in adapter.dtypes]
    for case in calls(*shape):
        if case.operation in without:
            continue
        cells, problems = {}, []
        for dtype in dtypes:
            results = conformance.run_case(adapter, case, dtype, adapter.dtypes_under)
            results, problem = attempted(list, results)
            worst = {}
            for one in sorted(results or (), key=lambda result: result.ulp):
                worst[one.what] = f"{one.ulp:.2g}/{one.limit:g}"
                problem = f"{one.what}: {one.problem}" if one.problem else problem
            cells[dtype] = "  ".join(worst[what] for what in sorted(worst, reverse=True))
            problems += [f"{dtype} {problem}"] if problem else []
        yield Row(f"{adapter.name}, {shown_shape(shape)}", str(case), cells, problems)


@by_engine
def pieces(device):
    """Rows of an array in several blocks, or beyond 32-bit offsets, against the same rows alone."""
    for shape, dtype in (
        (LARGE, torch.float32), (LARGE, torch.bfloat16), (BEYOND_32_BITS, torch.bfloat16)
    ):  # fmt: skip
        under = f"rows beside themselves alone, {shown_shape(shape)}"
        needed = 6 * dtype.itemsize * shape[0] * shape[1]
        free = torch.cuda.mem_get_info()[0] if device == "cuda" else 0
        if shape is BEYOND_32_BITS and free < needed:
            note = f"skipped: needs a GPU with {needed / 1e9:.0f} GB of free memory"
            yield Row(under, name_of(dtype), note=note)
            continue
        x = torch.randn(shape, device=device, dtype=dtype)
        labels = torch.randint(shape[1], shape[:1], device=device)
        some = torch.tensor([0, 1, shape[0] // 2, shape[0] - 2, shape[0] - 1], device=device)
        for name in ("softmax", "log_softmax", "cross_entropy", "focal_loss"):
            _, problem = attempted(compare_pieces, name, x, labels, some)
            cells = {name_of(dtype): "failed" if problem else "passed"}
            yield Row(under, name, cells, [problem] if problem else [])


def compare_pieces(name, x, labels, some):
    def results(x, labels):
        if name in ACTIVATIONS:
            return (getattr(softmaxkit, name)(x),)
        x = x.detach().requires_grad_()
        value = getattr(softmaxkit, name)(x, labels, reduction="none")
        return value.detach(), *torch.autograd.grad(value.sum(), x)

    whole = [one[some] for one in results(x, labels)]
    # Sums of another number of rows may be taken in another order.
    rtol = 1e-5 if x.dtype is torch.float32 else 1.6e-2
    torch.testing.assert_close(whole, list(results(x[some], labels[some])), rtol=rtol, atol=0)


@by_engine
def synchronisation(device):
    """Forward and backward under torch.cuda.set_sync_debug_mode("error")."""
    _, noticed = attempted(without_waiting, torch.ones(1, device=device).item)
    problems = [] if noticed else ["so nothing would be"]
    yield Row("synchronisation", "Tensor.item() is noticed", {}, problems)
    yield from every_call(device, lambda *call: without_waiting(prepared(*call)[0]))


def without_waiting(run):
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode(before)


@by_engine
def memory(device):
    """Peak of cross_entropy, forward and backward, over the size of the logits."""
    for dtype, smoothing in (
        (torch.bfloat16, 0.0), (torch.bfloat16, 0.1), (torch.float32, 0.0), (torch.float32, 0.1)
    ):  # fmt: skip
        rows, classes = VOCABULARY
        torch.cuda.empty_cache()
        rows = min(rows, torch.cuda.mem_get_info()[0] // (8 * dtype.itemsize * classes))
        x = torch.randn(rows, classes, device=device, dtype=dtype, requires_grad=True)
        labels = torch.randint(classes, (rows,), device=device)
        cells = {}
        for name, function in (
            ("softmaxkit", softmaxkit.cross_entropy),
            ("torch", torch.nn.functional.cross_entropy),
        ):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            torch.autograd.grad(function(x, labels, label_smoothing=smoothing), x)
            cells[name] = (torch.cuda.max_memory_allocated() - before) / x.nbytes
        under = "peak memory over the logits, gradient included"
        yield Row(under, memory_row(dtype, (rows, classes), smoothing), cells)


def memory_row(dtype, shape, smoothing):
    return f"{name_of(dtype)}, {shown_shape(shape)}, smoothing {smoothing}"


@by_engine
def graphs(device):
    """Forward and backward in a CUDA graph, replayed on other values, against eager."""
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


@by_engine
def deterministic(device):
    """Under torch.use_deterministic_algorithms(True), two runs are equal to the last bit."""
    torch.use_deterministic_algorithms(True)
    try:
        yield from every_call(device, twice)
    finally:
        torch.use_deterministic_algorithms(False)


def twice(adapter, case, dtype):
    run, _ = prepared(adapter, case, dtype)
    try:
        first = run()
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        return f"refused: {str(error).split()[0]}"
    torch.testing.assert_close(first, run(), rtol=0, atol=0, equal_nan=True)
    return "passed"


def compiled(device):
    """Forward and backward under torch.compile(mode="reduce-overhead") against eager."""
    how, operations, dtypes = "reduce-overhead", COMPILED, DTYPES[:2]
    if device == "cpu":
        how, operations, dtypes = (
            "aot_eager, for a CPU has no CUDA graphs",
            COMPILED[:2],
            DTYPES[:1],
        )
    for case in calls(*SMALL):
        if case.name not in ("last axis", "labels") or case.operation not in operations:
            continue
        cells, problems = {}, []
        for dtype in dtypes:
            _, problem = attempted(compare_compiled, device, case, dtype)
            cells[dtype] = "failed" if problem else "passed"
            problems += [f"{dtype} {problem}"] if problem else []
        yield Row(f"torch.compile, {how}, {shown_shape(SMALL)}", str(case), cells, problems)


COMPILED = ("softmax", "cross_entropy", "log_softmax", "focal_loss", "linear_cross_entropy")


def compare_compiled(device, case, dtype):
    adapter = torch_on(device)
    arrays = [moved(adapter, array, dtype) for array in case.arrays]
    leaves = [array.requires_grad_() for array in arrays if array.is_floating_point()]
    cotangent = arrays[0].detach().clone() if case.operation in ACTIVATIONS else None
    function = partial(getattr(softmaxkit, case.operation), **case.options)

    def run(function):
        torch.compiler.cudagraph_mark_step_begin()
        value = function(*arrays)
        gradients = torch.autograd.grad(value, leaves, cotangent)
        return [one.detach().clone() for one in (value, *gradients)]

    expected = run(function)
    torch.compiler.reset()  # of one function Dynamo keeps only so many programs
    program = compile_for(device, function, "reduce-overhead")
    for _ in range(2):  # the first run warms up, the second records the graph
        run(program)
    for got, want in zip(run(program), expected, strict=True):
        # Inductor sums in another order, and rounds half precision in other places.
        rtol = 1e-5 if dtype == "float32" else 1.6e-2
        # Entries of softmax's derivative cancel.
        torch.testing.assert_close(got, want, rtol=rtol, atol=rtol * 0.1 * want.abs().max().item())


def every_call(device, check):
    adapter = torch_on(device)
    shape = LARGE if device == "cuda" else SMALL
    for case in calls(*shape):
        if case.raises and device == "cpu":
            continue  # refused there
        found = {dtype: attempted(check, adapter, case, dtype) for dtype in DTYPES}
        cells = {
            dtype: "failed" if problem else cell or "passed"
            for dtype, (cell, problem) in found.items()
        }
        problems = [f"{dtype} {problem}" for dtype, (_, problem) in found.items() if problem]
        yield Row(f"{adapter.name}, {shown_shape(shape)}", str(case), cells, problems)


def elsewhere(load, _device):
    """Return the accuracy there."""
    adapter, reason = attempted(load)
    if adapter is None:
        yield Row("", "accuracy", note=f"skipped: {reason}")
    else:
        yield from errors(adapter, SMALL, DTYPES[:2])

"""The races of gpu.py: times beside those of others, of a copy, and of the data sheets.

The contestants alternate, and who goes first changes from round to round. A time is that between
two CUDA events around a call, after the cache has been emptied: what a call costs where its logits
come from memory, the launch of its kernels included where that takes longer. Nothing waits for the
device between rounds. Traffic is what an operation cannot do without: `PASSES` over the logits, or
the three products of a linear loss.
"""

from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from itertools import product
from math import prod
from time import perf_counter

import torch
from gpu_cases import Row, attempted, compile_for, engines
from torch.nn import functional

import softmaxkit
from softmaxkit import _palette
from softmaxkit._commands import save_picture
from softmaxkit.bench.results import COPY, OURS, Cell, Result, shown_shape

SHAPES = ((8192, 128256), (8192, 32768), (8192, 1000), (65536, 10))
LINEAR_SHAPE = (8192, 4096, 128256)  # rows, width, classes
DRY_SHAPES, DRY_LINEAR_SHAPE = ((16, 1000), (256, 10)), (64, 32, 1000)
DTYPES = ("bfloat16", "float32")
ROUNDS, DRY_ROUNDS, WARM_UP = 30, 2, 3
CACHE = 256 << 20  # bytes; more than the cache of any GPU

# Readings and writings of an array as large as the logits, at least. Between the forward and the
# backward of a loss stands the sum over a row, and its logits do not fit into the cache.
PASSES = {
    COPY: 2,
    "cross_entropy": 1,
    "cross_entropy_grad": 3,  # read, read, write
    "softmax_grad": 5,  # read, write; read the result and the cotangent, write
    "log_softmax_grad": 5,
}
# Bytes and bfloat16 operations (without sparsity) per second, of NVIDIA's data sheets.
CARDS = {"H100 SXM": (3.35e12, 989e12), "H200": (4.8e12, 989e12)}
AS_THE_COPY = "predicted from the copy"


def races(device):
    """Return the cells to be measured, those of the goals first."""
    shapes, linear, dtypes = SHAPES, LINEAR_SHAPE, DTYPES
    if device == "cpu":
        shapes, linear, dtypes = DRY_SHAPES, DRY_LINEAR_SHAPE, DTYPES[:1]
    for operation in (
        "cross_entropy_grad", "linear_cross_entropy_grad", "cross_entropy", "softmax_grad",
        "log_softmax_grad",
    ):  # fmt: skip
        if operation.startswith("linear"):
            yield cell_of(operation, "bfloat16", linear)
        else:
            for dtype, shape in product(dtypes, shapes):
                yield cell_of(operation, dtype, shape)


def cell_of(operation, dtype, shape):
    return Cell("torch", dtype, "eager", operation, shape)


def title(cell):
    what = "forward and backward" if cell.operation.endswith("_grad") else "forward"
    name = cell.operation.removesuffix("_grad")
    return f"{name}, {what}, {cell.dtype}, {shown_shape(cell.shape)}"


# --- what a call has to move and to compute -------------------------------------------------------
def work(cell, operation):
    """Return the bytes and the operations that cannot be avoided."""
    if cell.operation.startswith("linear"):
        return 0, 6 * prod(cell.shape)  # three products; the bytes take a fraction of their time
    return PASSES[operation] * prod(cell.shape) * getattr(torch, cell.dtype).itemsize, 0


def predicted_seconds(cell, card):
    """Return what the cell takes on a card at the rates of its data sheet."""
    moved, computed = work(cell, cell.operation)
    bandwidth, rate = CARDS[card]
    return moved / bandwidth + computed / rate


# --- the contestants ------------------------------------------------------------------------------
def contestants(cell, device):
    """Return functions that make the contestants, and raise an error where there is none."""
    operation = cell.operation.removesuffix("_grad")
    ours = getattr(softmaxkit, operation)
    found = {name: lambda: ours for name in ours_by_engine(device)}
    if operation in ("softmax", "log_softmax"):
        found["torch"] = lambda: partial(getattr(functional, operation), dim=-1)
        if operation == "softmax":
            found["quack"] = lambda: import_module("quack").softmax
    elif operation == "cross_entropy":
        found["softmaxkit, compiled"] = lambda: compile_for(device, ours)
        found["torch"] = lambda: functional.cross_entropy
        found["torch, compiled"] = lambda: compile_for(device, functional.cross_entropy)
        found["Liger"] = lambda: liger().liger_cross_entropy
        found["quack"] = lambda: import_module("quack").cross_entropy
    else:
        found["torch"] = lambda: (
            lambda h, w, y: functional.cross_entropy(functional.linear(h, w), y)
        )
        found["torch, chunked"] = torch_chunked
        found["Liger"] = lambda: liger().liger_fused_linear_cross_entropy
    return found


def ours_by_engine(device):
    """Return the engines by what softmaxkit is called with each; the first is its own choice."""
    first, *others = engines(device).items()
    return {OURS: first[1]} | {f"softmaxkit, {name}": engine for name, engine in others}


def liger():
    return import_module("liger_kernel.transformers.functional")


def torch_chunked():
    options = torch.nn.LinearCrossEntropyOptions()  # from torch 2.13 on
    return partial(functional.linear_cross_entropy, options=options)


def call_of(function, arrays, cotangent, backward):
    """Return the call that is timed; without a backward nothing is kept for one."""
    if not backward:
        constants = [array.detach() for array in arrays]
        return lambda: (function(*constants),)
    leaves = [array for array in arrays if array.requires_grad]
    return lambda: torch.autograd.grad(function(*arrays), leaves, cotangent)


@contextmanager
def written_anew(x, source):
    """Liger writes the gradient over its logits: it has a copy, written anew before each call."""
    with torch.no_grad():
        x.copy_(source)
    yield


def inputs(cell, device):
    generator = torch.Generator(device).manual_seed(0)
    *sizes, classes = cell.shape
    dtype = getattr(torch, cell.dtype)
    shapes = [cell.shape]
    if len(sizes) == 2:
        shapes = [(sizes[0], sizes[1]), (classes, sizes[1])]
    arrays = [torch.randn(s, dtype=dtype, device=device, generator=generator) for s in shapes]
    if len(sizes) == 2:
        arrays[1] /= sizes[1] ** 0.5
    if "cross_entropy" in cell.operation:
        labels = torch.randint(classes, sizes[:1], device=device, generator=generator)
        return [*(array.requires_grad_() for array in arrays), labels], None
    return [arrays[0].requires_grad_()], torch.randn_like(arrays[0])


def prepared(cell, device):
    """Return the contestants that run and agree with ours, and why the others do not race.

    Each is a call, and a context that is entered before the clock starts.
    """
    if device == "cuda":
        torch.cuda.empty_cache()
    torch.compiler.reset()  # of one function Dynamo keeps only so many programs
    arrays, cotangent = inputs(cell, device)
    arounds = ours_by_engine(device)
    ready, failed, expected = {}, {}, None
    if not cell.operation.startswith("linear"):
        ready[COPY] = arrays[0].detach().clone, nullcontext

    def contestant(name, make):
        around, own = arounds.get(name, nullcontext), arrays
        if name == "Liger" and cell.operation.startswith("cross_entropy"):
            own = [arrays[0].detach().clone().requires_grad_(), arrays[1]]
            around = partial(written_anew, own[0], arrays[0])
        call = call_of(make(), own, cotangent, cell.operation.endswith("_grad"))
        for _ in range(WARM_UP):
            with around():
                got = call()
        some = [one.detach().reshape(-1)[: 1 << 20].float() for one in got]
        for one, ours in zip(some, expected or some, strict=True):
            # Some round to half precision in between; that it is the same loss, this shows.
            atol = 0.01 * ours.abs().max().item()
            torch.testing.assert_close(one, ours, rtol=0.1, atol=atol)
        return call, around, some

    for name, make in contestants(cell, device).items():
        found, reason = attempted(contestant, name, make)
        if found is None:
            failed[name] = reason
            continue
        *ready[name], some = found
        if name == OURS:
            expected = some
    return ready, failed


# --- the clock ------------------------------------------------------------------------------------
def race(cell, device):
    """Measure a cell: the seconds of each contestant in each round, or why there are none."""
    ready, failed = prepared(cell, device)
    rounds = ROUNDS if device == "cuda" else DRY_ROUNDS
    cache = torch.empty(CACHE if device == "cuda" else 0, dtype=torch.int8, device=device)
    marks = {name: [] for name in ready}
    names = list(ready)
    for i in range(rounds):
        for name in (*names[i % len(names) :], *names[: i % len(names)]):
            call, around = ready[name]
            with around():
                cache.zero_()
                start = mark(device)
                call()
                marks[name].append((start, mark(device)))
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = {name: [between(*pair) for pair in pairs] for name, pairs in marks.items()}
    return Result(cell, seconds, failed=failed)


def mark(device):
    if device == "cpu":
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def between(start, end):
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1e3


# --- rows -----------------------------------------------------------------------------------------
def times(device):
    """Milliseconds and useful traffic beside torch, torch.compile, Liger, quack and a copy."""
    for cell in races(device):
        result, reason = attempted(race, cell, device)
        if result is None:
            yield not_measured(title(cell), "all of it", reason, is_ours=True)
        else:
            yield from rows_of(result)


def rows_of(result):
    under = title(result.cell)
    for name in result.seconds:
        operation = COPY if name == COPY else result.cell.operation
        shown = cells(result, operation, result.time(name))
        yield Row(under, name, shown | {"spread": f"{result.spread(name):.0%}"})
    for name, reason in result.failed.items():
        yield not_measured(under, name, reason, is_ours=name.startswith(OURS))
    bandwidth = work(result.cell, COPY)[0] / (result.time(COPY) or 1)
    if bandwidth:
        seconds = work(result.cell, result.cell.operation)[0] / bandwidth
        shown = cells(result, result.cell.operation, seconds)
        yield Row(under, AS_THE_COPY, shown | {"spread": ""})
    for card in CARDS:
        shown = cells(result, result.cell.operation, predicted_seconds(result.cell, card))
        yield Row(under, f"predicted, {card}", shown | {"spread": ""})


def not_measured(under, name, reason, is_ours):
    """Say why; of ours that is a failure, unless the GPU is too small."""
    if is_ours and not reason.startswith(torch.OutOfMemoryError.__name__):
        return Row(under, name, problems=[reason])
    return Row(under, name, note=f"not measured: {reason}")


def cells(result, operation, seconds):
    moved, computed = work(result.cell, operation)
    rate = {"GB/s": moved / seconds / 1e9} if moved else {"TFLOP/s": computed / seconds / 1e12}
    ours = result.time(OURS)
    return {"ms": seconds * 1e3} | rate | ({"÷ ours": seconds / ours} if ours else {})


# --- the picture ----------------------------------------------------------------------------------
MARKS = {
    OURS: (_palette.BLUE, "o"),
    "softmaxkit, torch operations": (_palette.SKY_BLUE, "*"),
    "softmaxkit, compiled": (_palette.BLUE, "P"),
    "torch": (_palette.VERMILLION, "^"),
    "torch, compiled": (_palette.VERMILLION, "v"),
    "Liger": (_palette.GREEN, "s"),
    "quack": (_palette.PURPLE, "D"),
}


def draw(path, rows, about):
    """Draw each time over that which a copy's bandwidth predicts."""
    from matplotlib.figure import Figure

    predicted = {row.under: row.cells["ms"] for row in rows if row.name == AS_THE_COPY}
    tables = list(predicted)
    figure = Figure(figsize=(10, 1.8 + 0.3 * len(tables)), layout="constrained")
    axes = figure.subplots()
    for name, (colour, marker) in MARKS.items():
        found = [row for row in rows if row.name == name and row.under in predicted and row.cells]
        x = [row.cells["ms"] / predicted[row.under] for row in found]
        y = [tables.index(row.under) for row in found]
        if found:
            axes.plot(x, y, marker, color=colour, label=name, fillstyle="none", markersize=7)
    axes.set_xscale("log")
    axes.axvline(1, color=_palette.BLACK, linewidth=1)
    axes.set_yticks(range(len(tables)), tables)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("time ÷ time of the necessary traffic at the bandwidth of a copy")
    axes.xaxis.set_major_formatter("{x:g}")
    figure.suptitle(about)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    save_picture("--out", path, figure, dpi=120)

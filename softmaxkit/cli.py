"""The command line: ``softmaxkit info``, ``check``, ``demo``, ``calibrate`` and ``bench``."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import softmaxkit
from softmaxkit import conformance
from softmaxkit._commands import CommandError
from softmaxkit._libraries import import_quietly, is_installed

app = typer.Typer(no_args_is_help=True, add_completion=False, help=softmaxkit.__doc__)


@contextmanager
def _refusals(command: str) -> Iterator[None]:
    """Print why a command does not run, in one line, and exit."""
    try:
        yield
    except CommandError as error:
        typer.echo(f"{command}: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


# --- info -----------------------------------------------------------------------------------------
def _torch_devices(torch: Any) -> list[str]:
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def _jax_devices(jax: Any) -> list[str]:
    return [f"{device.platform}:{device.id}" for device in jax.devices()]


def _tensorflow_devices(tf: Any) -> list[str]:
    devices = tf.config.list_logical_devices()
    return [device.name.removeprefix("/device:").lower() for device in devices]


def _cupy_devices(cupy: Any) -> list[str]:
    return [f"cuda:{i}" for i in range(cupy.cuda.runtime.getDeviceCount())]


def _mlx_devices(mx: Any) -> list[str]:
    return [device.type.name for device in mx.__array_namespace_info__().devices()]


def _cpu(module: Any) -> list[str]:
    return ["cpu"]


# Module, name, the backend that serves it, its devices, its default float.
_LIBRARIES: list[tuple[str, str, str, Callable[[Any], list[str]], Callable[[Any], Any]]] = [
    ("numpy", "NumPy", "numpy", _cpu, lambda np: np.zeros(()).dtype),
    ("torch", "PyTorch", "torch", _torch_devices, lambda torch: torch.get_default_dtype()),
    ("jax", "JAX", "jax", _jax_devices, lambda jax: jax.numpy.zeros(()).dtype),
    (
        "tensorflow",
        "TensorFlow",
        "tensorflow",
        _tensorflow_devices,
        lambda tf: tf.constant(0.0).dtype.name,
    ),
    ("array_api_strict", "array-api-strict", "array_api", _cpu, lambda xp: xp.zeros(()).dtype),
    ("dask", "Dask", "array_api", _cpu, lambda dask: "float64"),
    ("mlx.core", "MLX", "array_api", _mlx_devices, lambda mx: mx.zeros(()).dtype),
    ("cupy", "CuPy", "array_api", _cupy_devices, lambda cupy: cupy.zeros(()).dtype),
    ("array_api_compat", "array-api-compat", "", lambda compat: [], lambda compat: ""),
]


@app.command()
def info() -> None:
    """Show which array libraries are installed: version, devices, default float, backend."""
    table = Table(
        title=f"softmaxkit {softmaxkit.__version__}, "
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    for column in ("library", "version", "devices", "default float", "backend"):
        table.add_column(column, overflow="fold")
    for name, label, backend, devices, default_float in _LIBRARIES:
        if not is_installed(name):
            table.add_row(label, "not installed", style="dim")
            continue
        try:
            module = import_quietly(name)
            row = (
                module.__version__,
                ", ".join(devices(module)),
                str(default_float(module)).removeprefix("torch.").rpartition(".")[2],
            )
        except Exception as broken:  # a damaged installation of one must not hide the others
            table.add_row(label, f"does not work: {type(broken).__name__}: {broken}", style="red")
            continue
        table.add_row(label, *row, backend)
    Console().print(table)


# --- check ----------------------------------------------------------------------------------------
@app.command()
def check(
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="numpy, torch, jax, tensorflow, array_api_strict, dask, mlx, or "
            "package.module:adapter; may be repeated. Default: all that are installed.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Floating dtype under test.")] = "float32",
    transform: Annotated[
        str, typer.Option(help="eager, or what a backend offers: jit, torch.compile, XLA ...")
    ] = "eager",
    every: Annotated[
        bool, typer.Option("--every", help="Every dtype and every transform of each backend.")
    ] = False,
) -> None:
    """Run the conformance suite; show the largest error by operation and backend."""
    adapters = [_adapter(name, dtype, transform) for name in backend or conformance.names()]
    runs = {a.name: conformance.settings(a) if every else [(dtype, transform)] for a in adapters}
    cases = list(conformance.cases())
    results: dict[tuple[str, str], list[conformance.Result]] = defaultdict(list)
    errors: list[str] = []
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    not_run: Counter[tuple[str, str]] = Counter()
    progress = Progress(
        TextColumn("{task.description:>28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )
    with progress:
        for adapter, (dtype, transform) in ((a, run) for a in adapters for run in runs[a.name]):
            setting = f"{adapter.name} {dtype} {transform}"
            for case in progress.track(cases, description=setting):
                reason = adapter.leaves_out(case, transform)
                if reason:
                    not_run[f"{adapter.name} {transform}", reason] += 1
                    continue
                try:
                    ran = list(conformance.run_case(adapter, case, dtype, transform))
                except Exception as error:  # a case that raises must not hide the others
                    reason = str(error).partition("\n")[0]
                    errors.append(f"{setting} {case}: {type(error).__name__}: {reason}")
                    counts[adapter.name, f"{dtype} {transform}"][f"{case.operation} ran"] += 1
                    continue
                results[adapter.name, case.operation] += ran
                passed = sum(one.passed for one in ran)
                counts[adapter.name, f"{dtype} {transform}"] += Counter(
                    {f"{case.operation} ran": len(ran), case.operation: passed}
                )
                errors += [
                    f"{setting} {case}, {one.what}: {one.problem}" for one in ran if not one.passed
                ]
    console = Console()
    setting = "every dtype and transform" if every else f"{dtype}, {transform}"
    for what in ("value", "gradient"):
        table = _table(f"Largest error of the {what} in {setting}: ULP, ordinary / saturated",
                       "operation", adapters)  # fmt: skip
        for operation in conformance.OPERATIONS:
            rows = [_worst(results[a.name, operation], what) for a in adapters]
            if any(rows):
                table.add_row(operation, *rows)
        console.print(table)
    console.print("A row is saturated where one class dominates.")
    if every:
        _print_counts(counts)
    lacking = Table("library", "not run", "reason", title="What a library lacks")
    for adapter in adapters:
        for meaning, reason in adapter.not_compared.items():
            lacking.add_row(adapter.name, meaning, reason)
    for (transform, reason), number in not_run.items():
        lacking.add_row(transform, f"{number} cases", reason)
    if lacking.rows:
        console.print(lacking)
    total = sum(map(len, results.values()))
    for line in errors:
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{total} checks of {len(cases)} cases, {len(errors)} failed", highlight=False)
    if errors or not total:
        raise typer.Exit(1)


def _print_counts(counts: dict[tuple[str, str], Counter[str]]) -> None:
    """Print how many checks of each operation passed in each setting; "of" how many, if fewer."""
    console = Console(width=max(Console().width, 136))  # nine operations
    for library in dict.fromkeys(library for library, _ in counts):
        table = Table(title=f"{library}: checks that passed")
        table.add_column("dtype, transform", no_wrap=True)
        for operation in conformance.OPERATIONS:
            table.add_column(operation.replace("_", " "), justify="right")
        for setting, numbers in ((s, n) for (name, s), n in counts.items() if name == library):
            cells = []
            for operation in conformance.OPERATIONS:
                passed, ran = numbers[operation], numbers[f"{operation} ran"]
                cells.append(
                    "-" if not ran else str(passed) if passed == ran else f"{passed} of {ran}"
                )
            table.add_row(setting, *cells)
        console.print(table)


def _table(title: str, first: str, adapters: list[conformance.Adapter]) -> Table:
    table = Table(first, title=title)
    for adapter in adapters:
        table.add_column(adapter.name, justify="right", overflow="fold")
    return table


def _adapter(name: str, dtype: str, transform: str) -> conformance.Adapter:
    try:
        adapter = conformance.load(name)
    except (ImportError, ValueError) as error:
        typer.echo(f"check: {error}", err=True)
        raise typer.Exit(2) from None
    for option, value, known in (
        ("--dtype", dtype, adapter.dtypes),
        ("--transform", transform, adapter.transforms),
    ):
        if value not in known:
            typer.echo(
                f"check: {option} is {value!r}, which {name} has not; expected one of "
                f"{', '.join(known)}; choose another, or other backends with --backend.",
                err=True,
            )
            raise typer.Exit(2)
    return adapter


def _worst(results: list[conformance.Result], what: str) -> str:
    def largest(saturated: bool) -> str | None:
        errors = [r.ulp for r in results if r.what == what and r.case.saturated is saturated]
        return f"{max(errors):.2g}" if errors else None

    return " / ".join(filter(None, (largest(False), largest(True))))


# --- demo -----------------------------------------------------------------------------------------
@app.command()
def demo(
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="numpy, torch, jax or tensorflow; may be repeated. "
            "Default: numpy and every installed framework.",
            show_default=False,
        ),
    ] = None,
    loss: Annotated[str, typer.Option(help="cross-entropy or focal.")] = "cross-entropy",
    label_smoothing: Annotated[float, typer.Option(help="Between 0 and 1.")] = 0.0,
    epochs: Annotated[int, typer.Option(help="Passes over the training digits.")] = 30,
    seed: Annotated[int, typer.Option(help="Of split, first weights and batches.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Of gradient descent.")] = 0.5,
    batch_size: Annotated[int, typer.Option(help="Digits per step.")] = 32,
    output: Annotated[Path, typer.Option(help="Where the picture goes (PNG).")] = Path(
        "softmaxkit-demo.png"
    ),
) -> None:
    """Train a softmax classifier of handwritten digits on every library, with the same result."""
    from softmaxkit.demo import run

    with _refusals("demo"):
        run(
            backend,
            loss=loss,
            label_smoothing=label_smoothing,
            epochs=epochs,
            seed=seed,
            learning_rate=learning_rate,
            batch_size=batch_size,
            output=output,
        )


# --- calibrate ------------------------------------------------------------------------------------
@app.command()
def calibrate(
    logits: Annotated[
        Path, typer.Argument(help="(rows, classes): .npy, .npz, .csv, .pt or .safetensors.")
    ],
    labels: Annotated[Path, typer.Argument(help="Class indices (rows), likewise.")],
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="LOGITS holds probabilities.")
    ] = False,
    bins: Annotated[int, typer.Option(help="Of the calibration error.")] = 15,
    binning: Annotated[str, typer.Option(help="Bins of equal width or mass.")] = "width",
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Where a picture goes (PNG).")] = None,
    json: Annotated[Path | None, typer.Option(help="Where the numbers go.")] = None,
    save_temperature: Annotated[
        Path | None, typer.Option(help="Where the temperature goes, as a line of text.")
    ] = None,
) -> None:
    """Fit a temperature to held-out logits; show what their probabilities are worth with it."""
    from softmaxkit.calibrate import run

    with _refusals("calibrate"):
        run(
            logits,
            labels,
            probabilities=probabilities,
            bins=bins,
            binning=binning,
            seed=seed,
            picture=plot,
            json_file=json,
            temperature_file=save_temperature,
        )


# --- bench ----------------------------------------------------------------------------------------
@app.command()
def bench(
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="numpy, torch, jax or tensorflow; may be repeated. "
            "Default: numpy and every installed framework.",
            show_default=False,
        ),
    ] = None,
    operation: Annotated[
        list[str] | None,
        typer.Option(
            help="softmax, log_softmax, cross_entropy, cross_entropy_grad (forward and backward), "
            "cross_entropy_smoothing_grad, cross_entropy_probabilities_grad or focal_loss_grad; "
            "may be repeated. Default: all.",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="ROWSxCLASSES, such as 4096x4096; may be repeated. Axes after the second, as in "
            "8x21x256x256, are more rows. Default: eight shapes, tiny to large.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            help="float32, float64, float16 or bfloat16; may be repeated. Default: float32.",
            show_default=False,
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            help="eager, jit, tf.function or XLA; may be repeated. Default: all of a library.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="The median of how many, at least 7. Default: 9, with --linear 3.",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two operations, three small shapes: half a minute.")
    ] = False,
    linear: Annotated[
        bool,
        typer.Option(
            "--linear",
            help="linear_cross_entropy, forward and backward, beside the loss of all the logits at "
            "once. --operation: linear_cross_entropy_grad, linear_cross_entropy_smoothing_grad or "
            "linear_cross_entropy_rows_grad (not reduced); --shape: ROWSxWIDTHxCLASSES; --rounds: "
            "at least 1.",
        ),
    ] = False,
    json: Annotated[
        Path | None, typer.Option(help="Where every round goes, as a file of pyperf.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="Where a picture goes (PNG).")] = None,
) -> None:
    """Measure speed and memory beside each library's own functions, on this machine."""
    from softmaxkit.bench.running import run

    with _refusals("bench"):
        run(
            backend,
            operations=operation,
            shapes=shape,
            dtypes=dtype,
            settings=setting,
            rounds=rounds,
            quick=quick,
            linear=linear,
            json_file=json,
            chart_file=chart,
        )

"""The command line: ``softmaxkit info``, ``check``, ``demo``, ``calibrate`` and ``bench``."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import softmaxkit
from softmaxkit._commands import INTERRUPTED, CommandError
from softmaxkit._libraries import import_quietly, is_installed
from softmaxkit._terminal import new_console, new_table, print_table, say

# Plain help: the one with boxes cuts long defaults where the terminal is narrow.
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@contextmanager
def _one_line(command: str) -> Iterator[None]:
    """Say in one line why a command does not run, or that Ctrl-C ended it, and exit."""
    try:
        yield
    except CommandError as error:
        typer.echo(f"{command}: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        typer.echo(f"{command}: interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"softmaxkit {softmaxkit.__version__}")
        raise typer.Exit


@app.callback()
def _softmaxkit(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Softmax and classification losses with one meaning on NumPy, PyTorch, JAX and TensorFlow."""


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
    ("dask", "Dask", "dask", _cpu, lambda dask: "float64"),
    ("mlx.core", "MLX", "array_api", _mlx_devices, lambda mx: mx.zeros(()).dtype),
    ("cupy", "CuPy", "array_api", _cupy_devices, lambda cupy: cupy.zeros(()).dtype),
    ("array_api_compat", "array-api-compat", "", lambda compat: [], lambda compat: ""),
]


@app.command()
def info() -> None:
    """Show which array libraries are installed.

    With version, devices, default float and backend.
    """
    with _one_line("info"):
        _show_libraries()


def _show_libraries() -> None:
    table = new_table(
        f"softmaxkit {softmaxkit.__version__}, "
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        ["library", "version", "devices", "default float", "backend"],
        prose=["devices"],
        left=5,
    )
    broken = []
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
        except Exception as error:  # a damaged installation of one must not hide the others
            table.add_row(label, "does not work", style="red")
            reason = str(error).partition("\n")[0]
            broken.append(f"{label} does not work: {type(error).__name__}: {reason}")
            continue
        table.add_row(label, *row, backend)
    console = new_console()
    print_table(console, table)
    for line in broken:
        say(console, line, style="red")


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
        str,
        typer.Option(help="eager, or what a backend offers: jit, torch.compile, XLA and others."),
    ] = "eager",
    every: Annotated[
        bool, typer.Option("--every", help="Every dtype and every transform of each backend.")
    ] = False,
) -> None:
    """Run the conformance suite: some minutes.

    Shows the largest error by operation and library. Ctrl-C shows what was found until then.
    """
    with _one_line("check"):
        from softmaxkit.check import run

        raise typer.Exit(run(backend, dtype=dtype, transform=transform, every=every))


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
    """Train a digit classifier on every library.

    With the same result, up to rounding; draws it.
    """
    with _one_line("demo"):
        from softmaxkit.demo import run

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
    """Fit a temperature to held-out logits.

    Shows what their probabilities are worth without it and with it.
    """
    with _one_line("calibrate"):
        from softmaxkit.calibrate import run

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
            help="softmax, softmax_masked, log_softmax, cross_entropy, cross_entropy_grad (forward "
            "and backward), "
            "cross_entropy_smoothing_grad, cross_entropy_probabilities_grad or focal_loss_grad; "
            "may be repeated. Default: all.",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="ROWSxCLASSES, such as 4096x4096; may be repeated. Axes after the second, as in "
            "8x21x256x256, are more rows. Default: nine shapes, tiny to large.",
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
            help="eager, compile, jit, tf.function or XLA; may be repeated. "
            "Default: all of a library.",
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
        bool,
        typer.Option(
            "--quick", help="Two operations, three small shapes: half a minute for each library."
        ),
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
    """Measure speed and memory on this machine.

    Beside each library's own functions. Ctrl-C shows what was measured until then.
    """
    with _one_line("bench"):
        from softmaxkit.bench.running import run

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

"""The console script: what it says when something is missing, and `softmaxkit info`."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

import softmaxkit

FRAMEWORKS = ("torch", "jax", "tensorflow")
LABELS = {"numpy": "NumPy", "torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow"}


def backends_under_test():
    """Those that SOFTMAXKIT_BACKENDS names, there or not; else NumPy and what is installed."""
    named = os.environ.get("SOFTMAXKIT_BACKENDS")
    if named:
        return [name for name in LABELS if name in map(str.strip, named.split(","))]
    return [name for name in LABELS if find_spec(name)]


@pytest.fixture
def invoke():
    pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")
    from typer.testing import CliRunner

    from softmaxkit.cli import app

    return lambda *arguments: CliRunner().invoke(app, arguments)


def run_python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def forget(monkeypatch, *modules):
    """Make `modules` look as if they were not installed."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


# --- the entry point ------------------------------------------------------------------------------
@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_cli_extra_one_line_says_what_to_install(missing):
    if missing == "rich":
        pytest.importorskip("typer", reason="without typer, it is typer that is missed first")
    code = f"import sys; sys.modules[{missing!r}] = None; import softmaxkit.__main__ as m; m.main()"
    result = run_python("-c", code)
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "pip install 'softmaxkit[cli]'" in result.stderr


def test_a_character_that_the_terminal_lacks_is_replaced():
    pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")
    code = (
        "import softmaxkit.cli as cli, softmaxkit.__main__ as m; "
        "cli.app = lambda **_: print(chr(0x3A3), 'of 2'); m.main()"
    )
    result = run_python("-c", code, PYTHONIOENCODING="cp1252")
    assert (result.returncode, result.stdout, result.stderr) == (0, "? of 2\n", "")


def test_another_missing_module_is_not_blamed_on_the_extra():
    code = (
        "import sys; sys.modules['softmaxkit._libraries'] = None; "
        "import softmaxkit.__main__ as m; m.main()"
    )
    pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")
    result = run_python("-c", code)
    assert result.returncode == 1
    assert "ModuleNotFoundError" in result.stderr
    assert "softmaxkit._libraries" in result.stderr


def test_help_names_the_commands(invoke):
    result = invoke("--help")
    assert result.exit_code == 0
    assert "info" in result.stdout
    assert "demo" in result.stdout


def test_the_version(invoke):
    result = invoke("--version")
    assert (result.exit_code, result.output) == (0, f"softmaxkit {softmaxkit.__version__}\n")


def test_without_a_command_it_shows_them(invoke):
    result = invoke()
    assert result.exit_code == 2
    for command in ("info", "check", "demo", "calibrate", "bench"):
        assert f" {command} " in result.output


def test_an_unknown_command_is_named(invoke):
    result = invoke("frobnicate")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "frobnicate" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["", "info", "check", "demo", "calibrate", "bench"])
@pytest.mark.parametrize("columns", [60, 80])
def test_help_fits_the_terminal(command, columns):
    pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")
    from typer.testing import CliRunner

    from softmaxkit.cli import app

    arguments = [*command.split(), "--help"]
    text = CliRunner().invoke(app, arguments, terminal_width=columns).stdout
    assert text.startswith("Usage: ")
    assert max(map(len, text.splitlines())) <= columns
    assert "…" not in text
    assert "..." not in text.replace("[ARGS]...", "")


def test_an_interrupted_start_is_one_line():
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'softmaxkit.cli': raise KeyboardInterrupt\n"
        "import softmaxkit.__main__ as m\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "m.main()"
    )
    result = run_python("-c", code)
    assert result.returncode == 130
    assert (result.stdout, result.stderr) == ("", "softmaxkit: interrupted.\n")


def test_what_an_encoding_has_not_is_no_error():
    pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")
    code = (
        "import softmaxkit.__main__ as m, softmaxkit.cli\n"
        "softmaxkit.cli.app = lambda **_: print('5 \\xb5s')\n"
        "m.main()"
    )
    result = run_python("-c", code, PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stdout) == (0, "5 ?s\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_the_demo_without_a_traceback_or_half_a_picture(tmp_path):
    for module in ("typer", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason="the demo needs it: pip install '.[demo]'")
    code = (
        "import signal\n"
        # What a shell starts in the background ignores it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from softmaxkit import demo\n"
        "def trainer(task):\n"
        "    signal.raise_signal(signal.SIGINT)\n"  # in this thread: os.kill may take another
        "    yield\n"
        "demo.TRAINERS['numpy'] = trainer\n"
        "from softmaxkit.__main__ import main\n"
        "main()"
    )
    picture = tmp_path / "picture.png"
    result = run_python("-c", code, "demo", "--backend", "numpy", "--output", str(picture))
    assert result.returncode == 130
    assert (result.stdout, result.stderr) == ("", "demo: interrupted.\n")
    assert not picture.exists()


def test_importing_the_command_line_and_the_demo_imports_no_framework():
    pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")
    code = "import sys, softmaxkit.cli, softmaxkit.demo; print(*sys.modules)"
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr
    assert not {*FRAMEWORKS, "sklearn", "matplotlib"} & set(result.stdout.split())


# --- info -----------------------------------------------------------------------------------------
def test_info_shows_what_is_installed_and_nothing_on_stderr():
    pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")
    result = run_python("-m", "softmaxkit", "info", COLUMNS="120")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    rows = {row.partition(" ")[0]: f"{row} " for row in result.stdout.splitlines()}
    for backend in backends_under_test():
        assert "not installed" not in rows[LABELS[backend]]
        assert f" {backend} " in rows[LABELS[backend]]
        assert "float" in rows[LABELS[backend]]
        assert sys.modules.get(backend) is None or (
            f" {sys.modules[backend].__version__} " in rows[LABELS[backend]]
        )


def test_info_says_what_is_not_installed(invoke, monkeypatch):
    forget(monkeypatch, *FRAMEWORKS, "array_api_strict", "dask", "mlx", "cupy")
    result = invoke("info")
    assert result.exit_code == 0
    assert result.stdout.count("not installed") == 7


def test_info_survives_a_library_that_cannot_be_imported(invoke, monkeypatch, tmp_path):
    forget(monkeypatch, "jax", "tensorflow", "array_api_strict", "dask", "mlx", "cupy")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('no libtorch.so')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    result = invoke("info")
    assert result.exit_code == 0
    assert "does not work: OSError: no libtorch.so" in result.stdout
    assert "NumPy" in result.stdout


def test_a_folder_of_that_name_is_not_an_installed_library(monkeypatch, tmp_path):
    from softmaxkit._libraries import is_installed

    (tmp_path / "no_library_of_this_name").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("no_library_of_this_name")


# --- demo: what it refuses before any work --------------------------------------------------------
REFUSED = {
    "unknown backend": (
        ["--backend", "cupy"],
        "demo: --backend is 'cupy'; expected one of numpy, torch, jax, tensorflow.",
    ),
    "unknown loss": (
        ["--loss", "hinge"],
        "demo: --loss is 'hinge'; expected cross-entropy or focal.",
    ),
    "smoothing above 1": (
        ["--label-smoothing", "1.5"],
        "demo: --label-smoothing is 1.5; expected 0 to 1.",
    ),
    "smoothing below 0": (
        ["--label-smoothing", "-0.1"],
        "demo: --label-smoothing is -0.1; expected 0 to 1.",
    ),
    "smoothing that is no number": (
        ["--label-smoothing", "nan"],
        "demo: --label-smoothing is nan; expected 0 to 1.",
    ),
    "no epochs": (["--epochs", "0"], "demo: --epochs is 0; expected at least 1."),
    "negative seed": (["--seed", "-1"], "demo: --seed is -1; expected 0 to 4294967295."),
    "no learning rate": (
        ["--learning-rate", "0"],
        "demo: --learning-rate is 0; expected a positive number.",
    ),
    "not a PNG": (
        ["--output", "picture.pdf"],
        "demo: --output is 'picture.pdf'; expected a name that ends in .png.",
    ),
    "no such folder": (
        ["--output", "no-such-folder/picture.png"],
        "demo: --output is 'no-such-folder/picture.png', which cannot be written: "
        "No such file or directory.",
    ),
}


@pytest.fixture
def untrained(monkeypatch):
    """Fail the test if anything is trained."""
    pytest.importorskip("rich", reason="the demo needs rich: pip install '.[cli]'")
    from softmaxkit import demo

    def trainer(task):
        pytest.fail("trained before the option was refused")

    for name in demo.TRAINERS:
        monkeypatch.setitem(demo.TRAINERS, name, trainer)


def assert_refused(result, line, exit_code):
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr == line + "\n"


@pytest.mark.parametrize(("arguments", "line"), REFUSED.values(), ids=REFUSED)
def test_demo_refuses_in_one_line(invoke, untrained, arguments, line):
    assert_refused(invoke("demo", *arguments), line, 2)


def test_demo_refuses_a_folder_as_output(invoke, untrained, tmp_path):
    folder = tmp_path / "folder.png"
    folder.mkdir()
    result = invoke("demo", "--output", str(folder))
    line = f"demo: --output is {str(folder)!r}, which cannot be written: Is a directory."
    assert_refused(result, line, 2)


@pytest.mark.parametrize("backend", FRAMEWORKS)
def test_demo_names_the_remedy_for_a_backend_that_is_not_installed(
    invoke, untrained, monkeypatch, backend
):
    forget(monkeypatch, backend)
    line = f"demo: --backend is {backend!r}, which is not installed; pip install {backend}"
    assert_refused(invoke("demo", "--backend", backend), line, 1)


@pytest.mark.parametrize(
    ("module", "package"), [("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")]
)
def test_demo_names_the_remedy_for_a_missing_package(
    invoke, untrained, monkeypatch, tmp_path, module, package
):
    from softmaxkit import demo

    # The other one may be missing too where these tests run.
    monkeypatch.setattr(demo, "is_installed", lambda name: name != module)
    output = tmp_path / "picture.png"
    result = invoke("demo", "--backend", "numpy", "--output", str(output))
    assert_refused(result, f"demo: {package} is not installed; pip install 'softmaxkit[demo]'", 1)
    assert not output.exists()

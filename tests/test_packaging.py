"""The sdist, and the wheel that is built from it: what is in them, what the wheel asks for.

It builds, which needs the network and the package `build`: `pytest -m packaging`.
"""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns(
    *(".git", ".nox", ".venv", ".*_cache", ".hypothesis"),
    *("build", "dist", "*.egg-info", "__pycache__"),
)


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    # From a copy: setuptools leaves build/ behind, and ships again what it finds there.
    source, dist = tmp_path_factory.mktemp("copy") / "softmaxkit", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, source, symlinks=True, ignore=NOT_SOURCE)
    # Without --wheel: an sdist from the source, and a wheel from that sdist.
    command = [sys.executable, "-m", "build", "--outdir", str(dist), str(source)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return dist


@pytest.fixture(scope="module")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def metadata(wheel, name):
    (path,) = (each for each in wheel.namelist() if each.endswith(f".dist-info/{name}"))
    return Parser().parsestr(wheel.read(path).decode())


def test_wheel_has_every_module_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "softmaxkit").rglob("*.py")}
    below = (path.relative_to(ROOT).as_posix() for path in (ROOT / "backends").rglob("*.py"))
    backends = {f"softmaxkit/{path}" for path in below}
    some = ("__init__", "numpy/__init__", "numpy/rows", "torch/blocks", "jax/rows")
    assert {f"softmaxkit/backends/{name}.py" for name in some} < backends
    assert {f"softmaxkit/conformance/{name}.py" for name in ("__init__", "reference")} < package
    assert names == package | backends | {"softmaxkit/py.typed"}


def test_wheel_has_the_licence(wheel):
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_wheel_runs_on_every_python_3(dist, wheel):
    (path,) = dist.glob("*.whl")
    assert path.name.endswith("-py3-none-any.whl")
    assert metadata(wheel, "WHEEL")["Tag"] == "py3-none-any"
    assert metadata(wheel, "WHEEL")["Root-Is-Purelib"] == "true"


def test_wheel_requires_numpy_and_array_api_compat_only(wheel):
    requires = metadata(wheel, "METADATA").get_all("Requires-Dist")
    always = {one for one in requires if "extra ==" not in one}
    assert {one.partition(">")[0] for one in always} == {"numpy", "array-api-compat"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    assert set(metadata(wheel, "METADATA").get_all("Provides-Extra")) == extras


def test_wheel_has_the_command(wheel):
    (path,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert "softmaxkit = softmaxkit.__main__:main" in wheel.read(path).decode()


def test_every_link_of_the_readme_is_absolute(wheel):
    """Those of README.md are relative: setup.py aims them at the files of this version."""
    text = metadata(wheel, "METADATA").get_payload()
    links = re.findall(r'(?:\]\(|src="|href=")([^)"]+)', text)
    assert any("/blob/v" in link for link in links)
    assert [link for link in links if not link.startswith("https://")] == []


def test_sdist_has_all_that_git_has(dist):
    """Its tests are run by the session `wheel`."""
    if not (ROOT / ".git").exists():
        pytest.skip("an unpacked sdist is no checkout")
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {one.name.partition("/")[2] for one in archive.getmembers() if one.isfile()}
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, encoding="utf-8",
    )  # fmt: skip
    tracked = set(filter(None, listed.stdout.split("\0")))
    tracked = {name for name in tracked if (ROOT / name).exists()}  # not yet deleted in a commit
    made = {name for name in files if name.startswith("softmaxkit.egg-info/")}
    assert files - made - {"PKG-INFO", "setup.cfg"} == tracked - {"softmaxkit/backends"}

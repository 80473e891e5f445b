import pkgutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import kao

ROOT = Path(__file__).parents[1]
SOURCE = Path(kao.__file__).parent
MODULES = [module.name for module in pkgutil.walk_packages([str(SOURCE)], "kao.")]

FEATURES = "kao/metrics/spaces/faces-1.safetensors"
"""Learned from drawings alone."""


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert kao.__version__ == project["version"]
    assert f"## {kao.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, kao; kao.__version__\n"
        "print({'torch', 'numpy', 'pydantic', 'PIL'} & set(sys.modules))\n"
        "kao.sample; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nTrue\n"


def test_every_public_name_is_there():
    for name in ["kao", *(name for name in MODULES if name != "kao.__main__")]:
        module = import_module(name)
        assert module.__doc__, name
        for public in getattr(module, "__all__", ()):
            assert getattr(module, public) is not None


def test_a_name_that_is_not_there_is_said_to_be_missing():
    with pytest.raises(AttributeError, match="module 'kao' has no attribute 'trian'"):
        kao.trian  # noqa: B018


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def names(folder, *patterns):
    files = (file for pattern in patterns for file in folder.rglob(pattern))
    return {file.relative_to(SOURCE.parent).as_posix() for file in files}


def test_the_wheel_holds_the_package_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        members = set(archive.namelist())
        (entry_points,) = (name for name in members if name.endswith("entry_points.txt"))
        assert "kao = kao.cli:main" in archive.read(entry_points).decode()
    there = {name for name in members if not name.split("/")[0].endswith(".dist-info")}
    assert there == names(SOURCE, "*.py", "*.toml", "*.css", "*.js", "py.typed") | {FEATURES}
    assert (SOURCE.parent / FEATURES).stat().st_size < 2_000_000
    assert "kao/config/recipes/faces-32.toml" in there
    assert {"kao/py.typed", "kao/reports/page.css", "kao/reports/page.js"} <= there


def test_what_the_wheel_holds_runs(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import kao, kao.cli\n"
        "assert kao.__file__.startswith(sys.argv[1])\n"
        "sys.exit(kao.cli.run(['train', 'toy', 'toy-32', '--dry-run']))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "# parameters: " in done.stdout


def test_the_sdist_holds_sources_and_no_data(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "tests/conftest.py", "Makefile"} <= members
    assert {f"src/{name}" for name in names(SOURCE, "*.py", "*.toml", "*.css", "*.js")} <= members
    data = {".zip", ".safetensors", ".pt", ".npz", ".npy", ".u8", ".jsonl", ".parquet"}
    assert {name for name in members if Path(name).suffix in data} == {f"src/{FEATURES}"}
    assert not {name for name in members if name.split("/")[0] in (".venv", "runs", "dist")}

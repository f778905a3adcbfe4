"""What ``pip install .`` delivers, and that what is written twice says the same."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from zs_operators.version import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there


@pytest.fixture(scope="module")
def sdist(checkout, tmp_path_factory) -> Path:
    """Unpacked: the folder that it holds."""
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"
    shutil.copytree(checkout, source)  # setuptools writes into the tree that it builds
    script = "from setuptools import build_meta; build_meta.build_sdist('..')"
    run([sys.executable, "-c", script], cwd=source)
    (built,) = folder.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        archive.extractall(folder, filter="data")
    return folder / built.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Built from the sdist, as pip does where it finds no wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    stale = sdist / "build" / "lib" / "zs_operators" / "dropped_in_this_version.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index"]
    run([*build, "--no-build-isolation", "-q", "-w", str(folder), str(sdist)], cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def tracked(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)) for path in files if path.suffix != ".pyc"}


def test_sdist_has_all_that_git_has(sdist, root):
    """So that its tests run, and its docs can be built."""
    if not (root / ".git").exists():
        pytest.skip("not a clone")
    listed = run(["git", "ls-files", "-z"], cwd=root).rstrip("\0").split("\0")
    there = {name for name in listed if (root / name).is_file()}
    assert there <= tracked(sdist)
    assert {"tests/test_docs.py", "tools/release.py", ".ci/run", "mkdocs.yml"} <= tracked(sdist)


def test_wheel_has_one_package_and_all_its_files(unpacked, checkout):
    metadata = f"zs_operators-{__version__}.dist-info"
    assert {path.name for path in unpacked.iterdir()} == {"zs_operators", metadata}
    built = {name for name in tracked(unpacked / "zs_operators") if not name.startswith("_plugin")}
    assert built == tracked(checkout / "zs_operators")
    assert "py.typed" in built
    assert (unpacked / metadata / "licenses" / "LICENSE").is_file()


def test_wheel_carries_the_plugin(unpacked, checkout):
    face = unpacked / "zs_operators" / "_plugin"
    for name in ("fiftyone.yml", "requirements.txt", "LICENSE"):
        assert (face / name).read_bytes() == (checkout / name).read_bytes()
    for folder in ("plugins", "assets"):
        assert tracked(face / folder) == tracked(checkout / folder)


def test_plugin_works_from_the_wheel(unpacked, tmp_path):
    """`pip install` and `zs install` are enough: no clone, no download."""
    environment = {
        **os.environ,
        "FIFTYONE_PLUGINS_DIR": str(tmp_path / "plugins"),
        "PYTHONPATH": str(unpacked),
    }
    script = (
        "from zs_operators.cli import main; assert main(['install']) == 0\n"
        "from fiftyone.operators.registry import OperatorRegistry\n"
        "import json, zs_operators\nregistry = OperatorRegistry()\n"
        "ours = [o.uri for o in registry.list_operators() if not o.builtin]\n"
        "print('\\n' + json.dumps([ours, registry.list_errors(), zs_operators.__file__]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours, errors, package = json.loads(done.stdout.splitlines()[-1])
    assert errors == []
    assert "@zs/operators/classify" in ours
    assert Path(package).is_relative_to(unpacked)
    link = tmp_path / "plugins" / "@zs" / "operators"
    assert link.resolve() == (unpacked / "zs_operators" / "_plugin").resolve()


def test_requirements_are_the_same_in_both_files(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = (root / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == project["dependencies"]


def test_manifest_agrees_with_the_package(root):
    manifest = yaml.safe_load((root / "fiftyone.yml").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert manifest["version"] == __version__
    assert manifest["license"] == project["license"]
    assert manifest["description"] == project["description"]
    assert (root / manifest["py_entry"]).is_file()
    (fiftyone,) = (line for line in project["dependencies"] if line.startswith("fiftyone"))
    assert fiftyone == "fiftyone" + manifest["fiftyone"]["version"]


def test_the_citation_is_of_this_version(root):
    """Its date is that of the release; a version that is not out yet has none."""
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert citation["version"] == __version__
    assert citation["license"] == project["license"]
    assert citation["keywords"] == project["keywords"]
    heading = rf"^## \[?{re.escape(__version__)}\]? - (\d{{4}}-\d\d-\d\d)$"
    released = re.search(heading, (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert str(citation.get("date-released")) == (released[1] if released else "None")


def test_the_version_is_written_in_few_places(root):
    """In version.py, and in what others read as data; the tests here compare those."""
    name = re.compile(rf"[\"']{re.escape(__version__)}[\"']")
    sources = [*root.glob("zs_operators/**/*.py"), *root.glob("plugins/**/*.py")]
    files = [*sources, root / "pyproject.toml", root / "setup.py", root / "Makefile"]
    found = {str(path.relative_to(root)) for path in files if name.search(path.read_text())}
    assert found == {"zs_operators/version.py"}


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_issues_ask_for_the_record_of_the_run(root, name):
    folder = root / ".github" / "ISSUE_TEMPLATE"
    text = (folder / f"{name}.yml").read_text()
    form = yaml.safe_load(text)
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert "zs doctor --json" in text
    assert "zs runs export DATASET RUN FILE" in text
    assert isinstance(yaml.safe_load((folder / "config.yml").read_text()), dict)


def test_constraints_fit_the_requirements(root):
    from packaging.requirements import Requirement

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    asked = {Requirement(line).name: Requirement(line) for line in project["dependencies"]}
    lines = (root / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert set(pins) == {"torch", "torchvision"}
    for name, version in pins.items():
        assert asked[name].specifier.contains(version)
    torch_minor, vision_minor = (int(pins[n].split(".")[1]) for n in ("torch", "torchvision"))
    assert vision_minor == torch_minor + 15  # how the two are numbered


def test_every_dependency_has_a_reason_in_contributing(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = project["dependencies"] + [line for extra in extras for line in extra]
    text = (root / "CONTRIBUTING.md").read_text()
    for line in lines:
        name = re.split(r"[\[<>=]", line)[0]
        assert f"`{name}`" in text, name


def test_installed_package_is_this_repository(root):
    """Else the tests would judge another copy than the one in front of you."""
    assert Path(importlib.util.find_spec("zs_operators").origin).is_relative_to(root)

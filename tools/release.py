"""``make release``: the sdist, the wheel that is built from it, and both tried.

The wheel goes into an environment of its own that borrows every other package from this one, so
trying it takes seconds and no network. ``make matrix`` is the slow way, with all of them anew.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_PACKED = (".*", "__pycache__", "build", "dist", "site", "*.egg-info")

#: Tests that take a second; that all of them are there is one of tests/test_packaging.py.
FEW_TESTS = ("test_structure.py", "test_boxes.py")

#: Imports every module of the package, and says from where.
IMPORTS = """
import importlib, pkgutil, zs_operators
names = [one.name for one in pkgutil.walk_packages(zs_operators.__path__, "zs_operators.")]
for name in names:
    importlib.import_module(name)
for name in zs_operators.__all__:
    getattr(zs_operators, name)
print(len(names), zs_operators.__file__)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--folder", default=str(ROOT / "dist"), help="where both go (dist/)")
    folder = Path(parser.parse_args().folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="zs-release-") as temporary:
        sdist = build_sdist(folder, Path(temporary))
        source = unpacked(sdist, Path(temporary) / "source")
        wheel = build_wheel(source, folder)
        check_metadata(sdist, wheel)
        try_wheel(wheel, source, Path(temporary))
        try_tests(source)
    print(f"release: {wheel.name} and {sdist.name} in {folder}/")
    return 0


def build_sdist(folder: Path, temporary: Path) -> Path:
    """Built from a copy: setuptools writes into what it builds."""
    copy = temporary / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_PACKED))
    for name in (".github",):  # the one hidden folder that belongs to the sources
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    _run("sdist", [sys.executable, "-c", build, str(folder)], copy)
    return next(folder.glob("*.tar.gz"))


def unpacked(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


def build_wheel(source: Path, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "wheel", "--no-deps"]
    pip += ["--no-index", "--no-build-isolation", "-w", str(folder), str(source)]
    _run("wheel", pip, source.parent)
    return next(folder.glob("*.whl"))


def check_metadata(*packages: Path) -> None:
    if importlib.util.find_spec("twine") is None:
        return
    check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, packages)]
    _run("twine", check, ROOT)


def try_wheel(wheel: Path, source: Path, temporary: Path) -> None:
    """What a person does first, in an environment that has nothing of this checkout."""
    environment, home = temporary / "environment", temporary / "home"
    home.mkdir()
    _run("venv", [sys.executable, "-m", "venv", "--without-pip", str(environment)], home)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    _run("pip", [*pip, "--python", str(python), "install", "--no-deps", str(wheel)], home)
    own = Path(_run("site", [str(python), "-c", _SITE], home).strip())
    # Only a folder: editable installations in it, ours too, are found by .pth files, not read here
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    zs = str(environment / "bin" / "zs")
    said = _run("zs --version", [zs, "--version"], home).split()
    _check(said == ["zs-operators", wheel.name.split("-")[1]], f"zs --version says {said}")
    _check("--scenes" in _run("zs demo", [zs, "demo", "--help"], home), "zs demo has no help")
    count, place = _run("imports", [str(python), "-c", IMPORTS], home).split(maxsplit=1)
    _check(Path(place.strip()).is_relative_to(own), f"imported from {place}")
    _run("zs install", [zs, "install"], home)
    link = home / "fiftyone" / "__plugins__" / "@zs" / "operators"
    _check(link.resolve() == (own / "zs_operators" / "_plugin").resolve(), f"{link} is no link")
    _run("smoke", [str(python), str(source / "tools" / "smoke.py")], home)
    print(f"release: {wheel.name} works: {count} modules, the plugin, one run of each task")


def try_tests(source: Path) -> None:
    """The sdist has its tests, and what they need: a few are run."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    files = [str(source / "tests" / name) for name in FEW_TESTS]
    said = _run("tests", [*pytest, *files], source)
    print(f"release: tests of the sdist: {said.strip().splitlines()[-1]}")


_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"


def _run(step: str, command: list[str], folder: Path) -> str:
    """Runs a command with ``folder`` as its working folder and home."""
    ours = ("FIFTYONE_", "ZS_", "PYTHON", "PIP_", "MAKE")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**variables, "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    _check(not done.returncode, f"{step}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"release: {what}")


if __name__ == "__main__":
    sys.exit(main())

"""``make matrix``: the package in fresh environments, with the oldest and newest it asks for.

Each environment is a virtual one with the wheel of this checkout, in which ``tools/smoke.py`` runs,
and is deleted before the next. The table goes into docs/compatibility.md.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- written by make matrix -->", "<!-- end -->"
PYTHONS = ("3.10", "3.11", "3.12")
SETS = ("lowest", "latest")
COLUMNS = ("fiftyone", "open_clip_torch", "torch", "numpy", "scikit-learn", "pillow")
NOT_FOUND = "this Python was not found"
SECONDS_A_STEP = 3600


@dataclass
class Row:
    """One environment and what became of it."""

    python: str
    which: str
    result: str
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--only", action="append", metavar="3.11-lowest", help="may be repeated")
    parser.add_argument(
        "--pin", action="append", default=[], metavar="NAME==VERSION", help="instead of its range"
    )
    parser.add_argument("--folder", help="where the environments are made (a temporary folder)")
    parser.add_argument("--no-page", action="store_true", help=f"do not write {PAGE.name}")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="zs-matrix-", dir=args.folder) as folder:
        wheel = _build(Path(folder))
        for python in PYTHONS:
            for which in SETS:
                if args.only and f"{python}-{which}" not in args.only:
                    continue
                rows.append(_tried(python, which, wheel, args.pin, Path(folder)))
                print(_table(rows[-1:]).splitlines()[-1], flush=True)
    print(_table(rows))
    if not args.no_page:
        _write_page(rows)
    return int(any(row.result not in ("passes", NOT_FOUND) for row in rows))


def _tried(python: str, which: str, wheel: Path, pins: list[str], folder: Path) -> Row:
    begun = time.monotonic()
    interpreter = _interpreter(python)
    if interpreter is None:
        return Row(python, which, NOT_FOUND)
    environment = folder / "environment"
    try:
        found = _smoke(interpreter, environment, _requirements(which, pins), wheel, folder)
        row = Row(found.pop("python"), which, "passes", found)
    except Failed as error:
        row = Row(python, which, str(error))
    finally:
        shutil.rmtree(environment, ignore_errors=True)
    row.seconds = time.monotonic() - begun
    return row


def _smoke(
    interpreter: str, environment: Path, requirements: list[str], wheel: Path, folder: Path
) -> dict[str, str]:
    """The versions that were installed, if everything works with them."""
    _run("venv", [interpreter, "-m", "venv", str(environment)])
    python = str(environment / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = [python, "-m", "pip", "-qq", "--no-input", "--cache-dir", str(folder / "cache")]
    _run("pip", [*pip, "install", "--upgrade", "pip", "setuptools", "wheel"])
    _run("pip", [*pip, "install", *requirements])
    _run("pip", [*pip, "install", "--no-deps", str(wheel)])
    doctor = [python, "-m", "zs_operators.doctor", "--fix", "--quiet", "--skip", "plugin"]
    _run("zs doctor", doctor)
    said = _run("smoke", [python, str(ROOT / "tools" / "smoke.py")])
    return json.loads(said.splitlines()[-1])


class Failed(Exception):
    """A step that did not work, in a line."""


def _run(step: str, command: list[str]) -> str:
    ours = ("FIFTYONE_", "ZS_", "PYTHON")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    try:
        done = subprocess.run(
            command,
            cwd=tempfile.gettempdir(),  # or the checkout would be imported in place of the wheel
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_A_STEP,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{step}: not done within {SECONDS_A_STEP} s") from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        print(said, file=sys.stderr, flush=True)
        errors = re.findall(r"^ERROR: (.*)$", said, re.MULTILINE) or said.splitlines()[-1:]
        raise Failed(f"{step}: {errors[0][:160]}")
    return done.stdout


def _build(folder: Path) -> Path:
    """The wheel of this checkout; built from a copy, as setuptools writes into what it builds."""
    source = folder / "source"
    ignore = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "docs")
    shutil.copytree(ROOT, source, ignore=ignore)
    pip = [sys.executable, "-m", "pip", "-qq", "--no-input"]
    _run("wheel", [*pip, "wheel", "--no-deps", "-w", str(folder), str(source)])
    shutil.rmtree(source)
    return next(folder.glob("*.whl"))


def _interpreter(version: str) -> str | None:
    """A Python of that version that runs: on PATH, or of pyenv."""
    pyenv = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    on_path = shutil.which(f"python{version}")
    installed = sorted(glob.glob(f"{pyenv}/versions/{version}.*/bin/python"), reverse=True)
    for candidate in filter(None, [on_path, *installed]):
        ask = [candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return candidate
    return None


def _requirements(which: str, pins: list[str]) -> list[str]:
    """What pyproject.toml asks for; of "lowest" each at the least version that it allows."""
    # requirements.txt is the same list, as a test holds, and needs no reader of TOML
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ranges = [line for line in lines if line and not line.startswith("#")]
    pinned = {re.split("[=<>]", pin)[0]: pin for pin in pins}
    found = []
    for line in ranges:
        name, least = re.match(r"([\w-]+)>=([\w.]+)", line).groups()
        found.append(pinned.get(name, f"{name}=={least}" if which == "lowest" else line))
    return found


def _table(rows: list[Row]) -> str:
    heads = ("Python", "set", *COLUMNS, "result", "seconds")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        versions = [row.versions.get(name, "–") for name in COLUMNS]
        cells = (row.python, row.which, *versions, row.result, f"{row.seconds:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _write_page(rows: list[Row]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    about = f"{date.today().isoformat()}, {platform.system()} {platform.machine()}:"
    PAGE.write_text(f"{before}{BEGIN}\n{about}\n\n{_table(rows)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

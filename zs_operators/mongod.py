"""A private MongoDB server: started on a free port, gone with the process that asked for it.

FiftyOne attaches to any FiftyOne-managed ``mongod`` that already runs and ignores
``FIFTYONE_DATABASE_DIR`` then, so only a server of its own and ``FIFTYONE_DATABASE_URI``, set
before ``import fiftyone``, keep tests, the demo and benchmarks away from a user's datasets.
Standard library only: this must work before the rest is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zs_operators.errors import MissingDependencyError, ZeroShotError

# The server ends when its owner's end of the pipe closes, however the owner died.
_WATCHED = 'exec 3<&0; "$@" </dev/null & p=$!; (cat <&3 >/dev/null; kill $p 2>/dev/null) & wait $p'


@dataclass(frozen=True, slots=True)
class PrivateMongod:
    """A running server. ``uri`` is what ``FIFTYONE_DATABASE_URI`` takes; ``dbpath`` its data."""

    uri: str
    port: int
    dbpath: Path
    log: Path


def mongod_in_fiftyone() -> Path | None:
    """Path of the ``mongod`` that FiftyOne itself would start, or None; imports no FiftyOne."""
    spec = importlib.util.find_spec("fiftyone")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder, "db", "bin", "mongod.exe" if os.name == "nt" else "mongod")
        if binary.is_file():
            return binary
    return None


def mongod_version(binary: str | Path, *, timeout_s: float = 20) -> str:
    """Version that ``binary --version`` prints, such as "6.0.5".

    Raises:
        MissingDependencyError: the binary is missing, does not run here, or hangs.
    """
    try:
        done = subprocess.run(
            [str(binary), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingDependencyError(f"{binary} does not run here: {error}") from error
    words = done.stdout.split()
    version = next((word[1:] for word in words if word[:1] == "v" and word[1:2].isdigit()), None)
    if done.returncode or version is None:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise MissingDependencyError(
            f"{binary} does not run here (exit status {done.returncode}): {lines[-1]}"
        )
    return version


def find_mongod() -> Path:
    """A ``mongod`` for a private server: FiftyOne's own, else the one on ``PATH``.

    Raises:
        MissingDependencyError: there is none, with the command that installs one.
    """
    binary = mongod_in_fiftyone() or shutil.which("mongod")
    if binary is None:
        raise MissingDependencyError(
            "No mongod found in fiftyone/db/bin or on PATH. Run `zs doctor --fix`."
        )
    return Path(binary)


@contextmanager
def start_private_mongod(
    dbpath: str | Path | None = None, *, binary: str | Path | None = None, timeout_s: float = 60
) -> Iterator[PrivateMongod]:
    """Start a ``mongod`` that only this process uses, and stop it at the end of the block.

    It listens on 127.0.0.1 on a port the system picks, and ends with this process even when this
    process is killed.

    Args:
        dbpath: folder of the data, made if missing and kept; None is a temporary one, deleted
            at the end.
        binary: the ``mongod`` to run; None is :func:`find_mongod`'s.
        timeout_s: seconds to wait for it to accept connections.

    Raises:
        MissingDependencyError: no ``mongod`` that can be executed.
        ZeroShotError: it ended or did not answer in time; the message quotes its last error.
    """
    binary = Path(binary) if binary is not None else find_mongod()
    temporary = dbpath is None
    folder = Path(tempfile.mkdtemp(prefix="zs-mongod-") if temporary else dbpath).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "mongod.log"
    command = [str(binary), "--dbpath", str(folder), "--port", "0", "--bind_ip", "127.0.0.1"]
    command += ["--wiredTigerCacheSizeGB", "0.5"]
    command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
    if os.name != "nt":
        command = ["/bin/sh", "-c", _WATCHED, "sh", *command, "--nounixsocket"]
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the owner, which then closes in order
            )
        try:
            port = _wait_for_port(process, log, binary, timeout_s)
            yield PrivateMongod(f"mongodb://127.0.0.1:{port}", port, folder, log)
        finally:
            _stop(process)
    finally:
        if temporary:
            shutil.rmtree(folder, ignore_errors=True)


def fiftyone_environment(
    uri: str, *, plugins_dir: str | Path | None = None, home: str | Path | None = None
) -> dict[str, str]:
    """Environment variables that keep FiftyOne inside a private server; set before its import.

    Args:
        uri: of the private server.
        plugins_dir: folder of plugins FiftyOne loads; None leaves the user's.
        home: folder that takes the place of the user's home: FiftyOne's configuration, datasets
            and downloads; None leaves it.
    """
    variables = {
        "FIFTYONE_DATABASE_URI": uri,
        "FIFTYONE_DATABASE_NAME": "fiftyone",
        "FIFTYONE_DATABASE_VALIDATION": "false",
        "FIFTYONE_DO_NOT_TRACK": "true",
    }
    if plugins_dir is not None:
        variables["FIFTYONE_PLUGINS_DIR"] = str(plugins_dir)
    if home is not None:
        variables["HOME"] = str(home)
        # Names of files that do not exist: a configuration of the user must not leak in.
        variables["FIFTYONE_CONFIG_PATH"] = str(Path(home, ".fiftyone", "config.json"))
        variables["FIFTYONE_APP_CONFIG_PATH"] = str(Path(home, ".fiftyone", "app_config.json"))
        variables["FIFTYONE_DEFAULT_DATASET_DIR"] = str(Path(home, "fiftyone"))
    return variables


def require_fiftyone_not_imported() -> None:
    """Raise ZeroShotError if it is too late to choose a database for this process."""
    if "fiftyone" in sys.modules:
        raise ZeroShotError(
            "FiftyOne is already imported, so its database can no longer be chosen. "
            "Start a new Python process."
        )


def _wait_for_port(process: subprocess.Popen, log: Path, binary: Path, timeout_s: float) -> int:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        ended = process.poll() is not None  # before reading, so that the last lines are seen
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines:
            if '"Waiting for connections"' in line:
                return int(json.loads(line)["attr"]["port"])
        if ended:
            reasons = [line for line in lines if '"s":"F"' in line or '"s":"E"' in line]
            reason = (reasons or lines or ["no output"])[-1]
            raise ZeroShotError(f"{binary} ended at once: {reason[:500]}. Run `zs doctor`.")
        time.sleep(0.02)
    raise ZeroShotError(f"{binary} accepted no connections within {timeout_s:g} s; see {log}.")


def _stop(process: subprocess.Popen) -> None:
    process.stdin.close()
    if os.name == "nt":
        process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9) if os.name != "nt" else process.kill()
        process.wait()

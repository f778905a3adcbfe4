"""``make audit``: bandit over the sources, pip-audit over what is installed.

bandit needs no network and may find nothing. pip-audit asks PyPI for advisories: a finding is a
failure, and a network that is not there a warning, for then nobody knows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = ("zs_operators", "plugins", "tools", "benchmarks", "setup.py")

#: Advisories that do not concern us, by id, with the reason.
ACCEPTED: dict[str, str] = {}

#: A release with advisories: a service that knows of none does not answer.
KNOWN_BAD = "jinja2==2.4.1"


def main() -> int:
    return 1 if not _sources_are_clean() or not _packages_are_clean() else 0


def _sources_are_clean() -> bool:
    command = [sys.executable, "-m", "bandit", "-q", "-c", "pyproject.toml", "-r", *SOURCES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr)
        return False
    print("audit: bandit finds nothing")
    return True


def _packages_are_clean() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.txt")
        probe.write_text(KNOWN_BAD + "\n", encoding="utf-8")
        answers, said = _advisories("-r", str(probe), "--no-deps", "--disable-pip")
    if not any(package.get("vulns") for package in answers or ()):
        print(f"audit: WARNING, advisories cannot be had here, no package was audited {said}")
        return True
    packages, said = _advisories("--skip-editable")
    if packages is None:
        print(f"audit: WARNING, no package was audited {said}")
        return True
    audited = [package for package in packages if "vulns" in package]
    found = [line for package in audited for line in _lines(package)]
    print(f"audit: {len(audited)} packages of {len(packages)} audited")
    for package in packages:
        if "skip_reason" in package:
            print(f"audit: not audited: {package['name']}: {package['skip_reason']}")
    print("".join(f"audit: {line}\n" for line in found), end="")
    return not found


def _advisories(*arguments: str) -> tuple[list[dict] | None, str]:
    """What pip-audit knows of each package, or None and its last line if it cannot know."""
    command = [sys.executable, "-m", "pip_audit", "-f", "json", "--progress-spinner", "off"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines() or ["no output"]
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, KeyError):
        return None, f"({lines[-1]})"


def _lines(package: dict) -> list[str]:
    return [
        f"{package['name']} {package['version']}: {one['id']}, mended in "
        f"{', '.join(one['fix_versions']) or 'no release yet'}"
        for one in package["vulns"]
        if not ACCEPTED.keys() & {one["id"], *one.get("aliases", ())}
    ]


if __name__ == "__main__":
    sys.exit(main())

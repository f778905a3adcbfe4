"""``zs doctor``: what is installed, what is missing, and the command that mends it.

Standard library only, so that it runs when nothing else does; ``python -m zs_operators.doctor`` is
the same command.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from zs_operators.checks import MISSING, OK, Check, check_all, shown_command


def mend(
    checks: Sequence[Check],
    *,
    execute: Callable[[Sequence[str]], int] | None = None,
    recheck: Callable[[], Sequence[Check]] = check_all,
) -> tuple[Check, ...]:
    """Run the fixes of all rows that are not ok, check again, and once more for what came up.

    Args:
        execute: runs one command and returns its exit status; None is a subprocess whose output
            is shown only when it fails.
    """
    execute = execute or _execute
    tried: set[tuple[tuple[str, ...], ...]] = set()
    for _ in range(3):  # a fix may uncover a row that could not be judged before
        pending = {check.fix for check in checks if check.state != OK and check.fix} - tried
        if not pending:
            break
        for fix in [check.fix for check in checks if check.fix in pending]:
            for command in fix:
                if execute(command) and not _may_fail(command):
                    break
        tried |= pending
        importlib.invalidate_caches()
        checks = recheck()
    return tuple(checks)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fix", action="store_true", help="run the commands that mend it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="print only what is not ok")
    parser.add_argument(
        "--skip", action="append", default=[], metavar="NAME", help="leave out a row (repeatable)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table. Returns 1 if a row is "missing", else 0."""
    checks = check_all(args.skip)
    if args.fix:
        checks = mend(checks, recheck=lambda: check_all(args.skip))
    if args.json:
        rows = [{**asdict(check), "remedy": check.remedy} for check in checks]
        print(json.dumps(rows, indent=2))
    else:
        _print_checks([check for check in checks if not (args.quiet and check.state == OK)])
    return int(any(check.state == MISSING for check in checks))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m zs_operators.doctor")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def _print_checks(checks: Sequence[Check]) -> None:
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        print(f"{check.state:<7}  {check.name:<{width}}  {check.detail}")
        if check.state != OK and check.remedy:
            print(f"{'':7}  {'':{width}}  mend: {check.remedy}")


def _may_fail(command: Sequence[str]) -> bool:
    return "cache" in command  # pip fails where there is nothing to remove from its cache


def _execute(command: Sequence[str]) -> int:
    print(f"doctor: {shlex.join(shown_command(command))}", file=sys.stderr, flush=True)
    done = subprocess.run(
        list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode and not _may_fail(command):
        print((done.stdout + done.stderr).strip(), file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

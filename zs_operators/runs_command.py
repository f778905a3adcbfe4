"""``zs runs``: list, look into, compare, delete, repeat and exchange the runs of a dataset."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import Any

from zs_operators import provenance
from zs_operators.errors import InvalidInputError
from zs_operators.task_commands import load_samples
from zs_operators.text_table import print_table


def add_runs_command(commands: Any) -> list[argparse.ArgumentParser]:
    """The command, added to the subparsers of ``zs``; returns the parsers of its actions."""
    command = commands.add_parser("runs", help="what runs left on a dataset")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")

    listing = _action(actions, "list", "the runs of a dataset, newest first", _list)
    listing.add_argument("--json", action="store_true", help="print JSON")

    show = _action(actions, "show", "all that is known of a run", _show)
    _run(show)
    show.add_argument("--json", action="store_true", help="print JSON")

    compare = _action(actions, "compare", "what changed from one run to another", _compare)
    _run(compare, "run_a")
    _run(compare, "run_b")
    compare.add_argument(
        "--iou", type=float, metavar="X", default=0.5, help="least overlap of the same object"
    )
    compare.add_argument("--save-view", metavar="NAME", help="save what changed as a view")
    compare.add_argument("--json", action="store_true", help="print JSON")

    delete = _action(actions, "delete", "forget a run", _delete)
    _run(delete)
    delete.add_argument("--fields", action="store_true", help="its labels and masks too")
    delete.add_argument("--yes", action="store_true", help="do not ask")

    rerun = _action(actions, "rerun", "do again what a run did", _rerun)
    _run(rerun)
    rerun.add_argument("--label-field", metavar="FIELD", help="write to another field")
    rerun.add_argument("--overwrite", action="store_true", help="replace labels")
    rerun.add_argument("--no-resume", action="store_true", help="compute all labels again")
    rerun.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another argument than that of the run, as JSON or text; may be repeated",
    )
    rerun.add_argument("--saved-view", metavar="NAME", help="only the samples of a saved view")
    rerun.add_argument("--limit", type=int, metavar="N", help="only the first N samples")
    rerun.add_argument("--quiet", action="store_true", help="no progress bar")
    rerun.add_argument("--json", action="store_true", help="print the report as JSON")

    stop = _action(actions, "stop", "end a run after its current chunk, wherever it runs", _stop)
    _run(stop)

    export = _action(actions, "export", "write the record of a run to a JSON file", _export)
    _run(export)
    export.add_argument("path", metavar="PATH", help="of the file, or a folder")
    export.add_argument("--overwrite", action="store_true", help="replace the file")

    importing = _action(actions, "import", "register a run that was exported", _import)
    importing.add_argument("path", metavar="PATH", help="of the file")
    importing.add_argument("--overwrite", action="store_true", help="replace a run of that key")
    return list(actions.choices.values())


def _action(actions: Any, name: str, what: str, run: Any) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=what)
    parser.add_argument("dataset", metavar="DATASET", help="name of a FiftyOne dataset")
    parser.set_defaults(run=run)
    return parser


def _run(parser: argparse.ArgumentParser, name: str = "run_name") -> None:
    metavar = "RUN" if name == "run_name" else name.upper()
    parser.add_argument(name, metavar=metavar, help="key of a run, or the field it wrote")


def _list(args: argparse.Namespace) -> int:
    dataset = load_samples(args.dataset)
    from zs_operators.run_history import runs
    from zs_operators.run_history.stored_run import day

    found = runs(dataset)
    if args.json:
        _print(json.dumps([run.to_dict() for run in found], indent=2))
        return 0
    rows = [("KEY", "TASK", "STATE", "STARTED", "MODEL", "SAMPLES")]
    for run in found:
        model = str(run.model.get("name", "-"))
        count = sum(run.counts.values()) if run.task != "evaluate" else 0
        rows.append((run.key, run.task, run.state, day(run), model, f"{count:,}" if count else "-"))
    print_table(rows)
    return 0


def _show(args: argparse.Namespace) -> int:
    run = _load(args, args.run_name)
    _print(json.dumps(run.to_dict(), indent=2) if args.json else str(run))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from zs_operators.run_history import compare_runs

    found = compare_runs(_load(args, args.run_a), _load(args, args.run_b), iou=args.iou)
    if args.save_view:
        dataset = found.run_a.dataset
        if args.save_view in dataset.list_saved_views():
            raise InvalidInputError(f"There is a saved view {args.save_view!r}: name another.")
        dataset.save_view(args.save_view, found.view())
    _print(json.dumps(found.to_dict(), indent=2) if args.json else str(found))
    return 0


def _delete(args: argparse.Namespace) -> int:
    from zs_operators.run_history import delete_run

    run = _load(args, args.run_name)
    what = f"{run.key}, and the labels and masks it wrote" if args.fields else run.key
    if not args.yes:
        if not sys.stdin.isatty():
            raise InvalidInputError(f"Nobody can be asked: pass --yes to delete {what}.")
        if input(f"Delete {what}? [y/N] ").strip().lower() not in ("y", "yes"):
            _print("Nothing was deleted.")
            return 0
    _print(str(delete_run(run, fields=args.fields)))
    return 0


def _rerun(args: argparse.Namespace) -> int:
    from zs_operators.run_history import rerun

    run = _load(args, args.run_name)
    samples = None
    if args.saved_view is not None or args.limit is not None:
        samples = load_samples(args.dataset, args.saved_view, args.limit)
    changes = dict(_pair(text) for text in args.set)
    changes |= {"label_field": args.label_field} if args.label_field else {}
    changes |= {"overwrite": True} if args.overwrite else {}
    changes |= {"resume": False} if args.no_resume else {}
    report = rerun(run, samples, progress=False if args.quiet else None, **changes)
    _print(json.dumps(report.to_dict(), indent=2) if args.json else str(report))
    return 0


def _stop(args: argparse.Namespace) -> int:
    from zs_operators.stopping import stop_run

    run = _load(args, args.run_name)
    if stop_run(run):
        _print(f"{run.key} stops after its current chunk.")
        return 0
    ended = "was killed" if run.state == provenance.RUNNING else f"is {run.state}"
    _print(f"{run.key} {ended}: there is nothing to stop.")
    return 1


def _export(args: argparse.Namespace) -> int:
    from zs_operators.run_history import export_run

    _print(str(export_run(_load(args, args.run_name), args.path, overwrite=args.overwrite)))
    return 0


def _import(args: argparse.Namespace) -> int:
    dataset = load_samples(args.dataset)
    from zs_operators.run_history import import_run

    _print(str(import_run(dataset, args.path, overwrite=args.overwrite)))
    return 0


def _load(args: argparse.Namespace, name: str) -> Any:
    dataset = load_samples(args.dataset)
    from zs_operators.run_history import load_run

    return load_run(dataset, name)


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip().replace("-", "_").isidentifier():
        raise InvalidInputError(f"--set {text!r} must be NAME=VALUE, such as min_margin=0.5.")
    with contextlib.suppress(ValueError):  # else it is plain text
        value = json.loads(value)
    return name.strip().replace("-", "_"), value


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")

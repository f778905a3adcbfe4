"""``zs sweep``: what thresholds keep of labels that are there, and applying them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from zs_operators.errors import InvalidInputError
from zs_operators.task_commands import load_samples

_BEST, _PER_CLASS = "best", "per-class"


def add_sweep_command(commands: Any) -> None:
    """The command, added to the subparsers of ``zs``."""
    parser = commands.add_parser("sweep", help="what other thresholds would keep of labels")
    parser.add_argument("dataset", metavar="DATASET", help="name of a FiftyOne dataset")
    parser.add_argument("label_field", metavar="FIELD", help="labels with stored scores")
    parser.add_argument("--by", default="confidence", help="confidence, cosine or margin")
    parser.add_argument("--gt-field", metavar="FIELD", help="ground truth to measure against")
    parser.add_argument("--eval-key", metavar="KEY", help="an evaluation of detections")
    parser.add_argument("--thresholds", type=int, metavar="N", default=21, help="how many to try")
    parser.add_argument("--saved-view", metavar="NAME", help="only the samples of a saved view")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N samples")
    parser.add_argument(
        "--apply", metavar="X", help="apply a threshold: a number, 'best', or 'per-class'"
    )
    parser.add_argument("--new-field", metavar="FIELD", help="write there what stays")
    parser.add_argument("--overwrite", action="store_true", help="allow losing labels")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from zs_operators.thresholds import apply_thresholds, sweep_thresholds

    samples = load_samples(args.dataset, args.saved_view, args.limit)
    sweep = sweep_thresholds(
        samples,
        args.label_field,
        args.by,
        args.gt_field,
        thresholds=args.thresholds,
        eval_key=args.eval_key,
    )
    done = None
    if args.apply is not None:
        done = apply_thresholds(
            samples,
            args.label_field,
            **{f"min_{args.by}": _threshold(args.apply, sweep)},
            new_field=args.new_field,
            overwrite=args.overwrite,
        )
    if args.json:
        applied = {} if done is None else {"applied": vars(done)}
        text = json.dumps({**sweep.to_dict(), **applied}, indent=2)
    else:
        per_class = {} if args.gt_field is None else sweep.best_per_class()
        lines = [f"{value:10.4f}  {label}" for label, value in per_class.items()]
        text = "\n".join([str(sweep), *lines, *([] if done is None else [str(done)])])
    sys.stdout.write(text + "\n")
    return 0


def _threshold(given: str, sweep: Any) -> Any:
    if given == _PER_CLASS:
        found = sweep.best_per_class()
    elif given == _BEST:
        best = sweep.best()
        found = None if best is None else best.threshold
    else:
        try:
            return float(given)
        except ValueError:
            raise InvalidInputError(
                f"--apply {given!r} must be a number, 'best' or 'per-class'."
            ) from None
    if not found:
        raise InvalidInputError("No label is right at any threshold: there is no best one.")
    return found

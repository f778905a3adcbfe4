"""``zs evaluate``: labels against ground truth; ``zs temperature``: confidences made honest."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from zs_operators.errors import InvalidInputError
from zs_operators.task_commands import load_samples

# Whatever is not given is left to the function's own defaults, written in one place only
_UNSET = argparse.SUPPRESS

#: What the command line has besides arguments of the function.
_NOT_ARGUMENTS = (
    "run",
    "rest",
    "traceback",
    "dataset",
    "saved_view",
    "limit",
    "json",
    "names",
    "rename",
    "seen_file",
    "vocabulary_file",
)


def add_evaluate_command(commands: Any) -> None:
    """The commands, added to the subparsers of ``zs``."""
    parser = _command(commands, "evaluate", "compare labels with ground truth")
    parser.add_argument("predictions", metavar="PREDICTIONS", help="field of the labels")
    parser.add_argument("ground_truth", metavar="GROUND_TRUTH", help="field of the truth")
    parser.add_argument("--eval-key", required=True, metavar="KEY", help="name of the evaluation")
    parser.add_argument("--overwrite", action="store_true", default=_UNSET)
    parser.add_argument(
        "--missing",
        choices=("skip", "wrong"),
        default=_UNSET,
        help="what samples without a prediction are",
    )
    names = parser.add_argument_group("names")
    names.add_argument("--names", choices=("auto", "exact"), help="how they are brought together")
    names.add_argument(
        "--rename",
        nargs="+",
        metavar="PREDICTED=TRUE",
        help="what predicted names count as",
    )
    names.add_argument("--roll-up", nargs="+", metavar="L", help="parent, top, or labels")
    names.add_argument(
        "--vocabulary-file", metavar="FILE", help="synonyms and parents, if no run has them"
    )
    split = parser.add_argument_group("classes with and without labelled examples")
    which = split.add_mutually_exclusive_group()
    which.add_argument("--seen", nargs="+", metavar="NAME", default=_UNSET)
    which.add_argument("--seen-file", metavar="FILE", help="one a line")
    split.add_argument("--gamma", type=float, metavar="X", default=_UNSET)
    parser.add_argument("--top-k", type=int, nargs="+", metavar="K", default=_UNSET)
    parser.add_argument("--num-bins", type=int, metavar="N", default=_UNSET, help="of reliability")
    boxes = parser.add_argument_group("boxes and masks")
    boxes.add_argument("--iou", type=float, metavar="X", default=_UNSET)
    boxes.add_argument("--iou-threshs", type=float, nargs="+", metavar="X", default=_UNSET)
    boxes.add_argument("--use-masks", action="store_true", default=_UNSET)
    boxes.add_argument("--no-map", dest="compute_mAP", action="store_false", default=_UNSET)
    parser.add_argument("--quiet", dest="progress", action="store_false", default=_UNSET)
    parser.set_defaults(run=_evaluate)

    parser = _command(commands, "temperature", "apply a temperature to stored confidences")
    parser.add_argument("label_field", metavar="FIELD", help="labels with confidences")
    parser.add_argument("temperature", metavar="T", help="a number, or the key of an evaluation")
    parser.add_argument("--source", choices=("logits", "confidences"))
    parser.add_argument("--new-field", metavar="FIELD", help="write there")
    parser.add_argument("--overwrite", action="store_true", help="allow replacing confidences")
    parser.set_defaults(run=_temperature)


def _command(commands: Any, name: str, what: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what)
    parser.add_argument("dataset", metavar="DATASET", help="name of a FiftyOne dataset")
    parser.add_argument("--saved-view", metavar="NAME", help="only the samples of a saved view")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N samples")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _evaluate(args: argparse.Namespace) -> int:
    from zs_operators.evaluation.running import evaluate

    samples = load_samples(args.dataset, args.saved_view, args.limit)
    options = {name: value for name, value in vars(args).items() if name not in _NOT_ARGUMENTS}
    if options["roll_up"] and options["roll_up"] in (["parent"], ["top"]):
        options["roll_up"] = options["roll_up"][0]
    if args.seen_file is not None:
        lines = _read(args.seen_file).splitlines()
        options["seen"] = [line.strip() for line in lines if line.strip()]
    if args.vocabulary_file is not None:
        options["vocabulary"] = Path(args.vocabulary_file)
    if args.rename is not None and args.names == "exact":
        raise InvalidInputError("--rename and --names exact exclude each other: leave one out.")
    if args.rename is not None or args.names is not None:
        options["names"] = args.names if args.rename is None else _renamed(args.rename)
    report = evaluate(samples, **options)
    _show(report.to_dict() if args.json else report)
    return 0


def _temperature(args: argparse.Namespace) -> int:
    from zs_operators.evaluation.temperature import apply_temperature

    samples = load_samples(args.dataset, args.saved_view, args.limit)
    try:
        temperature: float | str = float(args.temperature)
    except ValueError:
        temperature = args.temperature
    done = apply_temperature(
        samples,
        args.label_field,
        temperature,
        source=args.source,
        new_field=args.new_field,
        overwrite=args.overwrite,
    )
    _show(vars(done) if args.json else done)
    return 0


def _renamed(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, other = pair.partition("=")
        if not (name and equals and other):
            raise InvalidInputError(f"--rename {pair!r} must be PREDICTED=TRUE, as in sedan=car.")
        found[name] = other
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"--seen-file {path!r} cannot be read: {error}.") from None


def _show(content: Any) -> None:
    text = json.dumps(content, indent=2) if isinstance(content, dict) else str(content)
    sys.stdout.write(text + "\n")

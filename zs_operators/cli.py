"""The ``zs`` command. Each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from zs_operators.errors import InvalidInputError, MissingDependencyError, ZeroShotError
from zs_operators.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 (``doctor`` found something missing), 2 (bad input) or 130."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and not getattr(args, "passes_rest", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    if args.run is None:
        parser.print_help()
        return 0
    try:
        return args.run(args) or 0
    except ZeroShotError as error:
        if args.traceback or os.environ.get("ZS_DEBUG") not in (None, "", "0"):
            raise
        print(f"zs: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("zs: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(prog="zs", description="Zero-shot vision for FiftyOne.")
    parser.add_argument("--version", action="version", version=f"zs-operators {__version__}")
    parser.set_defaults(run=None, traceback=False)
    _add_traceback(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="label a synthetic dataset and evaluate it", add_help=False
    )
    demo.set_defaults(run=_demo, passes_rest=True)

    doctor = commands.add_parser(
        "doctor", help="what is installed, what is missing, how to mend it"
    )
    from zs_operators.doctor import add_arguments, run

    add_arguments(doctor)
    doctor.set_defaults(run=run)

    install = commands.add_parser("install", help="link the plugin into FiftyOne's plugin folder")
    install.add_argument("--copy", action="store_true", help="copy the files, do not link them")
    install.add_argument("--force", action="store_true", help="replace what is in the way")
    install.set_defaults(run=_install)

    uninstall = commands.add_parser("uninstall", help="remove what `zs install` made")
    uninstall.add_argument("--force", action="store_true", help="even if it was made otherwise")
    uninstall.set_defaults(run=_uninstall)

    models = commands.add_parser("models", help="the models that have a name here")
    models.add_argument("--kind", choices=("clip", "proposals", "sam"), help="only this kind")
    models.add_argument("--json", action="store_true", help="print JSON")
    models.set_defaults(run=_models)

    _add_classify(commands)
    for command in commands.choices.values():
        _add_traceback(command)
    return parser


def _add_traceback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--traceback",
        action="store_true",
        default=argparse.SUPPRESS,  # so that a command does not undo what stood before it
        help="show where an error came from",
    )


def _add_classify(commands) -> None:
    classify = commands.add_parser("classify", help="label the images of a dataset")
    classify.add_argument("dataset", metavar="DATASET", help="name of a FiftyOne dataset")
    which = classify.add_mutually_exclusive_group(required=True)
    which.add_argument("--classes", nargs="+", metavar="NAME", help="class names")
    which.add_argument("--classes-file", metavar="FILE", help="a .txt, .yaml or .json of classes")
    which.add_argument("--classes-field", metavar="FIELD", help="a label field that has them")
    samples = classify.add_argument_group("samples (default: the whole dataset)")
    samples.add_argument("--saved-view", metavar="NAME", help="only the samples of a saved view")
    samples.add_argument("--limit", type=int, metavar="N", help="only the first N samples")
    prompts = classify.add_argument_group("model and prompts")
    prompts.add_argument("--model", metavar="NAME", help="see `zs models`, or an architecture")
    prompts.add_argument("--weights", metavar="W", help="pretrained tag, local file or folder")
    prompts.add_argument(
        "--templates", nargs="+", metavar="T", help="none, simple, openai_imagenet, or your own"
    )
    prompts.add_argument("--background", nargs="+", metavar="TEXT", help="prompts of 'none'")
    prompts.add_argument("--temperature", type=float, metavar="T")
    output = classify.add_argument_group("what is written")
    output.add_argument("--label-field", metavar="FIELD", help="default: zs_classification")
    output.add_argument("--top-k", type=int, metavar="K")
    output.add_argument("--multi-label", action="store_true", default=None)
    output.add_argument("--min-confidence", type=float, metavar="P")
    output.add_argument("--min-margin", type=float, metavar="M")
    output.add_argument("--min-cosine", type=float, metavar="C")
    output.add_argument("--reject-label", metavar="NAME", help="label of rejected samples")
    output.add_argument("--store-logits", action="store_true", default=None)
    output.add_argument("--overwrite", action="store_true", default=None)
    output.add_argument("--no-resume", dest="resume", action="store_false", default=None)
    running = classify.add_argument_group("running")
    running.add_argument("--device", metavar="D", help="auto, cpu, cuda, cuda:1, mps")
    running.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"))
    running.add_argument("--batch-size", type=_batch_size, metavar="N")
    running.add_argument("--workers", type=int, metavar="N", help="threads that read images")
    running.add_argument("--on-error", choices=("record", "raise"))
    running.add_argument("--quiet", dest="progress", action="store_false", default=None)
    running.add_argument("--json", action="store_true", help="print the report as JSON")
    classify.set_defaults(run=_classify)


# Options of `zs classify` that are arguments of the function, by the same name; unset ones are
# left to the function's own defaults, which are written in one place only.
_CLASSIFY_OPTIONS = (
    "model",
    "weights",
    "templates",
    "background",
    "temperature",
    "label_field",
    "top_k",
    "multi_label",
    "min_confidence",
    "min_margin",
    "min_cosine",
    "reject_label",
    "store_logits",
    "overwrite",
    "resume",
    "device",
    "precision",
    "batch_size",
    "workers",
    "on_error",
    "progress",
)


def _classify(args: argparse.Namespace) -> int:
    samples = _load_samples(args.dataset, args.saved_view, args.limit)
    import zs_operators as zs

    if args.classes_file is not None:
        classes = Path(args.classes_file)
    elif args.classes_field is not None:
        classes = zs.class_names(samples, args.classes_field)
    else:
        classes = args.classes
    options = {name: getattr(args, name) for name in _CLASSIFY_OPTIONS}
    options = {name: value for name, value in options.items() if value is not None}
    templates = options.get("templates")
    if templates and len(templates) == 1 and "{}" not in templates[0]:
        options["templates"] = templates[0]  # the name of a set
    report = zs.classify(samples, classes, **options)
    print(json.dumps(report.to_dict(), indent=2) if args.json else report)
    return 0


def _load_samples(name: str, saved_view: str | None, limit: int | None):
    try:  # FiftyOne starts its database at import, or connects to one at the first query
        import fiftyone as fo

        names = fo.list_datasets()
    except Exception as error:
        raise MissingDependencyError(
            f"FiftyOne does not start ({type(error).__name__}: {error}). Run `zs doctor`."
        ) from error
    if name not in names:
        raise InvalidInputError(_unknown("dataset", name, names))
    samples = fo.load_dataset(name)
    if saved_view is not None:
        views = samples.list_saved_views()
        if saved_view not in views:
            raise InvalidInputError(_unknown(f"saved view of {name!r}", saved_view, views))
        samples = samples.load_saved_view(saved_view)
    if limit is not None:
        if limit < 1:
            raise InvalidInputError(f"--limit is {limit}; it takes 1 or more samples.")
        samples = samples.limit(limit)
    return samples


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=3) or sorted(known)[:5]
    have = f"Did you mean {', '.join(map(repr, near))}?" if near else "There is none yet."
    return f"There is no {what} {name!r}. {have}"


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _demo(args: argparse.Namespace) -> int:
    from zs_operators import demo

    return demo.main(args.rest)


def _install(args: argparse.Namespace) -> int:
    from zs_operators.install import install

    done, changed = install(copy=args.copy, force=args.force)
    arrow = f" -> {done.target}" if done.kind == "link" else ""
    verb = {"link": "Linked", "copy": "Copied"}.get(done.kind, "Found")
    print(f"{verb if changed else 'Already there:'} {done.path}{arrow}")
    if changed:
        print("An App that is open must be restarted to load it.")
    return 0


def _uninstall(args: argparse.Namespace) -> int:
    from zs_operators.install import plugins_dir, uninstall

    removed = uninstall(force=args.force)
    print(f"Removed {removed}" if removed else f"Nothing to remove in {plugins_dir()}")
    return 0


def _models(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from zs_operators.weights import models

    entries = models(args.kind)
    if args.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2, default=str))
        return 0
    rows = [("NAME", "KIND", "ARCHITECTURE", "WEIGHTS", "MB", "LICENCE")]
    for entry in entries:
        weights = "bundled" if entry.folder else entry.pretrained or "-"
        size = f"{entry.size_mb:.0f}" if entry.size_mb else "-"
        row = (entry.name, entry.kind, entry.architecture, weights, size, entry.licence or "?")
        rows.append(tuple(map(str, row)))
    print_table(rows)
    return 0


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in columns as wide as their longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    sys.exit(main())

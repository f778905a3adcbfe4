"""``zs fit-head`` and ``zs heads``: what labelled samples teach, and what was kept of it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from zs_operators.task_commands import load_samples

# Those of zs_operators.heads.selection, which takes long to import
_METHODS = ("auto", "kernel_ridge", "gda", "logistic_regression")
_GIVEN = ("model", "weights", "method", "device", "embeddings", "name")


def add_head_commands(commands: Any) -> None:
    """The commands, added to the subparsers of ``zs``."""
    fit = commands.add_parser("fit-head", help="sharpen classes with labelled samples")
    fit.add_argument("dataset", metavar="DATASET", help="name of a FiftyOne dataset")
    fit.add_argument("ground_truth", metavar="FIELD", help="Classification or Detections labels")
    fit.add_argument("--name", metavar="NAME", help="save the head with the dataset")
    fit.add_argument("--output", metavar="FILE", help="write it to a .safetensors file")
    which = fit.add_mutually_exclusive_group(required=True)
    which.add_argument("--classes", nargs="+", metavar="NAME", help="class names")
    which.add_argument("--classes-file", type=Path, metavar="FILE", help="a file of classes")
    which.add_argument("--classes-saved", metavar="NAME", help="a saved vocabulary")
    which.add_argument("--classes-field", metavar="FIELD", help="a label field that has them")
    fit.add_argument("--templates", nargs="+", metavar="T", help="a set, or your own")
    fit.add_argument("--background", nargs="+", metavar="TEXT", help="prompts of 'none'")
    fit.add_argument("--method", choices=_METHODS)
    fit.add_argument("--model", metavar="NAME", help="CLIP: see `zs models`, or an architecture")
    fit.add_argument("--weights", metavar="W", help="pretrained tag, local file or folder")
    fit.add_argument("--device", metavar="D", help="auto, cpu, cuda, mps …")
    fit.add_argument("--embeddings", choices=("off", "reuse", "refresh"))
    fit.add_argument("--tag", metavar="TAG", help="only the samples with this tag")
    fit.add_argument("--saved-view", metavar="NAME", help="only the samples of a saved view")
    fit.add_argument("--limit", type=int, metavar="N", help="only the first N samples")
    fit.add_argument("--overwrite", action="store_true", help="replace a head of that name")
    fit.add_argument("--quiet", action="store_true", help="show no progress")
    fit.add_argument("--json", action="store_true", help="print the report as JSON")
    fit.set_defaults(run=_fit)

    heads = commands.add_parser("heads", help="the heads saved with a dataset")
    heads.add_argument("dataset", metavar="DATASET", help="name of a FiftyOne dataset")
    heads.add_argument("--delete", metavar="NAME", help="forget one")
    heads.set_defaults(run=_heads)


def _fit(args: argparse.Namespace) -> int:
    import zs_operators as zs

    samples = load_samples(args.dataset, args.saved_view, args.limit)
    if args.tag is not None:
        samples = samples.match_tags(args.tag)
    if args.classes_saved is not None:
        classes = zs.load_vocabulary(samples, args.classes_saved)
    elif args.classes_field is not None:
        classes = zs.class_names(samples, args.classes_field)
    else:
        classes = args.classes_file or args.classes
    options = {name: getattr(args, name) for name in _GIVEN if getattr(args, name) is not None}
    if args.templates:
        is_set = len(args.templates) == 1 and "{}" not in args.templates[0]
        options["templates"] = args.templates[0] if is_set else args.templates
    if args.background:
        options["background"] = args.background
    progress = False if args.quiet else None
    head = zs.fit_head(
        samples, classes, args.ground_truth, overwrite=args.overwrite, progress=progress, **options
    )
    if args.output is not None:
        head.save(args.output, overwrite=args.overwrite)
    text = json.dumps(head.report.to_dict(), indent=2) if args.json else str(head.report)
    sys.stdout.write(text + "\n")
    return 0


def _heads(args: argparse.Namespace) -> int:
    import zs_operators as zs

    samples = load_samples(args.dataset)
    if args.delete is not None:
        zs.delete_head(samples, args.delete)
    names = zs.list_heads(samples)
    sys.stdout.write("\n".join(names or ["None is saved."]) + "\n")
    return 0

"""``zs classify``, ``zs detect``, ``zs segment``: the functions of the same names as commands."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zs_operators.errors import InvalidInputError, MissingDependencyError

# Whatever is not given is left to the function's own defaults, written in one place only
_UNSET = argparse.SUPPRESS


def add_task_commands(commands: Any) -> None:
    """The three commands, added to the subparsers of ``zs``."""
    classify = _command(commands, "classify", "label the images of a dataset")
    _classes(classify, required=False)
    _text(classify, "head", "NAME", "a head of `zs fit-head`, or its file; then no classes needed")
    _vocabulary(classify)
    _model(classify, "CLIP")
    _output(classify, "zs_classification")
    classify.add_argument("--top-k", type=int, metavar="K", default=_UNSET)
    classify.add_argument("--multi-label", action="store_true", default=_UNSET)
    _numbers(classify, "min-confidence", "min-margin", "min-cosine", "temperature")
    classify.add_argument(
        "--reject-label", metavar="NAME", default=_UNSET, help="label of rejected samples"
    )
    classify.add_argument("--store-logits", action="store_true", default=_UNSET)
    _choice(classify, "embeddings", "off", "reuse", "refresh")

    detect = _command(commands, "detect", "find objects by name, or name boxes that exist")
    _classes(detect, required=False)
    _text(detect, "head", "NAME", "a head of `zs fit-head`, or its file; then no classes needed")
    _vocabulary(detect)
    _model(detect, "CLIP")
    _text(detect, "regions", "FIELD", "name the boxes of this field instead of finding some")
    detect.add_argument("--update-source", action="store_true", default=_UNSET)
    _text(detect, "detector", "NAME", "a detector of another make instead, see docs/detectors.md")
    _proposer(detect)
    _output(detect, "zs_detections")
    _regions(detect)
    detect.add_argument(
        "--reject-label", metavar="NAME", default=_UNSET, help="label of rejected boxes"
    )
    _choice(detect, "embeddings", "off", "reuse", "refresh")

    segment = _command(commands, "segment", "masks from boxes, points, class names or nothing")
    _text(segment, "prompts", "SOURCE", "everything, proposals, or a field of boxes or keypoints")
    _classes(segment, required=False)
    _vocabulary(segment)
    _model(segment, "SAM")
    _text(segment, "clip", "NAME", "the CLIP that names, see `zs models`")
    _text(segment, "clip-weights", "W", "its pretrained tag, local file or folder")
    _proposer(segment)
    _output(segment, "zs_masks")
    _text(segment, "output-dir", "DIR", "write masks as PNG files below it")
    _text(segment, "semantic-field", "FIELD", "also one mask of all classes a sample")
    _choice(segment, "embeddings", "off", "reuse", "refresh")
    _choice(segment, "multimask", "best", "single", "best_of_three")
    _numbers(segment, "min-iou", "min-stability", "box-nms-threshold")
    for name in ("points-per-side", "crop-n-layers", "max-masks", "fill-holes-px"):
        segment.add_argument(f"--{name}", type=int, metavar="N", default=_UNSET)
    segment.add_argument("--drop-islands-px", type=int, metavar="N", default=_UNSET)
    segment.add_argument("--prompt-boxes", dest="tight_boxes", action="store_false", default=_UNSET)
    _regions(segment)


def _command(commands: Any, name: str, what: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what)
    parser.add_argument("dataset", metavar="DATASET", help="name of a FiftyOne dataset")
    samples = parser.add_argument_group("samples (default: the whole dataset)")
    samples.add_argument("--saved-view", metavar="NAME", help="only the samples of a saved view")
    samples.add_argument("--limit", type=int, metavar="N", help="only the first N samples")
    _text(samples, "group-slice", "NAME", "of a grouped dataset, or all; default: the active one")
    samples.add_argument(
        "--frames-per-second",
        type=float,
        metavar="X",
        default=_UNSET,
        help="of videos: how many frames of a second to label",
    )
    _text(samples, "frames-dir", "DIR", "where their images go; default: beside each video")
    running = parser.add_argument_group("running")
    running.add_argument("--device", metavar="D", default=_UNSET, help="auto, cpu, cuda, mps …")
    _choice(running, "precision", "auto", "fp32", "bf16", "fp16")
    running.add_argument("--batch-size", type=_batch_size, metavar="N", default=_UNSET)
    running.add_argument(
        "--workers", type=int, metavar="N", default=_UNSET, help="threads that read images"
    )
    _choice(running, "on-error", "record", "raise")
    _choice(running, "executor", "local", "ray")
    running.add_argument("--quiet", dest="progress", action="store_false", default=_UNSET)
    running.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=_run, task=name)
    return parser


def _classes(parser: argparse.ArgumentParser, *, required: bool) -> None:
    which = parser.add_mutually_exclusive_group(required=required)
    which.add_argument("--classes", nargs="+", metavar="NAME", help="class names")
    which.add_argument(
        "--classes-file", metavar="FILE", help="a .txt, .yaml, .json or .csv of classes"
    )
    which.add_argument(
        "--classes-saved", metavar="NAME", help="a vocabulary saved with the dataset"
    )
    which.add_argument("--classes-field", metavar="FIELD", help="a label field that has them")


def _vocabulary(parser: argparse.ArgumentParser) -> None:
    prompts = parser.add_argument_group("prompts")
    prompts.add_argument(
        "--templates",
        nargs="+",
        metavar="T",
        default=_UNSET,
        help="none, simple, openai_imagenet, or your own",
    )
    prompts.add_argument(
        "--background", nargs="+", metavar="TEXT", default=_UNSET, help="prompts of 'none'"
    )


def _model(parser: argparse.ArgumentParser, kind: str) -> None:
    model = parser.add_argument_group("model")
    _text(model, "model", "NAME", f"{kind}: see `zs models`, or an architecture")
    _text(model, "weights", "W", "pretrained tag, local file or folder")


def _proposer(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("boxes to look at")
    _text(group, "proposals", "NAME", "what finds them: of `zs models`, or any --detector")
    _text(group, "proposal-weights", "W", "its tag, local file or folder")
    _choice(group, "proposal-mode", "refined", "rpn")
    _choice(group, "region-embedding", "auto", "roi", "crops")


def _regions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which boxes stay")
    for name in ("max-regions", "max-detections", "runners-up"):
        group.add_argument(f"--{name}", type=int, metavar="N", default=_UNSET)
    _numbers(group, "objectness-weight", "overlap-threshold", "min-confidence", "min-margin")
    _numbers(group, "min-cosine", "min-size-px", "temperature")
    _choice(group, "overlap", "none", "per_class", "agnostic")
    _choice(group, "overlap-metric", "iou", "ios")
    group.add_argument(
        "--tile-size-px",
        type=int,
        metavar="N",
        default=_UNSET,
        help="look for small objects in tiles of larger images, too",
    )
    _numbers(group, "tile-overlap")


def _output(parser: argparse.ArgumentParser, default: str) -> None:
    output = parser.add_argument_group("what is written")
    _text(output, "label-field", "FIELD", f"default: {default}")
    output.add_argument("--overwrite", action="store_true", default=_UNSET)
    output.add_argument("--no-resume", dest="resume", action="store_false", default=_UNSET)


def _text(parser: Any, name: str, metavar: str, what: str) -> None:
    parser.add_argument(f"--{name}", metavar=metavar, default=_UNSET, help=what)


def _choice(parser: Any, name: str, *choices: str) -> None:
    parser.add_argument(f"--{name}", choices=choices, default=_UNSET)


def _numbers(parser: Any, *names: str) -> None:
    for name in names:
        parser.add_argument(f"--{name}", type=float, metavar="X", default=_UNSET)


#: What a command line has besides arguments of the functions.
_NOT_ARGUMENTS = ("run", "task", "rest", "traceback", "dataset", "saved_view", "limit", "json")
_CLASSES = ("classes", "classes_file", "classes_field", "classes_saved")


def _run(args: argparse.Namespace) -> int:
    samples = load_samples(args.dataset, args.saved_view, args.limit)
    import zs_operators as zs

    options = {
        name: value
        for name, value in vars(args).items()
        if name not in (*_NOT_ARGUMENTS, *_CLASSES)
    }
    if args.classes_file is not None:
        options["classes"] = Path(args.classes_file)
    elif args.classes_saved is not None:
        options["classes"] = zs.load_vocabulary(samples, args.classes_saved)
    elif args.classes_field is not None:
        options["classes"] = zs.class_names(samples, args.classes_field)
    elif args.classes is not None:
        options["classes"] = args.classes
    elif "head" in options:
        options["classes"] = None  # those it was fitted for
    elif args.task in ("classify", "detect"):
        raise InvalidInputError(
            "There are no classes: give --classes, --classes-file, --classes-saved, "
            "--classes-field, or --head."
        )
    templates = options.get("templates")
    if templates and len(templates) == 1 and "{}" not in templates[0]:
        options["templates"] = templates[0]  # the name of a set
    report = getattr(zs, args.task)(samples, **options)
    print(json.dumps(report.to_dict(), indent=2) if args.json else report)
    return 0


def load_samples(name: str, saved_view: str | None = None, limit: int | None = None):
    """A dataset, one of its saved views, or the first samples of either.

    Raises:
        InvalidInputError: if there is none of that name; the message has the nearest ones
        MissingDependencyError: if FiftyOne does not start
    """
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

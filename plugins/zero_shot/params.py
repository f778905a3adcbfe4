"""What a form or a script put into ``ctx.params`` -> arguments of the engine's functions.

A form groups some inputs under a folded section and asks for class names and templates in several
ways; a script passes the engine's own argument names. Both end up here.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from zs_operators.errors import InvalidInputError, VocabularyError

#: Folded sections of the forms: their inputs arrive nested under these names.
SECTIONS = (
    "words",
    "rejection",
    "output",
    "boxes",
    "naming",
    "masks",
    "grid",
    "storage",
    "performance",
)

#: Choice of the model picker that asks for an architecture and weights instead.
CUSTOM_MODEL = "custom"

#: Choice of the model pickers that asks for a detector of another make instead.
OTHER_DETECTOR = "other-detector"

#: Inputs of a CLIP model: its name, its weights, and the architecture of a custom one. The first
#: two are also the engine's arguments.
MODEL_INPUTS = ("model", "weights", "architecture")
CLIP_INPUTS = ("clip", "clip_weights", "clip_architecture")

#: Choice of the template picker that asks for the templates themselves.
CUSTOM_TEMPLATES = "custom"

#: Choice of how names merge that leaves it to the vocabulary.
OWN_MERGE = "own"

#: Choice of the class field picker that stands for ``dataset.default_classes``.
DEFAULT_CLASSES = "(default classes of the dataset)"

MAX_CLASS_FILE_BYTES = 1_000_000
CLASS_FILE_TYPES = (".txt", ".yaml", ".yml", ".json", ".csv")


def flat(params: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` with the folded sections opened and empty inputs left out."""
    values = {}
    for section in SECTIONS:
        values.update(params.get(section) or {})
    values.update({name: value for name, value in params.items() if name not in SECTIONS})
    return {name: value for name, value in values.items() if value is not None and value != ""}


def only(params: Mapping[str, Any], *sections: str) -> dict[str, Any]:
    """``params`` without the folded sections that are not named: a form may have hidden them."""
    hidden = set(SECTIONS) - set(sections)
    return {name: value for name, value in params.items() if name not in hidden}


def arguments(params: Mapping[str, Any], samples, names: tuple[str, ...]) -> dict[str, Any]:
    """Keyword arguments for the engine: classes, templates, background and model, then ``names``.

    Args:
        params: ``ctx.params``
        samples: the collection that is processed, for class names taken from a label field
        names: further arguments that are passed on as they are

    Raises:
        VocabularyError: if there are no usable class names or templates
        InvalidInputError: if an architecture is asked for and not named
    """
    values = flat(params)
    found = {
        **vocabulary_arguments(values, samples),
        **{name: values[name] for name in names if name in values},
    }
    return {name: value for name, value in found.items() if value is not None}


def vocabulary_arguments(
    values: Mapping[str, Any], samples, names: tuple[str, str, str] = MODEL_INPUTS
) -> dict[str, Any]:
    """The arguments classes, templates, background, and a CLIP model with its weights.

    Args:
        values: :func:`flat` of ``ctx.params``
        samples: the collection that is processed, for class names taken from a label field
        names: of the model's inputs; the first two are also the engine's arguments

    Raises:
        VocabularyError: if there are no usable class names or templates
        InvalidInputError: if an architecture is asked for and not named
    """
    model, weights = model_and_weights(values, names)
    return {
        "classes": detailed_classes(values, samples),
        "templates": templates(values),
        "background": background(values),
        names[0]: model,
        names[1]: weights,
    }


def has_classes(values: Mapping[str, Any]) -> bool:
    """Whether class names were given, usable or not."""
    source = "classes" if "classes" in values else values.get("class_source", "typed")
    given = {
        "typed": "class_names",
        "field": "class_field",
        "file": "class_file",
        "saved": "class_saved",
    }
    found = values.get(given.get(source, source))
    return bool(found.strip() if isinstance(found, str) else found)


def classes(values: Mapping[str, Any], samples) -> Any:
    """Class names as :meth:`zs_operators.Vocabulary.parse` takes them.

    Raises:
        VocabularyError: if there are none, or the file or field that holds them is unusable
    """
    if "classes" in values:
        return values["classes"]
    source = values.get("class_source", "typed")
    if source == "field":
        from zs_operators.samples import class_names

        field = values.get("class_field")
        if not field:
            raise VocabularyError("Choose the label field whose classes are wanted.")
        return class_names(samples, None if field == DEFAULT_CLASSES else field)
    if source == "saved":
        from zs_operators.saved_vocabularies import load_vocabulary

        return load_vocabulary(samples, values.get("class_saved") or "")
    if source == "file":
        return _class_file(values.get("class_file"))
    from zs_operators.vocabulary import parse_lines

    text = values.get("class_names", "")
    if not text.strip():
        raise VocabularyError("Type at least one class name, one a line.")
    return parse_lines(text)


def detailed_classes(values: Mapping[str, Any], samples) -> Any:
    """:func:`classes`, as a vocabulary where a form says more of them.

    Raises:
        VocabularyError: as :func:`classes`, or if what is said cannot be used
    """
    spec, more = classes(values, samples), details(values)
    if not more:
        return spec
    from zs_operators.classification import parse_classes
    from zs_operators.vocabulary import Vocabulary

    return Vocabulary.parse(parse_classes(samples, spec), **more)


def details(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a form says of the classes: concept, merge, roll_up and thresholds, where given.

    Raises:
        VocabularyError: if a threshold is no number
    """
    found = {name: values[name] for name in ("concept", "merge") if values.get(name)}
    if found.get("merge") == OWN_MERGE:
        del found["merge"]
    roll_up = values.get("roll_up") or ""
    if isinstance(roll_up, str) and roll_up.strip() not in ("parent", "top"):
        roll_up = [label.strip() for label in roll_up.split(",") if label.strip()]
    if roll_up:
        found["roll_up"] = roll_up.strip() if isinstance(roll_up, str) else roll_up
    if (values.get("class_thresholds") or "").strip():
        found["thresholds"] = _class_thresholds(values["class_thresholds"])
    return found


def templates(values: Mapping[str, Any]) -> Any:
    """Name of a template set, or a list of templates; None if neither was given.

    Raises:
        VocabularyError: if custom templates were chosen and none is there
    """
    chosen = values.get("templates")
    if chosen != CUSTOM_TEMPLATES:
        return chosen
    lines = _lines(values.get("custom_templates", ""))
    if not lines:
        raise VocabularyError("Type at least one template, for example: a photo of a {}.")
    return lines


def background(values: Mapping[str, Any]) -> list[str] | None:
    """Background prompts, one a line in a form, or a list from a script."""
    given = values.get("background")
    if isinstance(given, str):
        return _lines(given) or None
    return list(given) if given else None


def model_and_weights(
    values: Mapping[str, Any], names: tuple[str, str, str] = MODEL_INPUTS
) -> tuple[str | None, str | None]:
    """Model and weights as :func:`zs_operators.weights.plan_weights` takes them.

    Raises:
        InvalidInputError: if a custom model was chosen without its architecture
    """
    model, weights, architecture = (values.get(name) for name in names)
    if model == OTHER_DETECTOR:
        return None, None
    if model != CUSTOM_MODEL:
        return model, weights
    if not architecture and not weights:
        raise InvalidInputError("Name an open_clip architecture, for example ViT-B-32.")
    return architecture or weights, weights if architecture else None


def vocabulary(values: Mapping[str, Any], samples):
    """The vocabulary a run with these values would use, for previews.

    Raises:
        VocabularyError: as the run itself would
    """
    from zs_operators.classification import parse_classes
    from zs_operators.vocabulary import Vocabulary

    spec = classes(values, samples)
    options = {"templates": templates(values), "background": background(values)}
    options = {name: value for name, value in options.items() if value is not None}
    more = details(values)
    if isinstance(spec, str | Vocabulary):
        return Vocabulary.parse(parse_classes(samples, spec, **options), **more)
    # A form is resolved again at every keystroke: parse only when the words have changed
    return _parse(json.dumps(spec), json.dumps({**options, **more}, sort_keys=True))


def keep_vocabulary(params: Mapping[str, Any], samples) -> None:
    """Saves the vocabulary of a run with the dataset if the form was given a name for it.

    Raises:
        VocabularyError: if there is another one of that name and it may not be replaced
    """
    values = flat(params)
    if values.get("save_as"):
        from zs_operators.saved_vocabularies import save_vocabulary

        save_vocabulary(
            samples,
            values["save_as"],
            vocabulary(values, samples),
            overwrite=bool(values.get("replace_saved")),
        )


@functools.lru_cache(maxsize=32)
def _parse(spec: str, options: str):
    from zs_operators.vocabulary import Vocabulary

    return Vocabulary.parse(json.loads(spec), **json.loads(options))


def _class_file(uploaded: Mapping[str, Any] | None) -> Any:
    if not uploaded or not uploaded.get("content"):
        raise VocabularyError("Choose a file with class names (.txt, .yaml, .json or .csv).")
    name = PurePath(uploaded.get("name") or "classes.txt").name
    suffix = PurePath(name).suffix.lower()
    if suffix not in CLASS_FILE_TYPES:
        raise VocabularyError(f"{name}: class names come as {', '.join(CLASS_FILE_TYPES)}.")
    try:
        content = base64.b64decode(uploaded["content"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise VocabularyError(f"{name}: the upload is damaged; choose the file again.") from error
    if len(content) > MAX_CLASS_FILE_BYTES:
        raise VocabularyError(
            f"{name} holds {len(content):,} bytes; at most {MAX_CLASS_FILE_BYTES:,} are read."
        )
    return _parse_class_file(content, name)


@functools.lru_cache(maxsize=8)
def _parse_class_file(content: bytes, name: str) -> Any:
    from zs_operators.vocabulary import Vocabulary

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            # A file may hold templates, background and thresholds besides its classes
            return Vocabulary.parse(path)
        except VocabularyError as error:
            # The person knows the file they chose, not the copy it was read from
            raise VocabularyError(str(error).replace(str(path), name)) from error


def _class_thresholds(text: str) -> dict[str, float]:
    """Least confidences of single classes, one a line: ``car: 0.4``."""
    from zs_operators.vocabulary import parse_lines

    found = {}
    for entry in parse_lines(text):
        label, numbers = (entry, []) if isinstance(entry, str) else entry
        try:
            (number,) = numbers
            found[label] = float(number)
        except ValueError:
            raise VocabularyError(
                f"Write a threshold as 'class: number', for example {label}: 0.4"
            ) from None
    return found


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]

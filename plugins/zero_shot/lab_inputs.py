"""Inputs of the Prompt Lab: words and what is said of them, and their way into panel state."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

from zs_operators.errors import VocabularyError
from zs_operators.saved_vocabularies import list_vocabularies

from . import forms, params, vocabulary_form

if TYPE_CHECKING:
    import fiftyone as fo
    from fiftyone.core.collections import SampleCollection

    from zs_operators.vocabulary import Vocabulary

#: Inputs of the folded section that belong to a version
SETTINGS = (
    "templates",
    "custom_templates",
    "background",
    "min_confidence",
    "min_margin",
    "min_cosine",
    "concept",
    "merge",
    "roll_up",
    "class_thresholds",
)
LIMITS = ("min_confidence", "min_margin", "min_cosine")
#: What inputs with a default hold at first
FIRST = {"templates": "simple", "merge": params.OWN_MERGE}
#: Parts that are shown when asked for
FOLDED = {"more": "More settings", "saved": "Saved vocabularies"}
NO_FIELD = "(none)"


def source(panel: types.Object, dataset: fo.Dataset, state, on_change: Callable) -> None:
    """Asks for the model whose embeddings are used, and for the ground truth."""
    from zs_operators.samples import label_fields

    models = types.DropdownView(space=6)
    for name, count in (state.models or {}).items():
        models.add_choice(name, label=f"{name} · {count:,} images")
    models.add_choice(params.CUSTOM_MODEL, label="Another open_clip model or local weights")
    panel.enum(
        "model",
        models.values(),
        label="Model",
        default=state.model,
        view=models,
        on_change=on_change,
    )
    schema = dataset.get_field_schema()
    truths = types.DropdownView(space=6)
    truths.add_choice(NO_FIELD, label=NO_FIELD)
    for name in label_fields(dataset):
        if schema[name].document_type.__name__ == "Classification":
            truths.add_choice(name, label=name)
    panel.enum(
        "gt_field",
        truths.values(),
        label="Ground truth",
        default=NO_FIELD,
        view=truths,
        on_change=on_change,
    )
    if state.model == params.CUSTOM_MODEL:
        for name, label, description in (
            ("architecture", "Architecture", "As open_clip names it, for example ViT-B-32"),
            ("weights", "Weights", "A pretrained tag, or the path of a local file or folder"),
        ):
            view = types.TextFieldView(space=6)
            panel.str(name, label=label, description=description, view=view)
        panel.btn("use_weights", label="Use these weights", on_click=on_change)


def words(panel: types.Object, state, forget: Callable) -> None:
    """Asks for class names."""
    panel.str(
        "words",
        label="Class names",
        description="One class a line. Other names to encode follow a colon: car: car, sedan",
        view=types.TextFieldView(multiline=True, rows=8),
    )
    if state.kept:
        row = panel.h_stack("kept_row", gap=2, align_y="center")
        row.md("Descriptions, parents and thresholds of the loaded classes are kept.", name="kept")
        row.btn("forget", label="Forget them", on_click=forget)


def folds(panel: types.Object, state, fold: Callable) -> None:
    """Buttons that show and hide parts: the App draws all inputs anew with every version, and
    those that are folded away as well."""
    row = panel.h_stack("folds", gap=2)
    for part, label in FOLDED.items():
        icon = "expand_less" if state.get(f"is_{part}_open") else "expand_more"
        if part == "more" and (count := _num_set(state)):
            label += f" · {count} set"
        row.btn(f"fold_{part}", label=label, icon=icon, on_click=fold, params={"part": part})


def more(panel: types.Object, state, redraw: Callable) -> None:
    """Asks for all else that is said of the words, if that is unfolded."""
    if not state.is_more_open:
        return
    folded = panel.obj("more", view=types.ObjectView()).type
    group = folded.obj(_restored(state), view=types.ObjectView()).type
    vocabulary_form.template_inputs(group, more_settings(state).get("templates"), on_change=redraw)
    group.str(
        "background",
        label="Background prompts",
        description="One a line, encoded as typed. An image that fits one of them best is rejected",
        view=types.TextFieldView(multiline=True, rows=2),
    )
    forms.thresholds(group)
    vocabulary_form.more_words(group)
    for name, value in more_settings(state).items():
        if name in group.properties:  # or the App fills new inputs with what else is the default
            group.properties[name].default = value


def saved(panel: types.Object, dataset: fo.Dataset, state, load: Callable, save: Callable) -> None:
    """Offers vocabularies that are kept with the dataset, if that is unfolded."""
    if not state.is_saved_open:
        return
    group = panel.obj("saved", view=types.ObjectView()).type
    names = list_vocabularies(dataset)
    if names:
        view = types.DropdownView()
        for name in names:
            view.add_choice(name, label=name)
        group.enum("name", names, label="Saved with this dataset", view=view)
        group.btn("load", label="Load", on_click=load)
    group.str("save_as", label="Name", description="Keeps these words with the dataset")
    group.bool("replace", label="Replace the one of that name", default=False)
    group.btn("save", label="Save", on_click=save)


def settings(state) -> dict[str, Any]:
    """The inputs of a version as they are now; what :func:`restore` puts back."""
    more = more_settings(state)
    given = {name: more[name] for name in SETTINGS if more.get(name) not in (None, "")}
    return {"words": state.words or "", "kept": state.kept or None, **given}


def more_settings(state) -> dict[str, Any]:
    """What the folded section holds."""
    return state.get(f"more.{_restored(state)}") or {}


def restore(entry: Mapping[str, Any], state) -> dict[str, Any]:
    """What to change in the state of the panel to show these settings."""
    restored = (state.restored or 0) + 1
    shown = {name: entry[name] for name in SETTINGS if name in entry}
    return {
        "words": entry["words"],
        "kept": entry["kept"],
        "restored": restored,
        f"more.v{restored}": shown,
    }


def _num_set(state) -> int:
    """Settings that are not as they are at first."""
    given = {**settings(state), "words": None, "kept": None}
    return sum(value is not None and value != FIRST.get(name) for name, value in given.items())


def _restored(state) -> str:
    """A name that changes whenever settings are put back: the App leaves in a field what is there
    when it is told that nothing should be."""
    return f"v{state.restored or 0}"


def loaded(vocabulary: Vocabulary) -> dict[str, Any]:
    """Settings that say what a vocabulary says."""
    from zs_operators.templates import TEMPLATE_SETS
    from zs_operators.typed_words import as_lines, says_more

    names = [name for name, texts in TEMPLATE_SETS.items() if texts == vocabulary.templates]
    roll_up = vocabulary.roll_up
    found = {
        "templates": names[0] if names else params.CUSTOM_TEMPLATES,
        "custom_templates": "" if names else "\n".join(vocabulary.templates),
        "background": "\n".join(vocabulary.background),
        "concept": vocabulary.concept,
        "merge": vocabulary.merge,
        "roll_up": ", ".join(roll_up) if isinstance(roll_up, tuple) else roll_up,
    }
    kept = json.dumps(vocabulary.to_dict()) if says_more(vocabulary) else None
    return {"words": as_lines(vocabulary), "kept": kept, **{k: v for k, v in found.items() if v}}


def vocabulary(entry: Mapping[str, Any], samples: SampleCollection) -> Vocabulary:
    """What settings mean.

    Raises:
        VocabularyError: if the words cannot be used
    """
    from zs_operators.typed_words import with_lines
    from zs_operators.vocabulary import Vocabulary

    params.classes({"class_names": entry["words"]}, samples)  # says so if there are none
    kept = Vocabulary.from_dict(json.loads(entry["kept"])) if entry["kept"] else None
    options = {"templates": params.templates(entry), "background": params.background(entry)}
    options = {name: value for name, value in options.items() if value is not None}
    return Vocabulary.parse(with_lines(entry["words"], kept), **options, **params.details(entry))


def limits(entry: Mapping[str, Any]) -> dict[str, float]:
    """Thresholds of all labels."""
    try:
        return {name: float(entry[name]) for name in LIMITS if name in entry}
    except (TypeError, ValueError) as error:
        raise VocabularyError(f"A threshold is no number: {error}") from None

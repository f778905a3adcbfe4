"""Inputs for the words: class names, prompt templates, and the prompts they make."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError, VocabularyError
from zs_operators.saved_vocabularies import check_name, list_vocabularies, load_vocabulary

from . import forms, params

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiftyone.core.collections import SampleCollection

    from zs_operators.vocabulary import Vocabulary

_PROMPTS_SHOWN = 5


def class_names(
    inputs: types.Object, ctx, samples: SampleCollection, *, required: bool = True
) -> None:
    """Asks for class names: typed, from a label field, from a file, or saved with the dataset."""
    if "classes" in ctx.params:
        return
    source = types.TabsView(label="Classes" if required else "Classes (optional)")
    source.add_choice("typed", label="Type them")
    source.add_choice("field", label="From a label field")
    source.add_choice("file", label="From a file")
    saved = list_vocabularies(samples)
    if saved:
        source.add_choice("saved", label="Saved")
    inputs.enum("class_source", source.values(), default="typed", view=source)
    chosen = ctx.params.get("class_source", "typed")
    if chosen == "field":
        _class_field(inputs, samples, required)
    elif chosen == "saved" and saved:
        inputs.enum(
            "class_saved",
            saved,
            required=required,
            label="Vocabulary saved with this dataset",
            description="With its own templates and background, unless others are chosen below",
            view=types.DropdownView(),
        )
    elif chosen == "file":
        inputs.uploaded_file(
            "class_file",
            label="File with class names",
            description="One class a line (.txt), a list or mapping (.yaml, .json), or a table "
            "with the columns prompt and label (.csv); at most "
            f"{params.MAX_CLASS_FILE_BYTES // 1000:,} kB",
            view=types.FileView(
                types=",".join(params.CLASS_FILE_TYPES),
                max_size=params.MAX_CLASS_FILE_BYTES,
                max_size_error_message="This file is too large for a list of class names",
            ),
        )
    else:
        prop = inputs.str(
            "class_names",
            label="Class names",
            description="One class a line. Other names to encode follow a colon: "
            "car: car, sedan, hatchback",
            view=types.TextFieldView(multiline=True, rows=5),
        )
        if required and not (ctx.params.get("class_names") or "").strip():
            prop.invalid = True
            prop.error_message = "Type at least one class name"


def templates(inputs: types.Object, ctx) -> None:
    """Asks for the prompt templates, unless a script has given them."""
    chosen = ctx.params.get("templates")
    if not isinstance(chosen, (list, tuple)):
        template_inputs(inputs, chosen)


def template_inputs(inputs: types.Object, chosen: str | None, **events: Callable) -> None:
    """Inputs for a template set or templates of one's own.

    Args:
        inputs: the form
        chosen: the set that is chosen now
        **events: of the input, such as ``on_change``
    """
    from zs_operators.vocabulary import TEMPLATE_SETS

    words = {
        "simple": "Simple",
        "openai_imagenet": "OpenAI ImageNet",
        "none": "None: the class name alone",
    }
    view = types.DropdownView()
    for name, lines in TEMPLATE_SETS.items():
        count = f"{len(lines)} template{'s' if len(lines) > 1 else ''}"
        view.add_choice(name, label=f"{words.get(name, name)} ({count})")
    view.add_choice(params.CUSTOM_TEMPLATES, label="Your own")
    # A plain string: a script may name a single template
    inputs.str(
        "templates",
        default="simple",
        label="Prompt templates",
        description="Each class name is put into each template; a class is the mean of its prompts",
        view=view,
        **events,
    )
    if chosen == params.CUSTOM_TEMPLATES:
        inputs.str(
            "custom_templates",
            required=True,
            label="Templates",
            description="One a line; {} stands for the class name",
            view=types.TextFieldView(
                multiline=True, rows=3, placeholder="an aerial photo of a {}."
            ),
        )


def details(inputs: types.Object) -> None:
    """A folded section: what is said of the classes besides their names."""
    more_words(forms.section(inputs, "words", "More about the words"))


def more_words(group: types.Object) -> None:
    """Inputs for concept, merge, roll_up and thresholds; see :func:`params.details`."""
    group.str(
        "concept",
        label="Concept",
        description="What all classes are, such as: a type of food. Ends every template",
        view=types.TextFieldView(space=6),
    )
    merge = types.DropdownView(space=6)
    merge.add_choice(params.OWN_MERGE, label="As saved, else their mean")
    merge.add_choice("mean", label="Their mean")
    merge.add_choice("max", label="The name nearest to the image")
    group.enum(
        "merge",
        merge.values(),
        default=params.OWN_MERGE,
        label="Several names of a class",
        description="What counts for its score",
        view=merge,
    )
    group.str(
        "roll_up",
        label="Label that is written",
        description="Of classes with parents, from a file or saved: parent, top, or labels with "
        "commas between; empty: the class",
        view=types.TextFieldView(space=6),
    )
    group.str(
        "class_thresholds",
        label="Least confidence of single classes",
        description="One class a line: car: 0.4",
        view=types.TextFieldView(multiline=True, rows=2, space=6),
    )


def preview(
    inputs: types.Object,
    ctx,
    samples: SampleCollection,
    *,
    own_templates: tuple[str, ...] | None = None,
) -> Vocabulary | None:
    """Shows the exact prompts that will be encoded, or what is wrong with them.

    Args:
        inputs: the form
        ctx: the execution context
        samples: what is processed
        own_templates (None): those of a model that uses them in place of the set "simple"
    """
    from zs_operators.vocabulary import TEMPLATE_SETS

    values = params.flat(ctx.params)
    if not params.has_classes(values):
        return None
    try:
        vocabulary = params.vocabulary(values, samples)
    except InvalidInputError as error:
        forms.refuse(inputs, "prompts", "The class names or templates are not usable", str(error))
        return None
    shown = vocabulary
    if own_templates and vocabulary.templates == TEMPLATE_SETS["simple"]:
        shown = replace(vocabulary, templates=own_templates)
    inputs.view(
        "prompts",
        types.Notice(
            label=f"{_count(shown.num_prompts, 'prompt')} for "
            f"{_count(len(shown.classes), 'class')}",
            description="\n".join(f"- {line}" for line in _shown_prompts(shown)),
        ),
    )
    for index, warning in enumerate(vocabulary.warnings):
        inputs.view(f"prompt_warning_{index}", types.Warning(label=forms.escaped(warning)))
    return vocabulary


def save_as(
    inputs: types.Object, ctx, samples: SampleCollection, vocabulary: Vocabulary | None
) -> None:
    """Offers to keep a usable vocabulary with the dataset, under a name."""
    if vocabulary is None or ctx.params.get("class_source") == "saved":
        return
    prop = inputs.str(
        "save_as",
        label="Save these words as (optional)",
        description="Keeps classes, templates and background with the dataset; every form offers "
        "them again under this name",
    )
    name = (ctx.params.get("save_as") or "").strip()
    if not name:
        return
    try:
        check_name(samples, name)
    except VocabularyError as error:
        prop.invalid, prop.error_message = True, str(error)
        return
    if name in list_vocabularies(samples) and load_vocabulary(samples, name) != vocabulary:
        inputs.bool("replace_saved", default=False, label=f"Replace the saved {name!r}")
        if not ctx.params.get("replace_saved"):
            prop.invalid = True
            prop.error_message = "Saved already with other words: choose another name or replace it"


def _class_field(inputs: types.Object, samples: SampleCollection, required: bool) -> None:
    from zs_operators.samples import class_fields

    names = class_fields(samples)
    if samples._dataset.default_classes:
        names.append(params.DEFAULT_CLASSES)
    if not names:
        forms.refuse(
            inputs, "class_field", "There is no label field", "Type the class names instead."
        )
        return
    schema = samples.get_field_schema()
    view = types.DropdownView()
    for name in names:
        field = schema.get(name)
        kind = f" · {field.document_type.__name__}" if field is not None else ""
        view.add_choice(name, label=f"{name}{kind}")
    inputs.enum(
        "class_field",
        names,
        required=required,
        label="Label field with the classes",
        description="Its labels become the class names",
        view=view,
    )


def _shown_prompts(vocabulary: Vocabulary) -> list[str]:
    """The first prompts exactly as they will be encoded, and what is left out."""
    # All of them may be 80,000; the first few are in the first few classes
    few = replace(vocabulary, classes=vocabulary.classes[:_PROMPTS_SHOWN], background=())
    shown = [forms.escaped(prompt.text) for prompt in few.prompts()[:_PROMPTS_SHOWN]]
    hidden = vocabulary.num_prompts - len(vocabulary.background) - len(shown)
    if hidden:
        shown.append(f"… and {hidden:,} more")
    background = [forms.escaped(text) for text in vocabulary.background]
    shown += [f"background: {text}" for text in background[:_PROMPTS_SHOWN]]
    hidden = len(background) - _PROMPTS_SHOWN
    return [*shown, f"… and {hidden:,} more background prompts"] if hidden > 0 else shown


def _count(number: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"

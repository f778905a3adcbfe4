"""``@zs/operators/review``: tag what is suspicious, note what was reviewed, export it."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from zs_operators.errors import InvalidInputError, ZeroShotError

from . import forms, review_form, running, targeting

#: Arguments of each action that a form or a script may set.
ARGUMENTS = MappingProxyType(
    {
        "tag": (
            "kinds",
            "ground_truth",
            "eval_key",
            "other",
            "threshold",
            "limit",
            "tag",
            "reviewed_field",
        ),
        "mark": ("name", "discard", "reviewed_field", "tag", "overwrite"),
        "export": ("path", "reviewed_field", "overwrite"),
    }
)


class Review(foo.Operator):
    """Tags suspicious labels, notes that they were reviewed, and exports what was.

    Called on samples it is a function::

        review = foo.get_operator("@zs/operators/review")
        review(view, "tag", label_field="pets", kinds=["low_margin"])
        review(view, "mark", label_field="pets", name="cat")
        review(view, "export", label_field="pets", path="pets.csv")
    """

    @property
    def config(self):
        return foo.OperatorConfig(
            name="review",
            label="Review zero-shot labels",
            description="Tag what is suspicious, note what is right, export what was reviewed",
            icon="rate_review",
            dynamic=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def __call__(self, samples, action: str = "tag", *, label_field: str, **arguments: Any):
        """Runs an action on ``samples``.

        Args:
            samples: a dataset or view
            action ("tag"): ``"tag"``, ``"mark"`` or ``"export"``
            label_field: of the predictions
            **arguments: of :func:`zs_operators.tag_for_review`,
                :func:`zs_operators.mark_reviewed` or :func:`zs_operators.export_reviewed`

        Returns:
            what that function returns

        Raises:
            InvalidInputError: if an argument cannot be used
        """
        import zs_operators as zs

        actions = {
            "tag": zs.tag_for_review,
            "mark": zs.mark_reviewed,
            "export": zs.export_reviewed,
        }
        if action not in actions:
            raise InvalidInputError(f"action={action!r} is none of {', '.join(actions)}.")
        return actions[action](samples, label_field, **arguments)

    def resolve_input(self, ctx):
        inputs = types.Object()
        samples = targeting.ask(
            inputs, ctx, "Review", labels_description="Review the selected labels alone"
        )
        if samples is not None:
            review_form.ask(inputs, ctx, samples)
        return types.Property(inputs, view=types.View(label="Review zero-shot labels"))

    def execute(self, ctx):
        try:
            return self._execute(ctx)
        except ZeroShotError as error:
            if not running.is_app_request(ctx):
                raise
            return {"error": str(error)}

    def resolve_output(self, ctx):
        outputs = types.Object()
        results = ctx.results or {}
        if "error" in results:
            view = types.Error(label="This cannot be done", description=results["error"])
        else:
            view = types.Success(
                label=results.get("label", ""), description=results.get("description", "")
            )
        outputs.view("result", view)
        return types.Property(outputs)

    def _execute(self, ctx) -> dict[str, str]:
        action = ctx.params.get("action", "tag")
        arguments = review_form.arguments(ctx.params, action)
        arguments = {k: v for k, v in arguments.items() if k in ARGUMENTS.get(action, ())}
        chosen = targeting.chosen(ctx)
        field = ctx.params.get("label_field") or review_form.default_field(chosen)
        if field is None:
            raise InvalidInputError("These samples have no labels to review.")
        found = self(chosen, action, label_field=field, **arguments)
        if action == "export":
            return {
                "label": f"{found:,} reviewed labels written",
                "description": forms.escaped(arguments["path"]),
            }
        ctx.ops.reload_dataset()
        if action == "mark":
            kept = f"{found.kept:,} had been reviewed before and stay" if found.kept else ""
            label = f"{found.marked:,} labels reviewed, {found.corrected:,} of them corrected"
            return {"label": label, "description": kept}
        self._show_tagged(ctx, found)
        counts = [f"{n:,} {review_form.title_of(kind).lower()}" for kind, n in found.counts.items()]
        on = f"Tag {found.tag} is on these {found.on}"
        return {"label": " · ".join(counts), "description": forms.escaped(on)}

    def _show_tagged(self, ctx, found) -> None:
        if not any(found.counts.values()):
            return
        dataset = ctx.dataset
        if found.on == "labels":
            ctx.ops.set_view(dataset.select_labels(tags=found.tag))
        else:
            ctx.ops.set_view(dataset.match_tags(found.tag))

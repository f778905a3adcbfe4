"""What the operators that run an engine generator have in common."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from . import remembered, running
from .live import live

if TYPE_CHECKING:
    from zs_operators.report import Progress, RunReport


class RunOperator(foo.Operator):
    """An operator that is also a function: live in the App, delegated, or called from a script.

    Subclasses set the attributes and define :meth:`start`, :meth:`summarize` and the form.

    Attributes:
        task: name of the engine's function and of the operator
        label: in the operator browser and on the button above the grid
        description: in the operator browser
        title: heading of the progress dialog
        icons: light_icon and dark_icon of the operator, paths below the plugin's folder
        preparing, kept: see :func:`.running.stream`
        remembers: whether its form offers the settings of the last run
    """

    task: str
    label: str
    description: str
    title: str
    icons: Mapping[str, str]
    preparing: str = "reading the model…"
    kept: str | None = None
    remembers: bool = True

    @property
    def config(self):
        return foo.OperatorConfig(
            name=self.task,
            label=self.label,
            description=self.description,
            **self.icons,
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def __call__(self, samples, classes, *, delegate: bool = False, **arguments: Any):
        """Runs on ``samples`` now, or queues the run.

        Works in scripts and in notebooks, where an event loop is already running.

        Args:
            samples: a dataset or view
            classes: see :func:`zs_operators.classify`
            delegate (False): queue the run for ``fiftyone delegated launch`` instead; then every
                argument must be plain JSON
            **arguments: further arguments of the engine's function of the same name

        Returns:
            a :class:`zs_operators.RunReport`, or the id of the queued operation

        Raises:
            InvalidInputError: if an argument cannot be used
        """
        return self.call(samples, classes=classes, delegate=delegate, **arguments)

    def call(self, samples, *, delegate: bool, **arguments: Any):
        """The engine's function of the same name on ``samples``, now or in a queued run."""
        if not delegate:
            import zs_operators as zs

            return getattr(zs, self.task)(samples, **arguments)
        return running.delegate(self.uri, samples, arguments)

    # A coroutine, because FiftyOne gives a plain execute() called from a script ten minutes and
    # then leaves it running in a thread
    async def execute(self, ctx):
        if not running.is_app_request(ctx):
            return running.run_through(ctx, lambda: self._begin(ctx))
        return live(
            running.stream(
                ctx,
                lambda: self._begin(ctx),
                title=self.title,
                summarize=lambda report: self.summarize(ctx, report),
                after=lambda report: self.after(ctx, report),
                preparing=self.preparing,
                kept=self.kept,
            )
        )

    def resolve_type(self, ctx, type):
        form = super().resolve_type(ctx, type)
        is_form = type == "inputs" and self.remembers
        return remembered.offer(ctx, self.task, form) if is_form else form

    def resolve_placement(self, ctx):
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            # The App reads a button's own icons in its JavaScript spelling
            types.Button(
                label=self.label,
                prompt=True,
                icon=self.icons["dark_icon"],
                darkIcon=self.icons["dark_icon"],
                lightIcon=self.icons["light_icon"],
            ),
        )

    def resolve_output(self, ctx):
        return None

    def _begin(self, ctx) -> Generator[Progress, None, RunReport]:
        steps = self.start(ctx)
        if self.remembers:
            remembered.keep(ctx, self.task)
        return steps

    def start(self, ctx) -> Generator[Progress, None, RunReport]:
        """Begins the run that ``ctx`` asks for."""
        raise NotImplementedError

    def summarize(self, ctx, report: RunReport) -> tuple[types.Property, dict]:
        """Output schema and data of the dialog that ends the run."""
        raise NotImplementedError

    def after(self, ctx, report: RunReport) -> Iterable[Any]:
        """Messages for the App after a run, before the dialog that ends it."""
        return ()

"""Asks where the work of a run is done, where there is a choice."""

from __future__ import annotations

import fiftyone.operators.types as types

_LABELS = {
    "local": "This process",
    "ray": "Ray: a process for each GPU, or each machine of a cluster",
}


def executor(section: types.Object) -> None:
    """A choice of what is installed; nothing where that is this process alone."""
    from zs_operators.executors.options import available_executors

    names = available_executors()
    if len(names) < 2:
        return
    view = types.DropdownView()
    for name in names:
        view.add_choice(name, label=_LABELS[name])
    section.enum(
        "executor",
        view.values(),
        default="local",
        label="Where it runs",
        description="Either way, labels, progress and stopping are the same",
        view=view,
    )

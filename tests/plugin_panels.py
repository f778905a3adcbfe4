"""The App's side of a panel."""

from __future__ import annotations

import copy
import uuid

import pydash


class Panel:
    """The App's side of a panel: keeps its state and data, and what it was asked to do."""

    def __init__(self, operator, context, dataset) -> None:
        self.operator, self.context, self.dataset = operator, context, dataset
        self.id = uuid.uuid4().hex  # an address may be another panel's later
        self.state, self.data, self.asked = {}, {}, {}
        self("on_load")

    def __call__(self, method, **event):
        params = {
            "panel_id": self.id,
            "panel_state": copy.deepcopy(self.state),
            "__method__": method,
            **event,
        }
        ctx = self.context(self.dataset, params=params)
        self.operator.execute(ctx)
        self.asked = {}
        for call in ctx.executor._requests:
            name, given = call.operator_uri.rpartition("/")[2], call.params
            self.asked[name] = given
            if name == "patch_panel_state":
                for path, value in given["state"].items():
                    pydash.set_(self.state, path, value)
            if name == "patch_panel_data":
                self.data.update(given["data"])
        return self

    def drawn(self, name):
        return self.data[self.state["parts"][name]]

    @property
    def inputs(self):
        return self.asked["show_panel_output"]["output"]["type"]["properties"]

    def shown(self, dataset):
        import fiftyone.core.view as fov

        return fov.DatasetView._build(dataset, self.asked["set_view"]["view"]).values("id")

"""A process that labels the samples it is given, of a run that another process has."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Any

from zs_operators.errors import ZeroShotError
from zs_operators.executors.messages import Call, Description, Failure, Order, Report
from zs_operators.report import DELETED


class Worker:
    """Does one call's shards with models that it loads once.

    Nothing is imported before the database is known: FiftyOne connects when it is imported.

    Args:
        call: what to do with samples
    """

    def __init__(self, call: Call) -> None:
        uri, name = call.database
        # A machine of a cluster may reach the database by another name
        os.environ.setdefault("FIFTYONE_DATABASE_URI", uri)
        os.environ["FIFTYONE_DATABASE_NAME"] = name
        os.environ["FIFTYONE_DATABASE_ADMIN"] = "false"
        os.environ["FIFTYONE_DISABLE_SERVICES"] = "1"
        self._call = call
        self._executor: Any = None
        self._dataset: Any = None

    def describe(self) -> Description | Failure:
        """Loads the models and says what labels they would make."""
        try:
            return self._describe()
        except ZeroShotError as error:
            return Failure(error)

    def label(self, order: Order) -> Iterator[Report | Failure]:
        """Labels a shard; reports after each chunk that is in the database."""
        self._dataset.reload()
        self._executor.order, self._executor.run = order, None
        samples = self._view().select(list(order.ids))
        if not samples.limit(1).values("id"):
            yield Report(order.ids, {DELETED: len(order.ids)})
            return
        steps = self._steps(samples)
        try:
            for _ in steps:
                yield self._executor.run.drain()
        except ZeroShotError as error:
            if self._executor.run is not None:
                yield self._executor.run.drain()
            yield Failure(error)
            return
        yield self._executor.run.drain(is_last=True)

    def _describe(self) -> Description:
        import fiftyone as fo

        from zs_operators.errors import InvalidInputError
        from zs_operators.executors.shard_run import ShardExecutor

        name = self._call.dataset
        if not fo.dataset_exists(name):
            raise InvalidInputError(
                f"The worker on {os.uname().nodename} finds no dataset {name!r} in its database: "
                "set FIFTYONE_DATABASE_URI on every machine to the one database that all reach."
            )
        self._dataset = fo.load_dataset(name)
        self._executor = ShardExecutor()
        steps = self._steps(self._view().limit(1))
        try:
            while True:
                next(steps)
        except StopIteration as end:
            return end.value

    def _steps(self, samples: Any) -> Any:
        module, name = self._call.function
        function = getattr(importlib.import_module(module), name)
        return function(samples, executor=self._executor, **self._call.arguments)

    def _view(self) -> Any:
        """The dataset with what the run's view makes of the content of samples."""
        import fiftyone.core.view as fov

        return fov.DatasetView._build(self._dataset, list(self._call.stages))

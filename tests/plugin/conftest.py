"""The plugin's operator, found as FiftyOne finds it, and datasets of drawn shapes."""

from __future__ import annotations

import pytest

from tests import single_objects

URI = "@zs/operators/classify"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """24 scenes with one object each: paths and the names of the objects."""
    folder = tmp_path_factory.mktemp("pictures")
    return single_objects.draw(folder, 24)


@pytest.fixture
def scenes(dataset, pictures):
    single_objects.add(dataset, pictures)
    return dataset


@pytest.fixture
def uri():
    """The operator under test; a module may override it."""
    return URI


@pytest.fixture
def operator(uri):
    import fiftyone.operators as foo

    return foo.get_operator(uri)


@pytest.fixture
def context(uri):
    """Makes the context FiftyOne makes of a request; ``app=True``: of a request of the App."""
    from fiftyone.operators.executor import ExecutionContext, Executor

    def make(dataset=None, *, app=False, params=None, **request):
        request["params"] = dict(params or {})
        if dataset is not None:
            request["dataset_name"] = dataset.name
        if app:
            request["operator_uri"] = uri
        return ExecutionContext(request, executor=Executor(), operator_uri=uri)

    return make


@pytest.fixture
def form(operator, context):
    """Resolves the form and returns its inputs by name."""

    def resolve(dataset=None, params=None, **request):
        resolved = operator.resolve_type(context(dataset, params=params, **request), "inputs")
        resolved.to_json()
        return resolved.type.properties

    return resolve

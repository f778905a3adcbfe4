"""What a run of an operator tells the App."""

from __future__ import annotations

import asyncio
import json

import fiftyone as fo
import fiftyone.operators as foo


def execute(uri, samples, params, **request):
    """The result of a run that a script asks for."""
    context = {"dataset": samples._root_dataset, "view": samples.view(), "params": dict(params)}
    return foo.execute_operator(uri, {**context, **request}).result


def messages(operator, ctx):
    """What the App would be told, in order."""
    return list(each_message(operator, ctx))


def each_message(operator, ctx):
    """Yields what the App would be told, while the run goes on."""
    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(operator.execute(ctx))
    try:
        while True:
            line = loop.run_until_complete(anext(stream)).to_json_line()
            if line.strip():
                yield json.loads(line)["body"]
    except StopAsyncIteration:
        pass
    finally:
        loop.run_until_complete(stream.aclose())
        loop.close()


def last_dialog(told):
    """Inputs and texts of the dialog that ends the run."""
    dialog = [body["params"] for body in told if body["operator_uri"] == "show_output"][-1]
    properties = dialog["outputs"]["type"]["properties"]
    views = [prop["view"] for prop in properties.values()]
    texts = [text for view in views for text in (view["label"], view["description"]) if text]
    return properties, " ".join(texts).replace("\\", "")


def view_set(dataset, told):
    """Ids of the samples that the App is told to show."""
    (stages,) = [body["params"]["view"] for body in told if body["operator_uri"] == "set_view"]
    return fo.DatasetView._build(dataset, stages).values("id")

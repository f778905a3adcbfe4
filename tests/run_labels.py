"""What runs wrote, to compare one run with another."""

from __future__ import annotations

import contextlib

import numpy as np
import torch

#: Of confidences and cosines: sums in another order differ in their last digits.
FP32_TOLERANCE = 1e-4


def written(samples, field):
    """What each sample has in a field: names, boxes and masks exactly; scores as numbers."""
    found = {}
    for sample in samples.select_fields(field):
        label = sample[field]
        labels = [] if label is None else getattr(label, "detections", [label])
        found[sample.id] = (
            [(one.label, _place(one)) for one in labels],
            [score for one in labels for score in _scores(one)],
        )
    return found


def assert_same(found, expected, tolerance=FP32_TOLERANCE):
    """The same labels on the same samples, and scores that differ by no more than a tolerance."""
    assert found.keys() == expected.keys()
    for sample_id, (labels, scores) in expected.items():
        assert found[sample_id][0] == labels
        np.testing.assert_allclose(found[sample_id][1], scores, rtol=0, atol=tolerance)


def rest(steps):
    """The report of a run that has begun."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


@contextlib.contextmanager
def memory_for(module, most, *, argument=0):
    """A part of a model runs out of memory when it gets more items than this.

    Args:
        module: of torch
        most: items
        argument (0): whose length is the number of items

    Yields:
        the numbers of items it got
    """
    sizes = []

    def check(_, args):
        sizes.append(len(args[argument]))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    handle = module.register_forward_pre_hook(check)
    try:
        yield sizes
    finally:
        handle.remove()


def _place(label):
    box = getattr(label, "bounding_box", None)
    mask = getattr(label, "mask", None)
    return (
        None if box is None else tuple(np.round(box, 4)),
        None if mask is None else mask.tobytes(),
    )


def _scores(label):
    names = ("confidence", "cosine", "objectness", "predicted_iou", "stability")
    values = (getattr(label, name, None) for name in names)
    return [value for value in values if value is not None]

"""A dataset of guesses with a record of the run that made them."""

from __future__ import annotations

import pytest


@pytest.fixture
def photos(dataset):
    """60 samples with logits of a made-up run in ``guess``; its truth is in ``truth``."""
    from tests.made_up_runs import CLASSES, guesses, record_run

    dataset.add_samples(guesses())
    record_run(dataset, "guess", CLASSES)
    return dataset

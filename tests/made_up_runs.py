"""Labels of runs that never took place, with known scores."""

from __future__ import annotations

import fiftyone as fo
import numpy as np

from zs_operators import provenance
from zs_operators.vocabulary import Vocabulary

CLASSES = ["bird", "car", "cat", "dog"]
SCALE = 5.0


def record_run(dataset, field, classes, **record):
    """Says that a classification wrote ``field``."""
    record = {
        "vocabulary": Vocabulary.parse(classes).to_dict(),
        "options": {"temperature": None, "multi_label": False},
        "model": {"name": "made up", "logit_bias": None},
        **record,
    }
    provenance.save(dataset, "classify", field, record)


def lists(dataset, field, rows):
    """Writes ``Classifications``: for each sample a list of (name, confidence)."""
    dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Classifications)
    labels = [
        fo.Classifications(
            classifications=[fo.Classification(label=n, confidence=c) for n, c in row]
        )
        for row in rows
    ]
    dataset.set_values(field, labels)


def guesses(seed=7, count=60):
    """Samples with logits of four classes in ``guess``, and the truth in ``truth``."""
    rng = np.random.default_rng(seed)
    numbers = rng.choice(4, size=count, p=[0.5, 0.3, 0.1, 0.1])
    logits = rng.normal(size=(count, 4)) * SCALE
    logits[np.arange(count), numbers] += SCALE
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return [
        fo.Sample(
            filepath=f"/nowhere/{i}.png",
            truth=fo.Classification(label=CLASSES[numbers[i]]),
            guess=fo.Classification(
                label=CLASSES[p[i].argmax()], confidence=p[i].max(), logits=logits[i]
            ),
        )
        for i in range(count)
    ]

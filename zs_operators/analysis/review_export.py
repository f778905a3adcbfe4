"""What was reviewed as a table: a row for each label, with who was right."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators.analysis.error_inputs import label_type
from zs_operators.analysis.review import REVIEWED_FIELD
from zs_operators.analysis.reviewed_labels import DISCARDED, PREDICTED
from zs_operators.errors import FieldError, InvalidInputError
from zs_operators.whole_files import write_whole

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Columns of the table. ``box`` is ``x, y, width, height`` relative to the image; ``reviewed``
#: the name that is right, empty if none is; ``wins`` "prediction" or "correction".
COLUMNS = (
    "sample_id",
    "filepath",
    "label_id",
    "box",
    "predicted",
    "confidence",
    "reviewed",
    "wins",
    "reviewed_at",
)


def export_reviewed(
    samples: SampleCollection,
    label_field: str,
    path: str | os.PathLike,
    *,
    reviewed_field: str = REVIEWED_FIELD,
    overwrite: bool = False,
) -> int:
    """Writes what was reviewed to a file, a row for each label.

    Args:
        samples: a dataset or view
        label_field: of the predictions that were reviewed
        path: of a ``.csv`` or ``.json`` file
        reviewed_field ("zs_reviewed"): see :func:`zs_operators.mark_reviewed`
        overwrite (False): replace a file that is there

    Returns:
        the number of rows

    Raises:
        FieldError: if nothing of ``label_field`` was reviewed
        InvalidInputError: if the file cannot be written so
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".csv", ".json"):
        raise InvalidInputError(f"{str(path)!r}: reviews are written to .csv or .json files.")
    if path.exists() and not overwrite:
        raise InvalidInputError(
            f"{str(path)!r} exists: choose another file, or allow overwriting (overwrite=True)."
        )
    if not path.parent.is_dir():
        raise InvalidInputError(f"There is no folder {str(path.parent)!r}.")
    rows = reviewed_rows(samples, label_field, reviewed_field=reviewed_field)
    content = _csv(rows) if path.suffix.lower() == ".csv" else json.dumps(rows, indent=2)
    try:
        write_whole(path, content.encode())
    except OSError as error:
        raise InvalidInputError(f"{str(path)!r} cannot be written: {error.strerror}.") from error
    return len(rows)


def reviewed_rows(
    samples: SampleCollection, label_field: str, *, reviewed_field: str = REVIEWED_FIELD
) -> list[dict[str, Any]]:
    """The rows of :func:`export_reviewed`, with :data:`COLUMNS` as keys.

    Raises:
        FieldError: if nothing of ``label_field`` was reviewed
    """
    rows = []
    if samples.get_field(reviewed_field) is not None:
        columns = samples.exists(reviewed_field).values(["id", "filepath", reviewed_field])
        is_boxes = label_type(samples, reviewed_field) == "Detections"
        for sample_id, filepath, label in zip(*columns, strict=True):
            for name, found in _of_boxes(label) if is_boxes else [(label.label, label)]:
                if found["source_field"] == label_field:
                    rows.append(_row(sample_id, filepath, name, found, is_boxes))
    if not rows:
        raise FieldError(f"Nothing of {label_field!r} was reviewed in {reviewed_field!r} yet.")
    return rows


def _of_boxes(label) -> Iterator[tuple[str | None, Any]]:
    for box in label.detections:
        yield box.label, box
    for box in label[DISCARDED] or ():
        yield None, box


def _row(sample_id: str, filepath: str, name: str | None, found, is_boxes: bool) -> dict[str, Any]:
    return {
        "sample_id": sample_id,
        "filepath": filepath,
        "label_id": found["source_id"],
        "box": [float(edge) for edge in found["bounding_box"]] if is_boxes else None,
        "predicted": found[PREDICTED],
        "confidence": found["predicted_confidence"],
        "reviewed": name,
        "wins": "prediction" if name == found[PREDICTED] else "correction",
        "reviewed_at": found["reviewed_at"].isoformat(),
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        box = " ".join(f"{edge:.6f}" for edge in row["box"]) if row["box"] else None
        writer.writerow({**row, "box": box})
    return text.getvalue()

"""Where a segmentation puts its masks: a field of labels, files, and one mask of all classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators import fields, mask_files
from zs_operators.targets import FieldTarget, unfiltered, writable

if TYPE_CHECKING:
    from fiftyone.core.collections import SampleCollection

#: Attribute of all masks of a sample: ids of the labels that prompted, with or without a mask.
PROMPT_IDS = "prompt_ids"


@dataclass
class MaskLabels:
    """What is written for one sample.

    Attributes:
        detections: ``Detections`` as MongoDB holds them
        semantic: (H, W) classes, serialised as FiftyOne does; None if not asked for
        folder: of the files of its masks; None if they are in the database
        semantic_path: where ``semantic`` goes; None is the database
    """

    detections: dict[str, Any]
    semantic: bytes | None = None
    folder: Path | None = None
    semantic_path: Path | None = None


class MaskTarget(FieldTarget):
    """A field of masks, of labels that prompted one by one: some more keep those there are.

    Args:
        samples: the dataset or view to label
        label_field: checked by :func:`zs_operators.fields.check_label_field`
        attributes: kind of masks, see :func:`zs_operators.fields.declare`
        prompt_ids (None): ids of the labels that prompt, by sample
        semantic_field (None): for one mask of all classes a sample
        mask_targets (None): the name of each of its values
    """

    def __init__(
        self,
        samples: SampleCollection,
        label_field: str,
        attributes: str,
        *,
        prompt_ids: Mapping[str, Sequence[str]] | None = None,
        semantic_field: str | None = None,
        mask_targets: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__(samples, label_field, "Detections")
        self._attributes = attributes
        self._prompt_ids = prompt_ids
        self._semantic_field = semantic_field
        self._mask_targets = dict(mask_targets or {})
        self._there: set[str] = set()

    def declare(self, description: str) -> None:
        import fiftyone as fo

        fields.declare(
            self.samples, self.name, self.label_type, description, attributes=self._attributes
        )
        dataset = self.samples._dataset
        path = f"{self.name}.{PROMPT_IDS}"
        if self._prompt_ids is not None and dataset.get_field(path) is None:
            dataset.add_sample_field(path, fo.ListField, subfield=fo.StringField)
        if self._semantic_field is not None:
            fields.declare(self.samples, self._semantic_field, "Segmentation", description)
            dataset.mask_targets[self._semantic_field] = self._mask_targets
            dataset.save()

    def incomplete(self, ids: Sequence[str]) -> set[str]:
        path = f"{self.name}.{PROMPT_IDS}"
        if self._prompt_ids is None or self.samples._dataset.get_field(path) is None:
            return set()
        done = dict(zip(*unfiltered(self.samples, ids).values(["id", path]), strict=True))
        self._there = {one for one in ids if done.get(one)}
        return {one for one in ids if set(self._prompt_ids[one]) - set(done.get(one) or ())}

    def write(self, labels: Mapping[str, MaskLabels | None]) -> None:
        found = {sample_id: value for sample_id, value in labels.items() if value is not None}
        keeping = self._keep(found)
        if self._semantic_field is not None:
            self._write_semantic(labels, keeping)
        super().write({i: value and value.detections for i, value in labels.items()})
        for value in found.values():
            if value.folder is not None:
                # only now: until the labels are written, the old ones show the old files
                mask_files.remove_stale(value.folder, value.detections[fields.RUN_ATTRIBUTE])

    def _keep(self, found: Mapping[str, MaskLabels]) -> list[str]:
        """Adds the masks of other prompts that this run has written before; samples with such."""
        ids = [one for one in found if one in self._there]
        if not ids:
            return []
        keeping = []
        for sample_id, old in zip(
            *unfiltered(self.samples, ids).values(["id", self.name]), strict=True
        ):
            new = found.get(sample_id)
            mark = fields.RUN_ATTRIBUTE
            if old is None or new is None or old[mark] != new.detections[mark]:
                continue
            again = set(new.detections[PROMPT_IDS])
            kept = [one for one in old.detections if one["source_id"] not in again]
            earlier = [one for one in old[PROMPT_IDS] or () if one not in again]
            new.detections["detections"][:0] = [one.to_mongo() for one in kept]
            new.detections[PROMPT_IDS] = [*earlier, *new.detections[PROMPT_IDS]]
            if kept:
                keeping.append(sample_id)
        return keeping

    def _write_semantic(
        self, labels: Mapping[str, MaskLabels | None], keeping: Sequence[str]
    ) -> None:
        import fiftyone as fo
        import fiftyone.core.utils as fou

        old: dict[str, Any] = {}
        if keeping:
            view = unfiltered(self.samples, keeping)
            old = dict(zip(*view.values(["id", self._semantic_field]), strict=True))
        documents: dict[str, Any] = {}
        for sample_id, value in labels.items():
            if value is None or value.semantic is None:
                documents[sample_id] = None
                continue
            classes = fou.deserialize_numpy_array(value.semantic)
            before = old[sample_id].get_mask() if old.get(sample_id) is not None else None
            if before is not None and before.shape == classes.shape:
                rest = classes == 0
                classes = classes.astype(max(classes.dtype, before.dtype))
                classes[rest] = before[rest]
            label = fo.Segmentation(
                **{fields.RUN_ATTRIBUTE: value.detections[fields.RUN_ATTRIBUTE]}
            )
            if value.semantic_path is None:
                label.mask = classes
            else:
                mask_files.write_classes(value.semantic_path, classes)
                label.mask_path = str(value.semantic_path)
            documents[sample_id] = label.to_mongo()
        writable(self.samples).set_values(
            self._semantic_field, documents, key_field="id", validate=False
        )

"""Where a segmentation puts its masks: a field of labels, files, and one mask of all classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zs_operators import fields, mask_files
from zs_operators.guarded_writes import FieldGuard, LeftAlone
from zs_operators.media_views import FRAMES
from zs_operators.targets import FieldTarget, unfiltered

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
        self._found: dict[str, MaskLabels] = {}

    @property
    def field_names(self) -> Sequence[str]:
        return tuple(filter(None, (self.name, self._semantic_field)))

    def declare(self, description: str) -> None:
        import fiftyone as fo

        fields.declare(
            self.samples, self.name, self.label_type, description, attributes=self._attributes
        )
        dataset = self.samples._dataset
        path = f"{self.name}.{PROMPT_IDS}"
        if self._prompt_ids is not None and dataset.get_field(path) is None:
            dataset.add_sample_field(path, fo.ListField, subfield=fo.StringField)
            fields.share_with_videos(self.samples, self.name)
        if self._semantic_field is not None:
            fields.declare(self.samples, self._semantic_field, "Segmentation", description)
            dataset.mask_targets[self._semantic_field] = self._mask_targets
            dataset.save()
            if dataset._is_generated:
                root = self.samples._root_dataset
                # As a whole: a change of one key with a dot in it cannot be saved
                of_frames = {f"{FRAMES}{self._semantic_field}": self._mask_targets}
                root.mask_targets = {**root.mask_targets, **of_frames}

    def incomplete(self, ids: Sequence[str]) -> set[str]:
        path = f"{self.name}.{PROMPT_IDS}"
        if self._prompt_ids is None or self.samples._dataset.get_field(path) is None:
            return set()
        done = dict(zip(*unfiltered(self.samples, ids).values(["id", path]), strict=True))
        self._there = {one for one in ids if done.get(one)}
        return {one for one in ids if set(self._prompt_ids[one]) - set(done.get(one) or ())}

    def watch(self, ids: Sequence[str], marks: Sequence[str | None]) -> None:
        super().watch(ids, marks)
        name = self._semantic_field
        if name is not None:
            there: set[str] = set()
            if self.samples._dataset.get_field(name) is not None:
                there = set(unfiltered(self.samples, ids).exists(name).values("id"))
            labelled = [one for one in ids if one in there]
            self._guards[name] = FieldGuard(self.samples, name, labelled)

    def prepare(self, labels: Mapping[str, MaskLabels | None]) -> dict[str, dict[str, Any]]:
        self._found = {i: value for i, value in labels.items() if value is not None}
        semantic_before = self._keep(self._found)
        prepared = {}
        if self._semantic_field is not None:
            # first, because the mark that says done is in the other field
            prepared[self._semantic_field] = self._semantic(labels, semantic_before)
        labels = {i: value and value.detections for i, value in labels.items()}
        return {**prepared, **super().prepare(labels)}

    def write(self, prepared: Mapping[str, Mapping[str, Any]]) -> LeftAlone:
        left = super().write(prepared)
        for sample_id, value in self._found.items():
            if value.folder is not None and sample_id not in left.edited:
                # only now: until the labels are written, the old ones show the old files
                mask_files.remove_stale(value.folder, value.detections[fields.RUN_ATTRIBUTE])
        return left

    def _keep(self, found: Mapping[str, MaskLabels]) -> dict[str, Any]:
        """Adds the masks of other prompts that this run has written before.

        Returns:
            the semantic masks of samples with such, by id
        """
        ids = [one for one in found if one in self._there]
        if not ids:
            return {}
        wanted = [self.name, self._semantic_field or self.name]
        columns = unfiltered(self.samples, ids).values(["id", *wanted])
        semantic: dict[str, Any] = {}
        for sample_id, old, classes in zip(*columns, strict=True):
            new = found.get(sample_id)
            mark = fields.RUN_ATTRIBUTE
            if old is None or new is None or old[mark] != new.detections[mark]:
                continue
            again = set(new.detections[PROMPT_IDS])
            kept = [one for one in old.detections if one["source_id"] not in again]
            earlier = [one for one in old[PROMPT_IDS] or () if one not in again]
            new.detections["detections"][:0] = [one.to_mongo() for one in kept]
            new.detections[PROMPT_IDS] = [*earlier, *new.detections[PROMPT_IDS]]
            if kept and self._semantic_field is not None:
                semantic[sample_id] = classes
        return semantic

    def _semantic(
        self, labels: Mapping[str, MaskLabels | None], old: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One mask of all classes a sample, on top of the old one where there is one."""
        import fiftyone as fo
        import fiftyone.core.utils as fou

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
        return documents

"""zs.segment on drawn scenes: prompts of every kind, native masks, and what becomes of samples."""

from __future__ import annotations

import json
import os
import shutil
from itertools import chain, pairwise

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F
from PIL import Image
from segment_anything import SamPredictor

import zs_operators as zs
from zs_operators import mask_labels, provenance, runner
from zs_operators.errors import FieldError, InvalidInputError, RunError, SamplesError
from zs_operators.proposals import load_proposer
from zs_operators.sam import SamModel
from zs_operators.shapes.world import CLASSES

pytestmark = pytest.mark.usefixtures("store_dir")
NUM_SCENES = 8

NAMES = list(CLASSES)
FEW_POINTS = {"points_per_side": 8, "min_iou": 0.6, "min_stability": 0.8}


@pytest.fixture(scope="module")
def sam():
    return zs.load_sam("shapes-tiny", precision="fp32")


@pytest.fixture(scope="module")
def proposer():
    return load_proposer("shapes-tiny", precision="fp32", max_proposals=50)


def segment(samples, sam, **arguments):
    defaults = {"model": sam, "progress": False, "prompts": "objects"}
    return zs.segment(samples, **defaults | arguments)


def flat(samples, path):
    return list(chain.from_iterable(samples.values(path)))


def full(label, size):
    """The mask of a label on the whole image; its box must be whole pixels."""
    width, height = size
    x, y, w, h = np.multiply(label.bounding_box, (width, height, width, height))
    corners = np.array([x, y, x + w, y + h])
    x1, y1, x2, y2 = np.rint(corners).astype(int)
    assert np.abs(corners - (x1, y1, x2, y2)).max() < 1e-6
    mask = label.get_mask()
    assert mask.shape == (y2 - y1, x2 - x1)
    pixels = np.zeros((height, width), dtype=bool)
    pixels[y1:y2, x1:x2] = mask > 0
    return pixels


def iou(a, b):
    return (a & b).sum() / max(1, (a | b).sum())


def size_of(sample):
    with Image.open(sample.filepath) as image:
        return image.size


def same(first, second):
    return json.dumps(plain(first)) == json.dumps(plain(second))


def plain(samples_field):
    """Everything of labels but their own ids."""
    return [
        [
            {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in d.to_dict().items()}
            | {"_id": None, "mask": None if d.get_mask() is None else d.get_mask().tolist()}
            for d in (found.detections if found is not None else ())
        ]
        for found in samples_field
    ]


def test_boxes_become_the_predictor_s_masks_and_keep_what_they_say(scenes, sam):
    first = scenes.first()
    for number, label in enumerate(first.objects.detections):
        label["index"], label["confidence"] = number + 7, 0.5
    first.save()
    before = [found.to_dict() for found in scenes.values("objects")]
    report = segment(scenes, sam, semantic_field="classes")

    assert report.counts == {"labeled": 8}
    assert [found.to_dict().keys() for found in scenes.values("objects")] == [
        one.keys() for one in before
    ]
    predictor = SamPredictor(sam.module)
    for sample in scenes:
        with Image.open(sample.filepath) as image:
            predictor.set_image(np.asarray(image.convert("RGB")))
            size = image.size
        for source, label in zip(
            sample.objects.detections, sample.zs_masks.detections, strict=True
        ):
            box = np.multiply(source.bounding_box, (*size, *size))
            box[2:] += box[:2]
            logits, scores, _ = predictor.predict(
                box=box, multimask_output=False, return_logits=True
            )
            certain = np.abs(logits[0]) > 1e-3
            mine = full(label, size)
            np.testing.assert_array_equal(mine[certain], (logits[0] > 0)[certain])
            assert mine.sum() == label.area_px == label.mask.sum()
            assert label.mask.dtype == bool
            assert label.mask[[0, -1]].any(axis=1).all()  # tight
            assert label.mask[:, [0, -1]].any(axis=0).all()
            assert label.predicted_iou == pytest.approx(float(np.clip(scores[0], 0, 1)), abs=1e-4)
            assert 0 <= label.stability <= 1
            assert (label.label, label.source_id) == (source.label, source.id)
    labels = scenes.first().zs_masks.detections
    assert [label.index for label in labels] == [n + 7 for n in range(len(labels))]
    assert {label.confidence for label in labels} == {0.5}


def test_masks_evaluate_natively(scenes, sam):
    segment(scenes, sam)
    results = scenes.evaluate_detections(
        "zs_masks", gt_field="objects", use_masks=True, iou=0.75, eval_key="eval", progress=False
    )
    assert results.metrics()["recall"] > 0.85
    for name in ("predicted_iou", "stability", "area_px", "source_id"):
        assert scenes.get_field(f"zs_masks.detections.{name}") is not None


def test_points_prompt_with_their_labels(scenes, sam):
    """One point inside an object; then one more that takes it back."""
    groups = {}
    for sample in scenes:
        width, height = size_of(sample)
        found = []
        for label in sample.objects.detections:
            rows, columns = np.nonzero(full_truth(label, (width, height)))
            middle = len(rows) // 2
            point = ((columns[middle] + 0.5) / width, (rows[middle] + 0.5) / height)
            found.append(fo.Keypoint(label=label.label, points=[point]))
        groups[sample.id] = fo.Keypoints(keypoints=found)
    scenes.set_values("points", groups, key_field="id")
    segment(scenes, sam, prompts="points")
    overlaps = [
        iou(full(mask, size_of(sample)), full_truth(truth, size_of(sample)))
        for sample in scenes
        for mask, truth in zip(sample.zs_masks.detections, sample.objects.detections, strict=True)
    ]
    assert np.mean(overlaps) > 0.75
    assert flat(scenes, "zs_masks.detections.source_id") == flat(scenes, "points.keypoints.id")

    sample = scenes.first()
    one = sample.points.keypoints[0]
    nan = float("nan")
    one.points = [*one.points, (0.01, 0.01), (nan, nan)]
    one["sam_labels"] = [1, 0, 1]
    lost = fo.Keypoint(points=[(1.5, 0.5)])
    sample.points.keypoints = [one, lost]
    sample.save()
    report = segment(scenes, sam, prompts="points", label_field="again")
    assert [label.source_id for label in scenes.first().again.detections] == [one.id]
    assert any("no point on the object" in warning for warning in report.warnings)


def full_truth(label, size):
    """The object's own mask on the whole image, placed as the scene was drawn."""
    width, height = size
    x, y = np.rint(np.multiply(label.bounding_box[:2], (width, height))).astype(int)
    pixels = np.zeros((height, width), dtype=bool)
    rows, columns = label.mask.shape
    pixels[y : y + rows, x : x + columns] = label.mask
    return pixels


def test_single_labels_patches_and_selected_labels_prompt(scenes, sam):
    scenes.set_values("single", [found.detections[0].copy() for found in scenes.values("objects")])
    segment(scenes, sam, prompts="single", label_field="from_single")
    assert scenes.count("from_single.detections") == len(scenes)

    ids = [found.detections[-1].id for found in scenes.values("objects")][:3]
    selected = scenes.select_labels(ids=ids, fields="objects")
    segment(selected, sam, label_field="a")
    patches = scenes.to_patches("objects").select_labels(ids=ids, fields="objects")
    segment(patches, sam, label_field="b")
    for field in ("a", "b"):
        assert sorted(flat(scenes.exists(field), f"{field}.detections.source_id")) == sorted(ids)


def test_prompting_with_some_more_keeps_the_masks_there_are(scenes, sam, tmp_path):
    sample = next(s for s in scenes if len(s.objects.detections) >= 3)
    ids = [label.id for label in sample.objects.detections]
    options = {"semantic_field": "classes", "output_dir": tmp_path / "masks"}
    for chosen in (ids[:1], ids[1:2], ids[:2]):
        view = scenes.select_labels(ids=chosen, fields="objects")
        report = segment(view, sam, **options)
    assert report.resumed == 1  # nothing was left to do
    sample = scenes[sample.id]
    assert [label.source_id for label in sample.zs_masks.detections] == ids[:2]
    painted = sample.classes.get_mask() > 0
    masks = [full(label, size_of(sample)) for label in sample.zs_masks.detections]
    np.testing.assert_array_equal(painted, masks[0] | masks[1])
    with pytest.raises(FieldError, match="overwrite"):
        segment(scenes.select_labels(ids=ids[:1], fields="objects"), sam, min_iou=0.1, **options)

    segment(scenes, sam, **options)
    assert sorted(flat(scenes, "zs_masks.detections.source_id")) == sorted(
        flat(scenes, "objects.detections.id")
    )


def test_samples_without_prompts_and_boxes_outside_cost_nobody_theirs(scenes, sam):
    nan = float("nan")
    bad = [[1.2, 0.2, 0.2, 0.2], [0.1, 0.1, -0.2, 0.1], [nan, 0, 0.5, 0.5], [0.2, 0.2, 0, 0.1]]
    labels = [fo.Detection(label="x", bounding_box=box) for box in [*bad, [-0.1, 0.1, 0.6, 0.6]]]
    first, second, third = scenes.values("id")[:3]
    values = {first: fo.Detections(detections=labels), second: fo.Detections(), third: None}
    scenes.set_values("objects", values, key_field="id")
    report = segment(scenes, sam)

    assert report.counts == {"labeled": 6, "no_prompts": 2}
    assert [label.source_id for label in scenes[first].zs_masks.detections] == [labels[4].id]
    assert scenes[second].zs_masks.detections == scenes[third].zs_masks.detections == []
    assert sum(int(w.split()[0]) for w in report.warnings if "could not be used" in w) == 4
    # What cannot be used is not tried again
    assert segment(scenes, sam).resumed == 8


def test_one_unreadable_scene_costs_one_label(scenes, sam, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    box = fo.Detection(label="x", bounding_box=[0, 0, 1, 1])
    scenes.add_sample(fo.Sample(filepath=str(broken), objects=fo.Detections(detections=[box])))
    report = segment(scenes, sam, batch_size=4)
    assert report.counts == {"labeled": 8, "unreadable_media": 1}
    assert scenes.last().zs_masks is None
    assert scenes.last().zs_masks_error.startswith("unreadable_media")


def test_masks_too_large_for_the_database_are_that_sample_s_failure(scenes, sam, monkeypatch):
    sizes = [sum(len(d.mask.tobytes()) for d in found.detections) for found in objects(scenes)]
    monkeypatch.setattr(mask_labels, "_MAX_DOCUMENT_BYTES", 500)
    with pytest.raises(RunError, match="output_dir"):
        segment(scenes, sam)
    assert len(sizes) == scenes.count("zs_masks_error")
    monkeypatch.undo()
    assert segment(scenes, sam, overwrite=True).counts == {"labeled": 8}
    assert scenes.count("zs_masks_error") == 0


def objects(samples):
    return samples.values("objects")


def test_text_to_mask_keeps_box_class_and_mask_quality(scenes, sam, clip, proposer):
    options = {"proposals": proposer, "min_confidence": 0.3}
    report = segment(scenes, sam, prompts="proposals", classes=NAMES, clip=clip, **options)
    zs.detect(scenes, NAMES, model=clip, progress=False, **options)
    for name in ("label", "runners_up"):
        path = f"detections.{name}"
        assert scenes.values(f"zs_masks.{path}") == scenes.values(f"zs_detections.{path}")
    for name in ("confidence", "cosine", "margin", "objectness"):
        mine, theirs = (
            flat(scenes, f"{f}.detections.{name}") for f in ("zs_masks", "zs_detections")
        )
        assert mine == pytest.approx(theirs, abs=1e-4)
    results = scenes.evaluate_detections(
        "zs_masks", gt_field="objects", use_masks=True, eval_key="eval", progress=False
    )
    assert results.metrics()["recall"] > 0.8
    assert sum(report.labels.values()) == scenes.count("zs_masks.detections")
    # Boxes that prompted, instead of boxes of the masks
    segment(
        scenes, sam, prompts="proposals", classes=NAMES, clip=clip, label_field="in_boxes",
        tight_boxes=False, **options,
    )  # fmt: skip
    for sample in scenes:
        width, height = size_of(sample)
        for box, mask in zip(
            sample.zs_detections.detections, sample.in_boxes.detections, strict=True
        ):
            x, y, w, h = np.multiply(box.bounding_box, (width, height, width, height))
            expected = [np.floor(x), np.floor(y), np.ceil(x + w), np.ceil(y + h)]
            rows, columns = np.nonzero(full(mask, (width, height)))
            assert columns.min() >= expected[0]
            assert rows.max() < expected[3]
            found = np.multiply(mask.bounding_box[:2], (width, height))
            np.testing.assert_allclose(found, expected[:2], atol=1e-6)


def test_everything_finds_objects_and_clip_names_them(scenes, sam, clip):
    segment(scenes, sam, prompts="everything", **FEW_POINTS)
    found = flat(scenes, "zs_masks.detections.label")
    assert found
    assert set(found) == {None}
    assert flat(scenes, "zs_masks.detections.confidence") == flat(
        scenes, "zs_masks.detections.predicted_iou"
    )
    assert min(flat(scenes, "zs_masks.detections.predicted_iou")) >= 0.6
    assert min(flat(scenes, "zs_masks.detections.stability")) >= 0.8

    segment(
        scenes, sam, prompts="everything", classes=NAMES, clip=clip, label_field="named",
        min_confidence=0.3, semantic_field="classes", **FEW_POINTS,
    )  # fmt: skip
    results = scenes.evaluate_detections(
        "named", gt_field="objects", use_masks=True, eval_key="eval", progress=False
    )
    assert results.metrics()["precision"] > 0.6
    assert results.metrics()["recall"] > 0.6
    limited = segment(
        scenes, sam, prompts="everything", label_field="two", max_masks=2, **FEW_POINTS
    )
    assert limited.counts["labeled"] > 0
    assert max(len(found.detections) for found in scenes.values("two")) == 2


def test_files_hold_the_same_masks_and_only_those_of_the_last_run(scenes, sam, tmp_path):
    segment(scenes, sam, label_field="inside")
    folder = tmp_path / "masks"
    segment(scenes, sam, label_field="outside", output_dir=folder, semantic_field="classes")
    for sample in scenes:
        size = size_of(sample)
        for a, b in zip(sample.inside.detections, sample.outside.detections, strict=True):
            assert b.mask is None
            assert os.path.isabs(b.mask_path)
            np.testing.assert_array_equal(full(a, size), full(b, size))
        assert sample.classes.mask is None
        assert sample.classes.get_mask().shape == size[::-1]
    before = set(folder.rglob("outside/**/*.png"))
    assert before == {*map(type(folder), flat(scenes, "outside.detections.mask_path"))}
    mine = next(iter(before)).with_name("mine.png")
    mine.write_bytes(b"not yours")
    segment(
        scenes, sam, label_field="outside", output_dir=folder, semantic_field="classes",
        overwrite=True, fill_holes_px=5,
    )  # fmt: skip
    after = set(folder.rglob("outside/**/*.png"))
    assert not (before & after)
    assert mine in after
    assert after - {mine} == {*map(type(folder), flat(scenes, "outside.detections.mask_path"))}


def test_semantic_masks_are_painted_small_over_large_with_stable_values(scenes, sam):
    segment(scenes.limit(4), sam, semantic_field="classes")
    before = dict(scenes.mask_targets["classes"])
    segment(scenes, sam, semantic_field="classes")
    targets = scenes.mask_targets["classes"]
    assert {value: targets[value] for value in before} == before
    assert sorted(targets) == list(range(1, len(targets) + 1))
    values = {name: value for value, name in targets.items()}
    for sample in scenes:
        size = size_of(sample)
        expected = np.zeros(size[::-1], dtype=int)
        for label in sorted(sample.zs_masks.detections, key=lambda d: -d.area_px):
            expected[full(label, size)] = values[label.label]
        np.testing.assert_array_equal(sample.classes.mask, expected)
    with pytest.raises(FieldError, match="classes"):
        segment(scenes, sam, label_field="other", semantic_field="classes")


def test_stored_embeddings_give_the_same_masks_without_reading_or_encoding(
    scenes, sam, monkeypatch
):
    first = segment(scenes, sam, embeddings="reuse")
    assert first.reused == 0

    def must_not_run(*_):
        raise AssertionError("the encoder ran")

    monkeypatch.setattr(SamModel, "_encode", must_not_run)
    monkeypatch.setattr("zs_operators.segmenter.read_image", must_not_run)
    assert segment(scenes, sam, embeddings="reuse", label_field="again").reused == 8
    monkeypatch.undo()
    assert same(scenes.values("zs_masks"), scenes.values("again"))


@pytest.mark.parametrize("prompts", ["proposals", "everything"])
def test_class_names_are_encoded_once(scenes, sam, clip, proposer, monkeypatch, prompts):
    options = {"prompts": prompts, "clip": clip, "classes": NAMES, "embeddings": "reuse"}
    options |= {"proposals": proposer, **FEW_POINTS}
    some = scenes.limit(2)
    segment(some, sam, **options)

    asked = []
    real = type(clip).encode_texts
    monkeypatch.setattr(
        type(clip),
        "encode_texts",
        lambda self, texts, *a, **k: asked.extend(texts) or real(self, texts, *a, **k),
    )
    segment(some, sam, label_field="again", **options)
    assert asked == []
    assert same(some.values("zs_masks"), some.values("again"))


def test_a_changed_file_or_model_is_encoded_again(scenes, sam, monkeypatch, tmp_path):
    copies = [shutil.copy(path, tmp_path) for path in scenes.values("filepath")]
    scenes.set_values("filepath", copies)
    segment(scenes, sam, embeddings="reuse")
    with Image.open(copies[0]) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(copies[0])
    counted = []
    encode = SamModel._encode

    def counting(self, frames):
        counted.append(len(frames))
        return encode(self, frames)

    monkeypatch.setattr(SamModel, "_encode", counting)
    segment(scenes, sam, embeddings="reuse", label_field="again")
    assert sum(counted) == 1
    counted.clear()
    segment(scenes, sam, embeddings="refresh", label_field="anew")
    assert sum(counted) == 8
    counted.clear()
    other = zs.load_sam("shapes-tiny", precision="bf16")
    segment(scenes, other, embeddings="reuse", label_field="other")
    assert sum(counted) == 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_lie_on_the_upright_image(scenes, sam, dataset, tmp_path, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    source = scenes.first()
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(source.filepath) as image:
        turned = image.transpose(undo[orientation]) if orientation in undo else image
        turned.save(path, exif=exif)
    dataset.add_sample(fo.Sample(filepath=str(path), objects=source.objects.copy()))
    segment(dataset, sam)
    size = size_of(source)
    for label, truth in zip(
        dataset.first().zs_masks.detections, source.objects.detections, strict=True
    ):
        assert iou(full(label, size), full_truth(truth, size)) > 0.6


def test_very_large_images_work(dataset, sam, tmp_path):
    path = tmp_path / "large.jpg"
    image = Image.new("RGB", (8400, 6000), (60, 70, 80))
    image.paste((220, 30, 40), (2000, 1500, 5000, 4500))
    image.save(path)
    box = [2000 / 8400, 1500 / 6000, 3000 / 8400, 3000 / 6000]
    labels = fo.Detections(detections=[fo.Detection(label="red square", bounding_box=box)])
    dataset.add_sample(fo.Sample(filepath=str(path), objects=labels))
    segment(dataset, sam)
    (label,) = dataset.first().zs_masks.detections
    truth = np.zeros((6000, 8400), dtype=bool)
    truth[1500:4500, 2000:5000] = True
    assert iou(full(label, (8400, 6000)), truth) > 0.85


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (640, 3)])
def test_images_of_any_shape_work(dataset, sam, tmp_path, size):
    path = tmp_path / "odd.png"
    Image.new("RGB", size, (200, 30, 40)).save(path)
    labels = fo.Detections(detections=[fo.Detection(label="x", bounding_box=[0, 0, 1, 1])])
    dataset.add_sample(fo.Sample(filepath=str(path), objects=labels))
    report = segment(dataset, sam)
    assert set(report.counts) <= {"labeled", "nothing_found"}
    segment(dataset, sam, prompts="everything", label_field="every", points_per_side=4)


def test_results_do_not_depend_on_batches_threads_or_an_interruption(scenes, sam, monkeypatch):
    segment(scenes, sam, label_field="one", batch_size=1, workers=0)
    segment(scenes, sam, label_field="two", batch_size=4, workers=4)
    close(scenes, "one", "two")

    monkeypatch.setattr(runner, "CHUNK_SAMPLES", 3)
    steps = zs.iter_segment(
        scenes, model=sam, prompts="objects", label_field="three", batch_size=1, workers=0
    )
    for progress in steps:
        if progress.done:
            break
    steps.close()
    assert 0 < len(scenes.exists("three")) < 8
    report = segment(scenes, sam, label_field="three", batch_size=1, workers=0)
    assert report.resumed == 3
    assert same(scenes.values("one"), scenes.values("three"))


def close(samples, first, second):
    for a, b in zip(
        flat(samples, f"{first}.detections"), flat(samples, f"{second}.detections"), strict=True
    ):
        assert a.source_id == b.source_id
        assert a.area_px == pytest.approx(b.area_px, abs=3)
        assert a.predicted_iou == pytest.approx(b.predicted_iou, abs=1e-3)


def test_apply_model_writes_the_same_masks(scenes, sam, clip):
    segment(scenes, sam)
    model = zs.SamSegmenter("objects", model=sam)
    scenes.apply_model(model, "theirs", batch_size=2, num_workers=0, progress=False)
    close(scenes, "zs_masks", "theirs")

    view = scenes.limit(2)
    options = {"classes": NAMES, "clip": clip, **FEW_POINTS}
    segment(view, sam, prompts="everything", label_field="named", **options)
    model = zs.SamSegmenter(model=sam, **options)
    view.apply_model(model, "theirs_named", batch_size=1, num_workers=0, progress=False)
    assert view.values("named.detections.label") == view.values("theirs_named.detections.label")
    with Image.open(scenes.first().filepath) as image:
        found = model.predict(np.asarray(image.convert("RGB")))
    assert [d.label for d in found.detections] == view.values("named.detections.label")[0]


def test_masks_survive_an_export_to_coco(scenes, sam, tmp_path):
    segment(scenes, sam)
    # Without it COCO keeps outlines, which have no holes; with it run lengths, which are exact
    crowd = [[1] * len(found.detections) for found in scenes.values("zs_masks")]
    scenes.set_values("zs_masks.detections.iscrowd", crowd)
    folder, kind = str(tmp_path / "out"), fo.types.COCODetectionDataset
    scenes.export(folder, dataset_type=kind, label_field="zs_masks", progress=False)
    back = fo.Dataset.from_dir(
        folder, dataset_type=kind, label_types="segmentations", progress=False
    )
    others = {os.path.basename(sample.filepath): sample for sample in back}
    for sample in scenes:
        size = size_of(sample)
        found = others[os.path.basename(sample.filepath)].ground_truth.detections
        assert len(found) == len(sample.zs_masks.detections)
        for mine, label in zip(sample.zs_masks.detections, found, strict=True):
            np.testing.assert_array_equal(full(mine, size), placed(label, size))
            assert mine.label == label.label
    back.delete()


def test_masks_survive_an_export_to_yolo(scenes, sam, tmp_path):
    # YOLO's outlines have neither holes nor separate parts
    segment(scenes, sam, fill_holes_px=10**6, drop_islands_px=10**6)
    for sample in scenes.iter_samples(autosave=True):
        sample["outlines"] = sample.zs_masks.to_polylines(tolerance=0)
    folder, kind = str(tmp_path / "out"), fo.types.YOLOv5Dataset
    scenes.export(folder, dataset_type=kind, label_field="outlines", progress=False)
    back = fo.Dataset.from_dir(folder, dataset_type=kind, label_type="polylines", progress=False)
    others = {os.path.basename(sample.filepath): sample for sample in back}
    for sample in scenes:
        size = size_of(sample)
        lines = others[os.path.basename(sample.filepath)].ground_truth.polylines
        found = [line.to_detection(frame_size=size) for line in lines]
        for mine, label in zip(sample.zs_masks.detections, found, strict=True):
            # an outline runs through the centres of its pixels and loses half of each
            assert iou(full(mine, size), placed(label, size)) > 0.8
            assert mine.label == label.label
    back.delete()


def placed(label, size):
    """As :func:`full`, of a box that an export has rounded."""
    width, height = size
    x, y = np.rint(np.multiply(label.bounding_box[:2], (width, height))).astype(int)
    pixels = np.zeros((height, width), dtype=bool)
    part = pixels[y : y + label.mask.shape[0], x : x + label.mask.shape[1]]
    part[:] = label.mask[: part.shape[0], : part.shape[1]]
    return pixels


def test_clean_masks_have_no_holes_and_no_islands(scenes, sam):
    from scipy import ndimage

    segment(scenes, sam, label_field="raw")
    segment(scenes, sam, label_field="clean", fill_holes_px=10_000, drop_islands_px=10_000)
    changed = 0
    for raw, label in zip(
        flat(scenes, "raw.detections"), flat(scenes, "clean.detections"), strict=True
    ):
        assert ndimage.label(label.mask, np.ones((3, 3)))[1] == 1
        assert label.area_px == label.mask.sum()
        changed += raw.area_px != label.area_px
    assert changed


def test_thresholds_leave_out_masks(scenes, sam):
    segment(scenes, sam, label_field="raw")
    quality = sorted(flat(scenes, "raw.detections.predicted_iou"))
    middle = quality[len(quality) // 2]
    segment(scenes, sam, min_iou=middle)
    assert sorted(flat(scenes, "zs_masks.detections.predicted_iou")) == [
        q for q in quality if q >= middle
    ]
    assert segment(scenes, sam, label_field="none", min_stability=1.0).counts == {
        "nothing_found": 8
    }


def test_the_record_says_what_decides_masks(scenes, sam, clip, proposer):
    segment(scenes, sam)
    record = provenance.find(scenes, "segment", "zs_masks")
    assert len(record["model"]["weights_sha256"]) == 64
    assert record["masks"]["multimask"] == "best"
    assert record["prompts"] == "objects"
    segment(scenes, sam, prompts="proposals", classes=NAMES, clip=clip, proposals=proposer,
            label_field="named")  # fmt: skip
    record = provenance.find(scenes, "segment", "named")
    assert len(record["clip"]["weights_sha256"]) == len(record["proposer"]["weights_sha256"]) == 64
    json.dumps(record, default=str)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompts": "nothing"}, FieldError, "objects"),
        ({"prompts": "tags"}, FieldError, "boxes or keypoints"),
        ({"prompts": "proposals"}, InvalidInputError, "needs classes"),
        ({"classes": NAMES}, InvalidInputError, "keeps the names"),
        ({"multimask": "all"}, InvalidInputError, "multimask"),
        ({"min_iou": 2}, InvalidInputError, "min_iou"),
        ({"max_masks": 0}, InvalidInputError, "max_masks"),
        ({"points_per_side": 0}, InvalidInputError, "points_per_side"),
        ({"min_confidence": 0.5}, InvalidInputError, "min_confidence"),
        ({"embeddings": "yes"}, InvalidInputError, "refresh"),
        ({"label_field": "objects"}, FieldError, "overwrit"),
        ({"semantic_field": "zs_masks"}, FieldError, "another name"),
        ({"semantic_field": "objects"}, FieldError, "Segmentation"),
        ({"prompts": "everything", "semantic_field": "a"}, InvalidInputError, "names"),
        ({"output_dir": "/dev/null/masks"}, InvalidInputError, "/dev/null"),
        ({"batch_size": 0}, InvalidInputError, "batch_size"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    scenes, sam, arguments, error, message
):
    schema = set(scenes.get_field_schema(flat=True))
    with pytest.raises(error, match=message):
        segment(scenes, sam, **arguments)
    assert set(scenes.get_field_schema(flat=True)) == schema
    assert scenes.list_runs() == []


def test_patches_of_another_field_are_refused(scenes, sam):
    scenes.clone_sample_field("objects", "copies")
    with pytest.raises(SamplesError, match="prompts='copies'"):
        segment(scenes.to_patches("copies"), sam)


def test_only_the_labels_of_a_filtered_view_prompt(scenes, sam):
    label = scenes.first().objects.detections[0].label
    view = scenes.filter_labels("objects", F("label") == label)
    segment(view, sam)
    assert set(flat(view, "zs_masks.detections.label")) == {label}


def test_best_masks_come_first_for_everything(scenes, sam):
    segment(scenes, sam, prompts="everything", **FEW_POINTS)
    for found in scenes.values("zs_masks.detections.predicted_iou"):
        assert all(a >= b for a, b in pairwise(found))

"""Labelled samples of a dataset make its other samples come out right, and nothing else changes."""

from dataclasses import replace

import fiftyone as fo
import numpy as np
import pytest

import zs_operators as zs
from tests.head_worlds import MODEL, POOR_NAMES
from zs_operators import provenance
from zs_operators.classifier import ClassifyOptions, ZeroShotClassifier
from zs_operators.detector import ZeroShotDetector
from zs_operators.errors import FieldError, InvalidInputError
from zs_operators.shapes.dataset import SCENE
from zs_operators.vocabulary import Vocabulary

RUN = {**MODEL, "embeddings": "reuse", "progress": False, "overwrite": True}


def right(samples, field, truth="shape"):
    found, wanted = samples.values([f"{field}.label", f"{truth}.label"])
    return np.mean([one == other for one, other in zip(found, wanted, strict=True)])


def test_images_never_seen_come_out_right(reviewed, rest, head):
    zs.classify(rest, POOR_NAMES, label_field="plain", **RUN)
    report = zs.classify(rest, POOR_NAMES, label_field="sharp", head=head, **RUN)
    assert right(rest, "plain") < 0.7
    assert right(rest, "sharp") > right(rest, "plain") + 0.2
    assert report.reused == len(rest)
    assert report.warnings == ()

    told = head.report
    assert sum(told.shots.values()) == 60
    assert set(told.shots) == set(POOR_NAMES)
    assert told.unsupported == ()
    assert told.unsupported_after is told.harmonic_after is None
    assert told.supported_after > told.supported_before + 0.2
    assert abs(told.supported_after - right(rest, "sharp")) < 0.15
    assert told.to_dict() == type(told).from_dict(told.to_dict()).to_dict()
    assert "with examples (S)" in str(told)


def test_classes_without_samples_keep_their_chances(reviewed, rest):
    have = ["cross", "ring", "heart", "arrow", "circle", "square"]
    few = reviewed.match(fo.ViewField("shape.label").is_in(have))
    head = zs.fit_head(few, POOR_NAMES, "shape", progress=False, **MODEL)
    assert head.report.unsupported == ("triangle", "star")
    assert head.report.harmonic_after > head.report.harmonic_before
    zs.classify(rest, POOR_NAMES, label_field="plain", **RUN)
    zs.classify(rest, POOR_NAMES, label_field="sharp", head=head, **RUN)
    lack = rest.match(fo.ViewField("shape.label").is_in(["triangle", "star"]))
    others = rest.match(fo.ViewField("shape.label").is_in(have))
    assert right(lack, "sharp") >= right(lack, "plain") - 0.1
    assert right(lack, "sharp") > 0.7
    assert right(others, "sharp") > right(others, "plain") + 0.2


def test_alpha_zero_is_zero_shot_to_the_last_bit(rest, head):
    idle = replace(head, alpha=0.0)
    for name, found in (("plain", None), ("idle", idle), ("sharp", head)):
        zs.classify(rest, POOR_NAMES, label_field=name, head=found, store_logits=True, **RUN)
    for what in ("label", "confidence", "margin", "cosine"):
        assert rest.values(f"plain.{what}") == rest.values(f"idle.{what}"), what
    assert np.array_equal(rest.values("plain.logits"), rest.values("idle.logits"))
    assert rest.values("plain.margin") != rest.values("sharp.margin")
    assert rest.values("plain.label") != rest.values("sharp.label")


def test_classes_go_by_name_not_by_order(rest, head, clip):
    turned = dict(reversed(POOR_NAMES.items()))
    embeddings = np.eye(clip.dim, dtype=np.float32)[:20]
    rows = []
    for classes in (POOR_NAMES, turned):
        classifier = ZeroShotClassifier(clip, Vocabulary.parse(classes), head=head)
        logits = classifier.decide(embeddings)[0].logits
        rows.append(logits[:, [classifier.vocabulary.labels.index(name) for name in POOR_NAMES]])
    assert np.allclose(*rows, atol=1e-4)


def test_none_means_the_classes_it_was_fitted_for(rest, head):
    zs.classify(rest, None, label_field="own", head=head, **RUN)
    zs.classify(rest, POOR_NAMES, label_field="sharp", head=head, **RUN)
    assert rest.values("own.confidence") == rest.values("sharp.confidence")
    with pytest.raises(InvalidInputError):
        zs.classify(rest, None, label_field="own", **RUN)


def test_the_record_says_which_head_and_another_is_another_run(rest, head):
    zs.classify(rest, POOR_NAMES, label_field="sharp", head=head, **RUN)
    record = provenance.find(rest, "classify", "sharp")
    assert record["head"] == head.digest
    assert record["head_details"]["method"] == head.method
    other = replace(head, alpha=head.alpha / 2)
    assert other.digest != head.digest
    with pytest.raises(FieldError, match=r"other settings|did not write"):
        zs.classify(
            rest, POOR_NAMES, label_field="sharp", head=other, **{**RUN, "overwrite": False}
        )


@pytest.mark.parametrize(
    ("classes", "options", "says"),
    [
        (["circle", "square"], {}, "has 'triangle', 'star', 'cross' and 3 more besides"),
        ({**POOR_NAMES, "pie": ["pie"]}, {}, "does not know 'pie'"),
        (POOR_NAMES, {"templates": "none"}, "other prompts for these classes"),
        (POOR_NAMES, {"background": ["nothing"]}, "does not know 'nothing'"),
        ({**POOR_NAMES, "star": ["a star"]}, {}, "other prompts"),
    ],
)
def test_other_words_are_refused(rest, head, classes, options, says):
    with pytest.raises(InvalidInputError, match=says):
        zs.classify(rest, classes, label_field="no", head=head, **RUN, **options)
    assert not rest.has_field("no")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("architecture", "another architecture"),
        ("weights_sha256", "other weights"),
        ("preprocessing", "another preprocessing"),
    ],
)
def test_another_model_is_refused(clip, head, key, says):
    other = replace(head, model={**head.model, key: "other"})
    with pytest.raises(InvalidInputError, match=says):
        ZeroShotClassifier(clip, Vocabulary.parse(POOR_NAMES), head=other)
    with pytest.raises(InvalidInputError, match=says):
        ZeroShotDetector(clip, Vocabulary.parse(POOR_NAMES), head=other)


def test_several_labels_an_image_compare_with_background_of_the_head(reviewed, rest, clip):
    background = ["a photo.", "nothing"]
    found = zs.fit_head(
        reviewed, POOR_NAMES, "shape", background=background, progress=False, **MODEL
    )
    words = Vocabulary.parse(POOR_NAMES, background=background)
    options = ClassifyOptions(multi_label=True)
    assert ZeroShotClassifier(clip, words, options, head=found).vocabulary.background
    fitted = zs.fit_head(reviewed.limit(20), POOR_NAMES, "shape", progress=False, **MODEL)
    with pytest.raises(InvalidInputError, match=r"does not know 'a photo\."):
        zs.classify(rest, POOR_NAMES, label_field="no", multi_label=True, head=fitted, **RUN)


def test_boxes_are_samples_too(shapes, head):
    scenes = shapes.match_tags(SCENE)
    learned, other = scenes[:14], scenes[14:26]
    boxes = zs.fit_head(learned, POOR_NAMES, "shape_boxes", progress=False, **MODEL)
    assert boxes.embedding["method"] == "crops"
    assert sum(boxes.report.shots.values()) == learned.count("shape_boxes.detections")
    again = zs.fit_head(learned, POOR_NAMES, "shape_boxes", progress=False, **MODEL)
    assert (again.report.embedded, again.report.reused) == (0, 14)
    assert again.digest == boxes.digest

    def named(field, **options):
        report = zs.detect(
            other, POOR_NAMES, label_field=field, regions="shape_boxes", **RUN, **options
        )
        paths = (f"{field}.detections.label", "shape_boxes.detections.label")
        found, wanted = (np.concatenate(other.values(path)) for path in paths)
        return report, np.mean(found == wanted)

    _, before = named("named_plain")
    report, after = named("named", head=boxes)
    assert after > before + 0.15
    assert report.warnings == ()
    assert provenance.find(other, "detect", "named")["head"] == boxes.digest
    report, _ = named("named_by_images", head=head)
    assert "fitted on whole images and is used on boxes" in report.warnings[0]


def test_labels_of_no_class_and_files_that_are_gone_are_counted(reviewed, tmp_path):
    few = fo.Dataset()
    few.add_samples([sample.copy() for sample in reviewed.limit(12)])
    sample = fo.Sample(filepath=str(tmp_path / "gone.png"), shape=fo.Classification(label="star"))
    few.add_sample(sample)
    few.add_sample(fo.Sample(filepath=few.first().filepath))
    known = few.first().shape.label
    classes = {name: POOR_NAMES[name] for name in POOR_NAMES if name != known}
    found = zs.fit_head(few, classes, "shape", method="kernel_ridge", progress=False, **MODEL)
    skipped = found.report.skipped
    assert skipped["missing_media"] == 1
    assert skipped[f"label {known!r} is no class"] == few.count_values("shape.label")[known]
    with pytest.raises(InvalidInputError, match=r"to learn from \(\d × label"):
        zs.fit_head(few, ["cat"], "shape", progress=False, **MODEL)
    few.delete()


def test_what_is_none_of_the_classes_teaches_too(reviewed, rest):
    """Rings are not asked for: reviewed as background, they stop being taken for circles."""
    words = {name: [name] for name in ("circle", "square", "triangle", "star")}
    names = [name if name in words else "else" for name in reviewed.values("shape.label")]
    reviewed.set_values("reviewed_as", [fo.Classification(label=name) for name in names])
    options = {"background": ["else"], **MODEL}
    head = zs.fit_head(reviewed, words, "reviewed_as", progress=False, **options)
    assert head.report.shots["else"] == names.count("else")
    assert head.report.unsupported == ()
    others = rest.match(~fo.ViewField("shape.label").is_in(list(words)))
    counts = {}
    for found in (None, head):
        report = zs.classify(
            others, words, label_field="none", head=found, background=["else"], **RUN
        )
        counts[found is None] = report.counts.get("rejected", 0)
    assert counts[False] > counts[True] + 0.3 * len(others)


def test_arguments_are_checked_before_anything_is_computed(reviewed, monkeypatch):
    monkeypatch.setattr("zs_operators.clip.load_clip", lambda *_, **__: pytest.fail("loaded"))
    for options, says in (
        ({"method": "magic"}, "must be one of auto"),
        ({"embeddings": "some"}, "embeddings='some'"),
        ({"name": " "}, "blank"),
        ({"shots": 3}, "no argument 'shots'"),
    ):
        with pytest.raises(InvalidInputError, match=says):
            zs.fit_head(reviewed, POOR_NAMES, "shape", progress=False, **options)
    with pytest.raises(FieldError, match="must be a field of Classification"):
        zs.fit_head(reviewed, POOR_NAMES, "filepath", progress=False)
    with pytest.raises(FieldError, match="no field 'truth'"):
        zs.fit_head(reviewed, POOR_NAMES, "truth", progress=False)


def test_one_sample_a_class_is_told_so(reviewed):
    firsts = {}
    for one, name in zip(*reviewed.values(["id", "shape.label"]), strict=True):
        firsts.setdefault(name, one)
    found = zs.fit_head(
        reviewed.select(list(firsts.values())), POOR_NAMES, "shape", progress=False, **MODEL
    )
    assert found.method == "kernel_ridge"
    assert any(
        "one sample a class" in one or "changes nothing" in one for one in found.report.warnings
    )

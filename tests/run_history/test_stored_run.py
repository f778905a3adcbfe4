"""What can be told of a run from its record."""

from __future__ import annotations

import json

import fiftyone as fo
import pytest

import zs_operators as zs
from zs_operators import provenance
from zs_operators.errors import InvalidInputError, SamplesError

FAST = {"model": "shapes-tiny", "precision": "fp32", "progress": False}


def test_runs_are_listed_newest_first(classified):
    classified.register_run("someone_elses", fo.core.runs.RunConfig(method="other"))

    assert [run.key for run in zs.runs(classified)] == ["zs_classify_b", "zs_classify_a"]
    assert [run.key for run in zs.runs(classified.limit(1))] == ["zs_classify_b", "zs_classify_a"]


def test_a_name_that_an_evaluation_has_too_is_of_the_labels(scenes):
    zs.detect(scenes, ["star"], regions="things", label_field="a", **FAST)
    zs.evaluate(scenes, "a", "things", eval_key="a", compute_mAP=False, progress=False)
    assert zs.load_run(scenes, "a").key == "zs_detect_a"
    assert zs.load_run(scenes, "zs_evaluate_a").task == "evaluate"


def test_a_run_tells_how_its_field_came_to_be(scenes):
    report = zs.classify(
        scenes.limit(6),
        {"round": ["circle", "disc"], "heart": None},
        label_field="a",
        templates=["a {}", "the {}"],
        background=["nothing"],
        min_margin=0.1,
        **FAST,
    )

    run = zs.load_run(scenes, "a")
    assert run == zs.load_run(scenes.limit(1), report.run_key)
    assert (run.task, run.label_field, run.state) == ("classify", "a", "complete")
    assert run.record_version == provenance.RECORD_VERSION
    assert run.started.tzinfo is not None
    assert run.counts == report.counts
    assert run.seconds["total"] > 0
    assert run.versions["fiftyone"] == fo.__version__
    assert run.model["name"] == "shapes-tiny"
    assert run.vocabulary.classes == ("round", "heart")
    assert run.prompts[:2] == [("a circle", "round"), ("the circle", "round")]
    assert run.prompts[-1] == ("nothing", None)
    assert len(run.samples()) == 6
    assert len(run.failed()) == 0
    expected = {"templates": ["a {}", "the {}"], "min_margin": 0.1, "top_k": None}
    assert expected.items() <= run.parameters.items()
    assert run.parameters["on_error"] == "record"
    assert "samples" not in run.parameters


def test_every_argument_is_recorded(scenes, tmp_path):
    zs.detect(scenes, ["star"], regions="things", label_field="named", max_detections=7, **FAST)
    zs.segment(scenes.limit(1), prompts="named", label_field="m", output_dir=tmp_path, **FAST)

    detect, segment = (zs.load_run(scenes, name).parameters for name in ("named", "m"))
    assert detect["max_detections"] == 7
    assert detect["objectness_weight"] == 0.5  # a default that was not given
    assert (detect["regions"], detect["update_source"]) == ("things", False)
    assert segment["output_dir"] == str(tmp_path)
    assert segment["prompts"] == "named"
    assert segment["tight_boxes"] is True


def test_the_source_of_boxes_and_who_made_it(scenes):
    zs.detect(scenes, ["star"], regions="things", label_field="named", **FAST)
    zs.segment(scenes.limit(1), prompts="named", label_field="m", **FAST)

    named, masks = zs.load_run(scenes, "named"), zs.load_run(scenes, "m")
    assert named.source == {"field": "things", "run_key": None, "signature": None}
    assert masks.source == {
        "field": "named",
        "run_key": "zs_detect_named",
        "signature": named.signature,
    }


def test_settings_that_change_no_label_do_not_enter_the_signature(scenes):
    zs.classify(scenes, ["star"], label_field="a", **FAST)
    zs.classify(
        scenes.limit(2),
        ["star"],
        label_field="b",
        workers=0,
        batch_size=2,
        on_error="raise",
        **FAST,
    )

    assert zs.load_run(scenes, "a").signature == zs.load_run(scenes, "b").signature


def test_the_fields_description_says_which_run_made_it(scenes):
    zs.classify(scenes, ["star", "heart"], label_field="a", **FAST)

    text = scenes.get_field("a").description
    assert "\n" not in text
    for part in ("classify", "shapes-tiny", "2 classes", "zs_classify_a"):
        assert part in text
    assert f"{zs.load_run(scenes, 'a').started.astimezone():%Y-%m-%d}" in text


def test_it_prints_as_a_table_and_is_json(classified):
    run = zs.load_run(classified, "a")

    assert "zs_classify_a" in str(run).splitlines()[0]
    assert "shapes-tiny" in str(run)
    content = json.loads(json.dumps(run.to_dict()))
    assert content["parameters"]["embeddings"] == "reuse"
    assert content["key"] == "zs_classify_a"


def test_failed_samples_are_a_view(scenes):
    scenes.add_sample(fo.Sample(filepath="/nowhere/gone.png"))
    zs.classify(scenes, ["star"], label_field="a", **FAST)

    run = zs.load_run(scenes, "a")
    assert run.failed().values("filepath") == ["/nowhere/gone.png"]
    assert len(run.samples()) == len(scenes) - 1
    assert run.num_failed == 1


def test_attributes_of_labels_that_were_there_are_a_run(scenes):
    zs.detect(scenes.limit(3), ["star"], regions="things", update_source=True, **FAST)

    run = zs.load_run(scenes, "things")
    assert len(run.samples()) == 3


def test_naming_the_boxes_of_a_run_keeps_its_record(scenes):
    options = {"proposals": "shapes-tiny", "max_regions": 20, "label_field": "found"}
    zs.detect(scenes.limit(2), ["star"], **options, **FAST)
    zs.detect(scenes, ["heart"], regions="found", update_source=True, **FAST)
    zs.detect(scenes, ["heart"], regions="found", update_source=True, **FAST)  # goes on

    assert [run.key for run in zs.runs(scenes)] == ["zs_detect_found_names", "zs_detect_found"]
    maker = zs.load_run(scenes, "found")
    assert maker.key == "zs_detect_found"
    names = zs.load_run(scenes, "zs_detect_found_names")
    assert names.source["run_key"] == maker.key
    found = zs.compare_runs(maker, names)
    assert {(flip.before, flip.after) for flip in found.flips} == {("star", "heart")}
    assert zs.delete_run(names, fields=True).samples == 2
    assert scenes.distinct("found.detections.label") == ["star"]


def test_an_unknown_run_names_those_there_are(classified):
    with pytest.raises(InvalidInputError, match="zs_classify_a"):
        zs.load_run(classified, "zs_classify_c")
    with pytest.raises(SamplesError, match="dataset"):
        zs.runs("quickstart")


def test_a_field_of_two_runs_needs_a_key(classified):
    provenance.save(classified, "thresholds", "a", {"source_field": "b"})
    with pytest.raises(InvalidInputError, match=r"2 runs: name .*zs_thresholds_a"):
        zs.load_run(classified, "a")
    assert zs.load_run(classified, "zs_thresholds_a").task == "thresholds"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pw@host/a.pt", "https://***@host/a.pt"),
        ("/cwd/https:/me:p@w@host/a.pt", "/cwd/https:/***@host/a.pt"),
        ("C:/me@home/a.pt", "C:/me@home/a.pt"),
        ("https://host/a.pt?X-Amz-Signature=ab&b=1", "https://host/a.pt?X-Amz-Signature=***&b=1"),
        ("hf://x?token=abc", "hf://x?token=***"),
        ("a photo of a {}", "a photo of a {}"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_secrets_of_urls_are_left_out(text, expected):
    from zs_operators.redaction import without_secrets

    assert without_secrets(text) == expected


def test_frames_of_videos(dataset, pictures):
    sample = fo.Sample(filepath="/nowhere/clip.mp4")
    for number, (path, _) in enumerate(pictures[:3], start=1):
        sample.frames[number] = fo.Frame(filepath=path)
    dataset.add_sample(sample)
    for name, words in (("a", ["star", "heart"]), ("b", ["circle"])):
        zs.classify(dataset.to_frames(sample_frames=True), words, label_field=name, **FAST)

    a, b = zs.load_run(dataset, "a"), zs.load_run(dataset, "b")
    assert a.samples().values("id") == [sample.id]
    comparison = zs.compare_runs(a, b)
    assert comparison.compared == len(comparison.changed_ids) == 3
    assert comparison.view().count("frames") == 3
    done = zs.delete_run(a, fields=True)
    assert done.fields == ("frames.a",)
    assert "a" not in dataset.get_frame_field_schema()
    assert "b" in dataset.get_frame_field_schema()

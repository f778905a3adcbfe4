"""A run repeated from its record alone: the same labels, or why not."""

from __future__ import annotations

import shutil

import fiftyone as fo
import pytest

import zs_operators as zs
from zs_operators import provenance
from zs_operators.errors import InvalidInputError, WeightsError
from zs_operators.run_history.repetition import arguments_of, samples_of

FAST = {"model": "shapes-tiny", "precision": "fp32", "progress": False}
QUIET = {"progress": False}


def labels_of(dataset, field):
    return dataset.values(f"{field}.label")


def test_a_classification_gives_the_same_labels(scenes):
    words = {"round": ["circle", "disc"], "heart": None, "star": None}
    zs.classify(scenes, words, label_field="a", background=["nothing"], min_margin=0.1, **FAST)
    before = scenes.values("a.label"), scenes.values("a.margin")
    scenes.clear_sample_field("a")

    report = zs.rerun(zs.load_run(scenes, "a"), **QUIET)
    assert report.counts == zs.load_run(scenes, "a").counts
    assert (scenes.values("a.label"), scenes.values("a.margin")) == before


def test_unchanged_it_does_what_came_since(scenes, pictures):
    zs.classify(scenes, ["heart", "star"], label_field="a", **FAST)
    run = zs.load_run(scenes, "a")
    assert zs.rerun(run, **QUIET).resumed == len(scenes)
    scenes.add_sample(fo.Sample(filepath=pictures[0][0]))
    report = zs.rerun(run, **QUIET)
    assert (report.resumed, report.counts) == (len(scenes) - 1, {"labeled": 1})


def test_labels_are_not_overwritten_because_the_run_once_might(scenes):
    zs.classify(scenes, ["heart", "star"], label_field="a", overwrite=True, **FAST)
    run = zs.load_run(scenes, "a")
    with pytest.raises(InvalidInputError, match="overwrite=True"):
        zs.rerun(run, min_margin=1.0, **QUIET)
    assert zs.rerun(run, min_margin=1.0, overwrite=True, **QUIET).label_field == "a"
    assert zs.load_run(scenes, "a").parameters["min_margin"] == 1.0


def test_changes_of_words_keep_the_others(scenes):
    zs.classify(
        scenes, ["heart", "star"], label_field="a", templates=["a {}"], background=["wall"], **FAST
    )
    run = zs.load_run(scenes, "a")
    for name, changes, prompts in (
        ("b", {"classes": ["cat"]}, ["a cat", "wall"]),
        ("c", {"templates": ["the {}"]}, ["the heart", "the star", "wall"]),
        ("d", {"background": ["sky"]}, ["a heart", "a star", "sky"]),
    ):
        zs.rerun(run, scenes.limit(1), label_field=name, **changes, **QUIET)
        assert [text for text, _ in zs.load_run(scenes, name).prompts] == prompts


def test_multi_label_without_the_neutral_prompts_it_needed(scenes):
    zs.classify(scenes, ["heart", "star"], label_field="a", multi_label=True, **FAST)
    run = zs.load_run(scenes, "a")
    assert len(run.prompts) > 14  # those that CLIP weighs each class against
    zs.rerun(run, label_field="b", multi_label=False, **QUIET)
    assert len(zs.load_run(scenes, "b").prompts) == 14
    zs.rerun(run, label_field="c", **QUIET)
    assert zs.load_run(scenes, "c").signature == run.signature


def test_a_detection_and_a_segmentation(scenes, tmp_path):
    two = scenes.limit(2)
    zs.detect(
        two, ["heart", "star"], label_field="d", proposals="shapes-tiny", max_regions=20, **FAST
    )
    zs.segment(two, prompts="d", label_field="m", output_dir=tmp_path, **FAST)
    zs.detect(two, ["heart"], regions="things", update_source=True, **FAST)
    for name, path in (("d", "d.detections"), ("m", "m.detections"), ("things", None)):
        run = zs.load_run(scenes, name)
        assert len(samples_of(run)) == 2
        assert "resume" not in arguments_of(run, {})
        if path is None:
            assert zs.rerun(run, **QUIET).resumed == 2
            continue
        zs.rerun(run, label_field=f"{name}2", **QUIET)
        found = zs.compare_runs(run, zs.load_run(scenes, f"{name}2"))
        assert (found.agreement, found.compared) == (1, 2)
        assert scenes.count(path) == found.total > 0


def test_the_samples_of_the_run_are_its_view(scenes):
    view = scenes.match_tags("mine")
    scenes.limit(3).tag_samples("mine")
    zs.classify(view, ["star"], label_field="a", **FAST)
    run = zs.load_run(scenes, "a")
    assert samples_of(run).values("id") == view.values("id")
    # Of a record that does not tell, those it has labelled
    record = {name: value for name, value in run.record.items() if name != "samples"}
    old = zs.StoredRun(scenes, run.key, record)
    scenes.untag_samples("mine")
    assert samples_of(old).values("id") == scenes.limit(3).values("id")
    scenes.clear_sample_field("a")
    with pytest.raises(InvalidInputError, match="samples="):
        samples_of(old)


@pytest.fixture
def local_weights(root, tmp_path):
    """A folder of weights that is no part of the package."""
    source = root / "zs_operators" / "shapes" / "weights" / "shapes-clip"
    return shutil.copytree(source, tmp_path / "shapes-clip")


def test_weights_that_are_gone_or_others_are_refused(scenes, local_weights):
    options = {name: value for name, value in FAST.items() if name != "model"}
    zs.classify(scenes, ["star"], label_field="a", weights=local_weights, **options)
    run = zs.load_run(scenes, "a")
    zs.rerun(run, label_field="b", **QUIET)
    assert zs.load_run(scenes, "b").signature == run.signature

    file = local_weights / "open_clip_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match=r"other weights now.*weights="):
        zs.rerun(run, label_field="c", **QUIET)
    shutil.rmtree(local_weights)
    with pytest.raises(WeightsError, match=r"cannot be repeated: there is no .*weights="):
        zs.rerun(run, label_field="c", **QUIET)
    assert not scenes.has_field("c")
    zs.rerun(run, label_field="c", model="shapes-tiny", **QUIET)
    assert labels_of(scenes, "c") == labels_of(scenes, "a")


def test_a_loaded_model_is_loaded_again_if_a_file_stands_for_it(scenes):
    clip = zs.load_clip("shapes-tiny", precision="fp32")
    zs.classify(scenes, ["star"], label_field="a", model=clip, **QUIET)
    run = zs.load_run(scenes, "a")
    assert run.parameters["model"] == {"object": "ClipModel"}
    zs.rerun(run, label_field="b", precision="fp32", **QUIET)
    assert zs.load_run(scenes, "b").signature == run.signature

    # One that was made by hand, or has weights of no file
    record = {**run.record, "model_details": {}}
    with pytest.raises(InvalidInputError, match=r"given a ClipModel object.*model="):
        zs.rerun(zs.StoredRun(scenes, run.key, record), label_field="c", **QUIET)
    record = {**run.record, "model_details": {"weights": {"state": "random"}}}
    with pytest.raises(WeightsError, match="random"):
        zs.rerun(zs.StoredRun(scenes, run.key, record), label_field="c", **QUIET)


def test_a_head_that_is_gone_or_another_is_refused(scenes):
    scenes.set_values("truth", [fo.Classification(label=x) for x in ["heart", "star"] * 4])
    learn = {"ground_truth": "truth", "name": "h", **FAST}
    zs.fit_head(scenes, ["heart", "star"], **learn)
    zs.classify(scenes, None, label_field="a", head="h", **FAST)
    run = zs.load_run(scenes, "a")
    zs.rerun(run, label_field="b", **QUIET)
    assert zs.load_run(scenes, "b").signature == run.signature

    scenes.set_values("truth", [fo.Classification(label=x) for x in ["star", "heart"] * 4])
    zs.fit_head(scenes, ["heart", "star"], overwrite=True, **learn)
    with pytest.raises(InvalidInputError, match=r"another one now.*head="):
        zs.rerun(run, label_field="c", **QUIET)
    record = {**run.record, "parameters": {**run.parameters, "head": "gone"}}
    with pytest.raises(InvalidInputError, match=r"cannot be repeated.*'gone'"):
        zs.rerun(zs.StoredRun(scenes, run.key, record), label_field="c", **QUIET)


def test_what_a_record_does_not_tell_is_asked_for(scenes):
    zs.classify(scenes, ["star"], label_field="a", **FAST)
    run = zs.load_run(scenes, "a")
    with pytest.raises(InvalidInputError, match="min_marginn"):
        zs.rerun(run, label_field="b", min_marginn=1, **QUIET)
    parameters = {**run.parameters, "device": "https://***@gpu"}
    hidden = zs.StoredRun(scenes, run.key, {**run.record, "parameters": parameters})
    with pytest.raises(InvalidInputError, match="pass device="):
        zs.rerun(hidden, **QUIET)
    provenance.save(scenes, "thresholds", "a", {"source_field": "b"})
    with pytest.raises(InvalidInputError, match="'thresholds', which cannot be repeated"):
        zs.rerun(zs.load_run(scenes, "zs_thresholds_a"), **QUIET)
    provenance.save(scenes, "evaluate", "bare", {})
    with pytest.raises(InvalidInputError, match="no parameters"):
        zs.rerun(zs.load_run(scenes, "bare"), **QUIET)


def test_an_evaluation_is_repeated_and_deleted(classified):
    classified.add_sample_field("truth", fo.EmbeddedDocumentField, fo.Classification)
    classified.set_values("truth", [fo.Classification(label=x) for x in labels_of(classified, "b")])
    report = zs.evaluate(classified, "a", "truth", eval_key="e")

    run = zs.load_run(classified, "zs_evaluate_e")
    assert (run.task, run.state) == ("evaluate", "complete")
    assert len(run.samples()) == len(classified)
    assert run.source["run_key"] == "zs_classify_a"
    again = zs.rerun(run, eval_key="again", **QUIET)
    assert again.to_dict()["confusion"] == report.to_dict()["confusion"]
    assert {run.key for run in zs.runs(classified)} >= {"zs_evaluate_e", "zs_evaluate_again"}

    done = zs.delete_run(run)
    assert done.evaluation == "e"
    assert classified.list_evaluations() == ["again"]
    assert not classified.has_field("e")
    assert "zs_evaluate_e" not in classified.list_runs()
    assert labels_of(classified, "a")[0]

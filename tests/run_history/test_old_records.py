"""Records that zs-operators 0.1.0 wrote (records-0.1.0.json) still open, compare and repeat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import zs_operators as zs
from zs_operators import provenance
from zs_operators.run_history.repetition import arguments_of

RECORDS = json.loads(Path(__file__).with_name("records-0.1.0.json").read_text(encoding="utf-8"))
QUIET = {"progress": False}
VIRTUAL = ("cls", "type", "method")  # FiftyOne's own


@pytest.fixture
def old(scenes):
    """The dataset with the three records, exactly as they were stored."""
    from fiftyone.core.runs import RunConfig

    for key, record in RECORDS.items():
        config = RunConfig(**{k: v for k, v in record.items() if k not in VIRTUAL})
        config.method = record["method"]
        scenes.register_run(key, config)
    return scenes


def test_they_are_listed_and_loaded(old):
    assert [run.key for run in zs.runs(old)] == [
        "zs_segment_masks",
        "zs_detect_found",
        "zs_classify_shape",
    ]
    run = zs.load_run(old, "shape")
    assert run.record_version == 0
    assert run.vocabulary.classes == ("circle", "heart", "star")
    assert run.prompts[-1] == ("nothing", None)
    assert run.counts == {"labeled": 3}
    assert "shapes-tiny" in str(run)
    assert len(run.samples()) == len(run.failed()) == 0  # its labels are not here
    assert json.dumps([run.to_dict() for run in zs.runs(old)])


def test_their_parameters_are_told_from_the_rest(old):
    runs = [zs.load_run(old, name) for name in ("shape", "found", "masks")]
    classify, detect, segment = (run.parameters for run in runs)
    expected = {"model": "shapes-tiny", "min_margin": 0.25, "reject_label": "none"}
    assert {**expected, "embeddings": "reuse", "precision": "fp32"}.items() <= classify.items()
    expected = {"regions": "proposals", "max_regions": 40, "min_confidence": 0.2}
    assert {**expected, "proposals": "shapes-proposals"}.items() <= detect.items()
    assert detect["update_source"] is False
    expected = {"prompts": "found", "tight_boxes": False, "output_dir": "/data/photos/masks"}
    assert {**expected, "model": "shapes-sam"}.items() <= segment.items()


def test_they_are_repeated_with_the_signature_they_had(old, tmp_path):
    for name, changes in (("shape", {}), ("found", {}), ("masks", {"output_dir": str(tmp_path)})):
        run = zs.load_run(old, name)
        zs.rerun(run, old.limit(2), **changes, **QUIET)
        again = zs.load_run(old, name)
        assert again.record_version == provenance.RECORD_VERSION
        assert len(again.samples()) == 2
        if not changes:
            # So a run that 0.1.0 left unfinished goes on
            assert again.signature == run.signature
    assert zs.load_run(old, "masks").source["run_key"] == "zs_detect_found"


def test_they_are_compared_with_new_ones(old):
    run = zs.load_run(old, "shape")
    zs.rerun(run, old, **QUIET)  # gives the old record its labels
    provenance.save(old, "classify", "shape", {"record_version": 0, **run.record})
    zs.rerun(run, old, label_field="new", min_margin=0.5, **QUIET)
    found = zs.compare_runs(zs.load_run(old, "shape"), zs.load_run(old, "new"))
    differing = {name for name in found.differences if not name.startswith("version of")}
    assert differing == {"min_margin"}
    assert found.compared == len(old)


def test_a_segmentation_by_classes_says_what_prompted_it(old):
    record = dict(RECORDS["zs_segment_masks"])
    detect = RECORDS["zs_detect_found"]
    # 0.1.0 wrote the encoded texts where it had written what prompts
    record |= {name: detect[name] for name in ("vocabulary", "prompts", "options", "proposer")}
    record |= {"proposer_details": detect["proposer_details"], "clip": detect["model"]}
    record |= {"clip_details": detect["model_details"], "region_embedding": "crops"}
    run = zs.StoredRun(old, "zs_segment_masks", record)
    arguments = arguments_of(run, {})
    assert arguments["prompts"] == "proposals"
    assert (arguments["clip"], arguments["proposals"]) == ("shapes-tiny", "shapes-proposals")
    assert arguments["max_regions"] == 40
    assert run.prompts[0][1] == "circle"

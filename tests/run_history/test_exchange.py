"""Records as files: out and in again, without secrets, and nothing that is no run."""

from __future__ import annotations

import json

import fiftyone as fo
import pytest

import zs_operators as zs
from zs_operators import provenance
from zs_operators.errors import InvalidInputError
from zs_operators.run_history import exported

FAST = {"model": "shapes-tiny", "precision": "fp32", "progress": False}


@pytest.fixture
def run(scenes):
    zs.classify(scenes, ["heart", "star"], label_field="a", min_margin=0.1, **FAST)
    return zs.load_run(scenes, "a")


@pytest.fixture
def elsewhere(pictures):
    """Another dataset of the same pictures."""
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=path) for path, _ in pictures])
    yield dataset
    dataset.delete()


def test_out_and_in_again(run, elsewhere, tmp_path):
    file = zs.export_run(run, tmp_path)
    assert file == tmp_path / "zs_classify_a.json"
    found = zs.import_run(elsewhere, file)

    assert (found.key, found.signature) == (run.key, run.signature)
    assert found.parameters == run.parameters
    assert found.vocabulary == run.vocabulary
    assert len(found.samples()) == 0
    with pytest.raises(InvalidInputError, match="samples="):
        zs.rerun(found, progress=False)
    zs.rerun(found, elsewhere, progress=False)
    assert elsewhere.values("a.label") == run.dataset.values("a.label")


def test_nothing_is_overwritten_unless_allowed(run, elsewhere, tmp_path):
    file = zs.export_run(run, tmp_path / "r.json")
    with pytest.raises(InvalidInputError, match="overwrite=True"):
        zs.export_run(run, file)
    zs.export_run(run, file, overwrite=True)
    zs.import_run(elsewhere, file)
    with pytest.raises(InvalidInputError, match=r"has a run 'zs_classify_a' already.*overwrite"):
        zs.import_run(elsewhere, file)
    assert zs.import_run(elsewhere, exported(run), overwrite=True).key == run.key
    with pytest.raises(InvalidInputError, match="cannot be written"):
        zs.export_run(run, file / "below" / "x.json")


def test_secrets_are_not_in_the_file(run, tmp_path):
    record = {
        **run.record,
        "note": "see https://me:hunter2@host/x?token=hunter2",
        "nested": {"api_key": "hunter2", "hub_token": "hunter2", "fine": ["a"]},
    }
    text = zs.export_run(zs.StoredRun(run.dataset, run.key, record), tmp_path).read_text()
    assert "hunter2" not in text
    assert json.loads(text)["record"]["nested"] == {"fine": ["a"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a run"),
        ({"format_version": 99}, "update it"),
        ({"format_version": None}, "update it"),
        ({"task": "mow"}, "no task"),
        ({"record": []}, "no record"),
        ({"key": "zs_classify_b"}, "its key"),
        ({"record": {"label_field": "a b"}}, "label_field"),
        ({"record": {"label_field": "a", "report": "x"}}, "report is 'x'"),
        ({"record": {"label_field": "a", "serialize": 1}}, "no 'serialize'"),
        ({"record": {"label_field": "a", "__class__": 1}}, "no '__class__'"),
        ({"record": {"label_field": "a", "vocabulary": {"classes": 3}}}, "stored vocabulary"),
    ],
)
def test_damaged_files_are_refused(run, elsewhere, tmp_path, change, message):
    file = tmp_path / "r.json"
    file.write_text(json.dumps({**exported(run), **change}))
    with pytest.raises(InvalidInputError, match=message):
        zs.import_run(elsewhere, file)
    assert zs.runs(elsewhere) == []


def test_files_that_are_no_json(elsewhere, tmp_path):
    with pytest.raises(InvalidInputError, match="cannot be read"):
        zs.import_run(elsewhere, tmp_path / "none.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InvalidInputError, match="not JSON"):
        zs.import_run(elsewhere, tmp_path / "x.json")
    (tmp_path / "y.json").write_text("[" * 100_000)
    with pytest.raises(InvalidInputError, match="not JSON"):
        zs.import_run(elsewhere, tmp_path / "y.json")


def test_a_run_of_someone_else_is_not_replaced(run, elsewhere):
    elsewhere.register_run("zs_classify_a", fo.core.runs.RunConfig(method="other"))
    with pytest.raises(InvalidInputError, match="not one of zs-operators"):
        zs.import_run(elsewhere, exported(run), overwrite=True)


def test_an_imported_evaluation_is_not_that_of_the_dataset(classified, elsewhere):
    provenance.save(classified, "evaluate", "e", {"parameters": {}})
    content = exported(zs.load_run(classified, "zs_evaluate_e"))
    elsewhere.set_values("a", [fo.Classification(label="x")] * len(elsewhere))
    elsewhere.evaluate_classifications("a", gt_field="a", eval_key="e")
    zs.delete_run(zs.import_run(elsewhere, content))
    assert elsewhere.list_evaluations() == ["e"]

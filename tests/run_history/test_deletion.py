"""Deleting a run removes what it wrote, and nothing else."""

from __future__ import annotations

import fiftyone as fo
import pytest

import zs_operators as zs
from zs_operators.errors import InvalidInputError

FAST = {"model": "shapes-tiny", "precision": "fp32", "progress": False}


def test_the_record_alone(classified):
    done = zs.delete_run(zs.load_run(classified, "a"))

    assert [run.key for run in zs.runs(classified)] == ["zs_classify_b"]
    assert classified.count("a") == len(classified)
    assert (done.fields, done.samples) == ((), 0)
    assert str(done) == "Deleted run zs_classify_a."


def test_its_field_and_its_failures(scenes):
    scenes.add_sample(fo.Sample(filepath="/nowhere/gone.png"))
    zs.classify(scenes, ["star"], label_field="a", **FAST)
    done = zs.delete_run(zs.load_run(scenes, "a"), fields=True)

    assert done.fields == ("a", "a_error")
    assert done.samples == len(scenes) - 1
    assert not scenes.has_field("a")
    assert not scenes.has_field("a_error")
    assert scenes.count("things.detections")


def test_labels_and_notes_of_other_origin_stay(scenes):
    scenes.add_sample(fo.Sample(filepath="/nowhere/gone.png"))
    zs.classify(scenes, ["star"], label_field="a", **FAST)
    sample = scenes.first()
    sample["a"] = fo.Classification(label="by hand")
    sample["a_error"] = "looks odd"
    sample.save()
    done = zs.delete_run(zs.load_run(scenes, "a"), fields=True)

    assert (done.fields, done.kept) == ((), ("a",))
    assert scenes.distinct("a.label") == ["by hand"]
    assert scenes.distinct("a_error") == ["looks odd"]
    assert "Field a stays" in str(done)


def test_labels_of_the_run_before_stay(scenes):
    zs.classify(scenes, ["star"], label_field="a", **FAST)
    zs.classify(scenes.limit(2), ["heart"], label_field="a", overwrite=True, **FAST)
    done = zs.delete_run(zs.load_run(scenes, "a"), fields=True)

    assert done.samples == 2
    assert scenes.distinct("a.label") == ["star"]
    assert scenes.count("a") == len(scenes) - 2


def test_a_record_that_was_imported_does_not_take_a_users_field(scenes, tmp_path):
    zs.classify(scenes, ["star"], label_field="a", **FAST)
    file = zs.export_run(zs.load_run(scenes, "a"), tmp_path)
    other = fo.Dataset()
    other.add_sample(fo.Sample(filepath="x.png", a=fo.Classification(label="mine")))
    zs.delete_run(zs.import_run(other, file), fields=True)
    assert other.values("a.label") == ["mine"]
    other.delete()


def test_attributes_are_taken_off_labels_that_were_there(scenes):
    zs.detect(scenes, ["star"], regions="things", update_source=True, **FAST)
    assert scenes.count("things.detections.zs_label")
    before = scenes.values("things.detections.id")
    done = zs.delete_run(zs.load_run(scenes, "things"), fields=True)

    assert done.samples == len(scenes)
    assert scenes.values("things.detections.id") == before
    assert scenes.distinct("things.detections.label") == ["thing"]
    assert not [path for path in scenes.get_field_schema(flat=True) if "zs_" in path]


def test_attributes_of_another_run_stay(scenes):
    zs.detect(scenes, ["star"], regions="things", update_source=True, **FAST)
    options = {"regions": "things", "update_source": True, "overwrite": True}
    zs.detect(scenes.limit(2), ["heart"], **options, **FAST)
    zs.delete_run(zs.load_run(scenes, "things"), fields=True)

    assert scenes.distinct("things.detections.zs_label") == ["star"]
    assert scenes.limit(2).count("things.detections.zs_label") == 0
    assert scenes.limit(2).count("things.detections.zs_run") == 0


def test_mask_files_that_it_wrote_and_no_others(scenes, tmp_path):
    output = tmp_path / "out"
    two = scenes.limit(2)
    common = {"prompts": "things", "output_dir": output, **FAST}
    zs.segment(two, label_field="m", semantic_field="s", **common)
    zs.segment(two.limit(1), label_field="n", **common)
    run = zs.load_run(scenes, "m")
    assert run.key == zs.load_run(scenes, "s").key
    files = set(output.rglob("*.png"))
    others = {path for path in files if "/n/" in str(path)}
    folder = output / scenes.slug / "m"
    image = next(path for path in folder.iterdir() if path.is_dir())
    users = [image / "notes.png", image / "0badf00d-000.png", folder / "a.png"]
    for path in users:
        path.write_bytes(b"mine")

    done = zs.delete_run(run, fields=True)
    assert done.fields == ("m", "s")
    assert done.files == len(files) - len(others)
    assert set(output.rglob("*.png")) == {*others, *users}
    assert "s" not in scenes.mask_targets
    assert scenes.count("n.detections")
    zs.delete_run(zs.load_run(scenes, "n"), fields=True)
    assert not (output / scenes.slug / "n").exists()


def test_a_folder_that_leads_elsewhere_is_not_followed(scenes, tmp_path):
    output = tmp_path / "out"
    zs.segment(scenes.limit(1), prompts="things", label_field="m", output_dir=output, **FAST)
    folder = output / scenes.slug / "m"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    count = len(list((tmp_path / "elsewhere").rglob("*.png")))
    assert count
    assert zs.delete_run(zs.load_run(scenes, "m"), fields=True).files == 0
    assert len(list((tmp_path / "elsewhere").rglob("*.png"))) == count


def test_what_is_no_run_is_refused(scenes):
    with pytest.raises(InvalidInputError, match="load_run"):
        zs.delete_run("zs_classify_a", fields=True)

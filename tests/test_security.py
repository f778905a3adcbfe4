"""What strangers can put into files and names, and that none of it runs, leaks or leads away."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.tiny_clips import VIT, save
from zs_operators import mask_files
from zs_operators.class_files import read_classes
from zs_operators.clip_weights import read_state_dict
from zs_operators.errors import (
    FieldError,
    InvalidInputError,
    MediaError,
    OfflineError,
    WeightsError,
)
from zs_operators.images import read_image
from zs_operators.torch_models import plan_torch_model, weights_file
from zs_operators.vocabulary import Vocabulary
from zs_operators.weights import models, plan_weights, verify_weights

SECRET = "hunter2"
ADDRESSES = [f"https://me:{SECRET}@host/a.pt", f"s3://bucket/a.pt?X-Amz-Signature={SECRET}"]


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def _write_planted(file: Path, kind: str, planted: Planted) -> None:
    state = {"state_dict": planted, "weight": torch.zeros(2)}
    if kind == "pickle":
        file.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, file, _use_new_zipfile_serialization=kind == "zip")


# --- weights ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
def test_a_planted_pickle_does_not_run(tmp_path, monkeypatch, kind, suffix):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    target = tmp_path / "ran"
    file = tmp_path / f"weights{suffix}"
    _write_planted(file, kind, Planted(target))
    with pytest.raises(WeightsError, match=r"could run code|not a readable weights file"):
        read_state_dict(file)
    assert not target.exists()
    if kind == "zip":  # or the file was harmless all along
        torch.load(_renamed(file), weights_only=False)
        assert target.exists()


def _renamed(file: Path) -> Path:
    return file.rename(file.with_suffix(".pt"))


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("clip", "ViT-B-32"),
        ("proposals", "fasterrcnn_mobilenet_v3_large_fpn"),
        ("sam", "sam-vit-b"),
    ],
)
def test_every_kind_of_model_refuses_it(tmp_path, monkeypatch, kind, model):
    import zs_operators as zs
    from zs_operators.proposals import load_proposer
    from zs_operators.sam import load_sam

    def small(*args, **kwargs):
        return torch.nn.Linear(2, 2)

    monkeypatch.setattr("zs_operators.clip_loading._build", small)
    monkeypatch.setattr("zs_operators.proposal_loading._build", small)
    monkeypatch.setattr("zs_operators.sam_loading._build", small)
    target = tmp_path / "ran"
    file = tmp_path / "weights.pth"
    _write_planted(file, "zip", Planted(target))
    load = {"clip": zs.load_clip, "proposals": load_proposer, "sam": load_sam}[kind]
    with pytest.raises(WeightsError, match="could run code"):
        load(model, file)
    with pytest.raises(WeightsError, match="none of"):
        load(model, file.rename(tmp_path / "weights.ckpt"))
    assert not target.exists()


def test_only_two_places_read_weights(root):
    """Whoever adds a third has to come here and say why it is safe."""
    unsafe = re.compile(
        r"torch\.load\(|pickle\.loads?\(|allow_pickle(?!=False)|joblib|yaml\.(unsafe_)?load\("
    )
    found = {
        (file.relative_to(root).as_posix(), line.strip())
        for folder in ("zs_operators", "plugins")
        for file in (root / folder).rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if unsafe.search(line)
    }
    assert found == {
        (
            "zs_operators/clip_weights.py",
            'state = torch.load(file, map_location="cpu", weights_only=True)',
        )
    }


@pytest.mark.parametrize(("version", "is_safe"), [("2.5.1", False), ("2.6.0+cpu", True)])
def test_torch_with_a_hole_reads_safetensors_alone(tmp_path, monkeypatch, version, is_safe):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "w.pt")
    save_file({"weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    monkeypatch.setattr(torch, "__version__", version)
    assert set(read_state_dict(tmp_path / "w.safetensors")) == {"weight"}
    if is_safe:
        assert set(read_state_dict(tmp_path / "w.pt")) == {"weight"}
    else:
        with pytest.raises(WeightsError, match="update to torch"):
            read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("kind", ["clip", "proposals", "sam"])
def test_bundled_weights_that_were_changed_are_refused(tmp_path, monkeypatch, kind):
    plan = plan_weights(kind, "shapes-tiny")
    assert re.fullmatch("[0-9a-f]{64}", plan.sha256), "known of all that is bundled"
    folder = shutil.copytree(plan.path, tmp_path / "copy")
    (file,) = folder.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=r"sha256 is .*, expected"):
        verify_weights(replace(plan, path=str(folder)), file)


def test_the_hash_in_the_name_of_a_downloaded_file_is_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    entry = next(entry for entry in models("proposals") if "-" in entry.source and not entry.folder)
    file = folder / entry.source.rsplit("/", 1)[-1]
    file.write_bytes(b"not what was published")
    plan = plan_torch_model("proposals", entry.name)
    assert plan.state == "cached"
    with pytest.raises(WeightsError, match="not the one expected"):
        verify_weights(plan, weights_file(plan))


def test_a_folder_of_weights_cannot_make_its_tokenizer_run_code(tmp_path):
    folder = save(tmp_path / "clip", VIT)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    import zs_operators as zs

    with pytest.raises(WeightsError, match="trust_remote_code"):
        zs.load_clip(folder)


def test_a_tokenizer_is_told_not_to_trust(tmp_path, monkeypatch):
    import open_clip.tokenizer

    from zs_operators import clip_loading

    told = {}
    monkeypatch.setattr(
        open_clip.tokenizer, "HFTokenizer", lambda *args, **kwargs: told.update(kwargs)
    )
    (tmp_path / "tokenizer.json").write_text("{}")
    plan = replace(plan_weights("clip", "shapes-tiny"), state="local")
    config = {"text_cfg": {"hf_tokenizer_name": "anyone/anything"}}
    clip_loading._tokenizer(plan, config, tmp_path, True, False)
    assert told["trust_remote_code"] is False
    assert told["local_files_only"] is True


@pytest.mark.parametrize(
    "architecture",
    ["os:system", "zs_operators.mongod:start_private_mongod", "zs_operators.install:install"],
)
def test_a_config_names_builders_only(tmp_path, architecture):
    from zs_operators.torch_models import build_from_config

    plan = replace(plan_weights("sam", "shapes-tiny"), architecture=architecture, path=None)
    with pytest.raises(WeightsError, match="is not run"):
        build_from_config(plan)


def test_a_class_file_makes_no_objects(tmp_path):
    target = tmp_path / "ran"
    file = tmp_path / "classes.yaml"
    file.write_text(f"- !!python/object/apply:pathlib.Path.touch [{target}]\n- cat\n")
    assert "cat" in read_classes(file)
    assert not target.exists()


# --- the network --------------------------------------------------------------------------------


def test_planning_asks_nobody(monkeypatch):
    """What forms, ``zs doctor`` and ``zs models`` do before somebody has chosen a model."""
    monkeypatch.setattr("socket.getaddrinfo", pytest.fail)
    monkeypatch.setattr("socket.socket.connect", pytest.fail)
    for name in ("HF_HUB_OFFLINE", "ZS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for entry in models():
        if entry.pretrained or entry.folder:
            assert plan_weights(entry.kind, entry.name).model
    assert plan_weights("clip", "ViT-B-16").state in ("download", "cached")


@pytest.mark.parametrize("kind", ["clip", "proposals", "sam"])
def test_weights_that_are_not_here_are_not_fetched_unasked(tmp_path, monkeypatch, kind):
    import zs_operators as zs
    from zs_operators.proposals import load_proposer
    from zs_operators.sam import load_sam

    for name in ("HF_HUB_OFFLINE", "ZS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    load = {"clip": zs.load_clip, "proposals": load_proposer, "sam": load_sam}[kind]
    with pytest.raises(OfflineError, match="were not allowed"):
        load(allow_download=False)


# --- secrets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ADDRESSES)
def test_messages_do_not_repeat_secrets(address):
    with pytest.raises(MediaError, match=r"remote address|another package") as media:
        read_image(address)
    said = [str(media.value)]
    for kind, model in (("clip", "ViT-B-32"), ("proposals", None), ("sam", None)):
        with pytest.raises(WeightsError, match="is an address") as weights:
            plan_weights(kind, model or models(kind)[0].name, address)
        with pytest.raises(InvalidInputError) as name:
            plan_weights(kind, address)
        said += [str(weights.value), str(name.value)]
    assert not any(SECRET in text for text in said)


# --- folders and files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["..", "../../x", "/etc/passwd", "a/../../b", "x\0y", ".", "~root"]
)
def test_images_and_labels_cannot_lead_masks_elsewhere(tmp_path, name):
    root = tmp_path / "masks"
    folder = mask_files.mask_folder(root, "zs_masks", f"/data/{name}")
    assert folder.parent == root / "zs_masks"
    assert folder.resolve().is_relative_to(root)
    assert mask_files.semantic_path(root, "zs_masks", name).resolve().is_relative_to(root)
    with pytest.raises(ValueError, match="never be removed"):
        mask_files.mask_path(folder, "0123456789ab", name)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_links_that_were_planted_lead_nowhere(tmp_path, level):
    outside = tmp_path / "outside"
    outside.mkdir()
    kept = outside / "fedcba98-000.png"
    kept.write_bytes(b"mine")
    image = tmp_path / "masks" / "dataset" / "zs_masks" / "image-0123"
    link = [image, image.parent, image.parent.parent][level]
    link.parent.mkdir(parents=True)
    link.symlink_to(outside, target_is_directory=True)
    with pytest.raises(InvalidInputError, match="is a link"):
        mask_files.write_mask(image / "01234567-000.png", np.ones((2, 2), bool))
    if level:
        with pytest.raises(InvalidInputError, match="is a link"):
            mask_files.write_classes(image.with_suffix(".png"), np.ones((2, 2), np.uint8))
    else:
        mask_files.remove_stale(image, "0123456789ab")
    assert [path.name for path in outside.iterdir()] == [kept.name]


def test_a_link_in_place_of_a_mask_is_replaced_not_followed(tmp_path):
    outside = tmp_path / "mine.txt"
    outside.write_text("mine")
    path = tmp_path / "masks" / "d" / "f" / "i" / "01234567-000.png"
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    mask_files.write_mask(path, np.ones((2, 2), bool))
    assert outside.read_text() == "mine"
    assert not path.is_symlink()


# --- names --------------------------------------------------------------------------------------

FIELDS = ["$where", "a.b", "a$b", "{0.__class__}", "<img src=x onerror=alert(1)>", "`id`", "a|b"]
FIELDS += ["[x](javascript:alert(1))", "../x", "/etc/x", "a b", "a\nb", "", "_id", "filepath"]


@pytest.mark.parametrize("name", FIELDS)
def test_fields_that_could_be_read_as_something_else_are_refused(dataset, name):
    from zs_operators.fields import check_label_field
    from zs_operators.semantic_fields import check_semantic_field

    for task in ("classify", "detect", "segment"):
        with pytest.raises(FieldError):
            check_label_field(dataset, name, task, overwrite=True)
    with pytest.raises(FieldError):
        check_semantic_field(dataset, name, "zs_masks", overwrite=True)


NAMES = ["$where", "$filepath", "$$ROOT", "a.b", "{0.__class__}", "{}", "%s", "{{", "\\1"]
NAMES += [
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "`rm`",
    "a|b",
    "../x",
    "C:\\x",
]


def test_names_and_templates_reach_the_prompt_as_they_are():
    from zs_operators.vocabulary_checks import prompt_name

    templates = ["a {} of {0.__class__}", "%s {} $where"]
    vocabulary = Vocabulary.parse(NAMES, templates=templates)
    texts = {prompt.text for prompt in vocabulary.prompts()}
    assert texts == {t.replace("{}", prompt_name(n), 1) for t in templates for n in NAMES}


def test_names_reach_the_database_as_they_are(dataset, tmp_path, caplog, capfd):
    """A run, its record, its histogram and its error views with names that mean something else."""
    import fiftyone as fo
    from PIL import Image

    import zs_operators as zs

    for index, name in enumerate(NAMES):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (64, 64), (index * 16, 0, 0)).save(path)
        dataset.add_sample(fo.Sample(filepath=str(path), truth=fo.Classification(label=name)))
    dataset.add_sample(fo.Sample(filepath=f"https://me:{SECRET}@host/a.png"))

    caplog.set_level("DEBUG")
    report = zs.classify(dataset, NAMES, model="shapes-tiny", label_field="guess", progress=True)

    said = dataset.values("guess.label")
    assert set(said[:-1]) <= set(NAMES)
    assert sum(report.labels.values()) == len(NAMES)
    info = dataset.get_run_info(report.run_key).config.serialize()
    assert [one["label"] for one in info["vocabulary"]["classes"]] == NAMES
    assert SECRET not in json.dumps(info, default=str)
    assert SECRET not in dataset.values("guess_error")[-1]
    assert SECRET not in str(report) + report.to_json()
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err + caplog.text
    readable = dataset.exists("truth")
    readable.set_values("guess.label", ["$filepath"] * len(NAMES))
    for name in NAMES[0], NAMES[2], NAMES[4]:
        fields = {"predictions": "guess", "ground_truth": "truth"}
        found = zs.error_view(readable, "confused", truth=name, label="$filepath", **fields)
        assert found.values("truth.label") == [name]


@pytest.mark.parametrize("name", ["$filepath", "$$ROOT", "$label"])
def test_a_name_is_never_a_path_of_a_query(dataset, name):
    import fiftyone as fo

    from zs_operators.analysis.label_expressions import has_name

    for label in (name, "other"):
        one = fo.Detection(label=label, bounding_box=[0, 0, 1, 1])
        dataset.add_sample(
            fo.Sample(
                filepath=f"/{label}.png",
                one=fo.Classification(label=label),
                many=fo.Detections(detections=[one]),
            )
        )
    for field in ("one", "many"):
        assert dataset.match(has_name(dataset, field, [name])).values("one.label") == [name]
        both = dataset.match(has_name(dataset, field, [name, "other"]))
        assert len(both) == 2


# --- records from elsewhere ---------------------------------------------------------------------


def _record(dataset, **changes):
    """What a stranger sends as a run of a field that the dataset has."""
    stage = {
        "_cls": "fiftyone.core.stages.Mongo",
        "_uuid": "0",
        "kwargs": [["pipeline", [{"$match": {}}]], ["_needs_frames", None]],
    }
    record = {
        "label_field": "mine",
        "cls": "pathlib.Path",
        "samples": {"dataset": dataset.name, "stages": json.dumps([stage])},
        "output_dir": "/etc",
        "vocabulary": Vocabulary.parse(["a"]).to_dict(),
        "parameters": {"label_field": "mine", "output_dir": "/etc", "overwrite": True},
        **changes,
    }
    return {
        "format": "zs-operators run",
        "format_version": 1,
        "task": "classify",
        "key": "zs_classify_mine",
        "record": record,
    }


def test_a_record_brings_no_queries_and_no_folders(dataset):
    import fiftyone as fo

    import zs_operators as zs

    dataset.add_sample(fo.Sample(filepath="/a.png", mine=fo.Classification(label="kept")))
    content = _record(dataset)
    found = zs.import_run(dataset, json.loads(json.dumps(content)))
    assert "/etc" not in json.dumps(found.record, default=str)
    with pytest.raises(InvalidInputError, match="pass samples="):
        zs.rerun(found)
    zs.delete_run(found, fields=True)
    assert dataset.values("mine.label") == ["kept"]


@pytest.mark.parametrize(
    "parameters",
    [{"label_field": "truth"}, {"update_source": True, "regions": "truth", "label_field": "mine"}],
)
def test_a_record_cannot_name_another_field_than_it_shows(dataset, parameters):
    import zs_operators as zs

    with pytest.raises(InvalidInputError, match="of another field"):
        zs.import_run(dataset, _record(dataset, parameters=parameters))
    assert zs.runs(dataset) == []


@pytest.mark.parametrize("digest", ["../../victim", "/etc/x", {"$ne": ""}, None])
def test_a_dataset_cannot_name_other_files_as_its_heads(dataset, tmp_path, monkeypatch, digest):
    import zs_operators as zs

    monkeypatch.setenv("ZS_STORE_DIR", str(tmp_path / "stores"))
    victim = tmp_path / "victim.safetensors"
    victim.write_bytes(b"mine")
    (tmp_path / "stores" / "heads").mkdir(parents=True)
    dataset.info["zs_heads"] = [{"name": "planted", "digest": digest}]
    dataset.save()
    assert zs.list_heads(dataset) == []
    with pytest.raises(InvalidInputError, match="No head"):
        zs.delete_head(dataset, "planted")
    assert victim.exists()


# --- the sources --------------------------------------------------------------------------------


def _lines_with(root, pattern):
    """(file, line) of the sources that match, without what follows a #."""
    return {
        (file.relative_to(root).as_posix(), line.strip())
        for folder in ("zs_operators", "plugins", "tools")
        for file in (root / folder).rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if re.search(pattern, line.partition("  #")[0])
    }


def test_nobody_trusts_remote_code(root):
    assert _lines_with(root, "trust_remote_code") == {
        (
            "zs_operators/clip_loading.py",
            "trust_remote_code=False,  # or transformers asks at the terminal",
        ),
        (
            "zs_operators/detectors/hugging_face.py",
            'options = {"local_files_only": True, "trust_remote_code": False}',
        ),
    }


def test_who_starts_processes(root):
    """bandit is told to leave these calls alone: each takes a list of words that are our own."""
    files = {file for file, _ in _lines_with(root, r"subprocess\.(run|Popen|call|check_)")}
    assert files == {
        "tools/audit.py",
        "tools/matrix.py",
        "tools/release.py",
        "zs_operators/checks.py",  # a probe of FiftyOne, with this Python
        "zs_operators/doctor.py",  # pip, with this Python
        "zs_operators/mongod.py",  # the server of tests and of the demo
    }
    assert not _lines_with(
        root, r"shell=True|os\.(system|popen|spawn|exec)|(?<![.\w])(eval|exec)\("
    )


def test_who_downloads(root):
    """Weights alone: by the hub's own client, or of a model's address in the registry."""
    pattern = (
        r"hf_hub_download\(|download_(pretrained|url)\w*\(|load_state_dict_from_url|urlopen\(|"
    )
    pattern += r"urlretrieve\(|requests\.|httpx|http\.client|snapshot_download"
    files = {file for file, _ in _lines_with(root, pattern)}
    assert files == {
        "zs_operators/detectors/hugging_face_files.py",
        "zs_operators/downloads.py",
        "zs_operators/weights_files.py",
    }
    users = {
        file for file, _ in _lines_with(root, r"zs_operators\.downloads import .*\bdownload\b")
    }
    assert users == {
        "zs_operators/hub_cache.py",
        "zs_operators/model_pull.py",
        "zs_operators/torch_models.py",
    }


def test_the_threat_model_names_tests_that_exist(root):
    text = (root / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", text))
    assert len(named) > 10
    assert not [name for name in named if not (root / name).is_file()]

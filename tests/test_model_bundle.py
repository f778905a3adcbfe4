"""Models in one file: what goes in comes out the same, and nothing else comes in."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest

from tests.model_registries import CLIP, CLIP_REPO, DETECTOR, serve_clip, serve_detector
from tests.model_server import COMMIT, serve
from tests.test_security import Planted
from zs_operators.bundle_manifest import MANIFEST_NAME
from zs_operators.bundle_reading import pull_bundle
from zs_operators.bundle_writing import bundle_models
from zs_operators.errors import InvalidInputError, UnknownModelError, WeightsError
from zs_operators.model_pull import pull_models
from zs_operators.weights import plan_weights


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in ("HF_HUB_OFFLINE", "ZS_OFFLINE", "ZS_WEIGHTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with serve() as served:
        yield served


@pytest.fixture
def bundle(server, monkeypatch, tmp_path) -> Path:
    """A bundle of the proposer, as it would come by post; this machine has nothing of it."""
    serve_detector(monkeypatch, server)
    pull_models([DETECTOR], weights_dir=tmp_path / "there")
    path = tmp_path / "models.zsbundle"
    return bundle_models([DETECTOR], path, weights_dir=tmp_path / "there")


def offline(monkeypatch, tmp_path, server):
    """From here on this is another machine, without network."""
    from huggingface_hub import constants

    monkeypatch.setenv("ZS_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other" / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "other" / "torch"))
    server.asked = []


def members_of(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def write_tar(path, members):
    """A tar of (name or TarInfo, content)."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def changed(path, **changes):
    """The bundle with other values in the manifest's first file."""
    members = members_of(path)
    content = json.loads(members[MANIFEST_NAME])
    content["files"][0].update(changes)
    members[MANIFEST_NAME] = json.dumps(content).encode()
    return write_tar(path, members.items())


def everything_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refuse(path, tmp_path, match):
    """The bundle is refused, and nothing of it is left anywhere."""
    target = tmp_path / "target"
    with pytest.raises(WeightsError, match=match):
        pull_bundle(path, weights_dir=target)
    assert not [one for one in everything_below(target) if "." in one], "nothing is placed"


def test_a_clip_is_carried_to_a_machine_without_network(server, monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    import zs_operators as zs

    contents = serve_clip(monkeypatch, server, tmp_path)
    serve_detector(monkeypatch, server)
    pull_models([CLIP, DETECTOR])
    before = zs.load_clip(CLIP).encode_texts(["a cat"])
    path = bundle_models([CLIP, DETECTOR, "shapes-tiny"], tmp_path / "all.zsbundle")

    offline(monkeypatch, tmp_path, server)
    assert plan_weights("clip", CLIP).state == "download"
    files = pull_bundle(path)
    assert {file.path.name for file in files} > set(contents)
    assert {file.state for file in files} == {"downloaded"}
    for file in files:
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.sha256
    clip = zs.load_clip(CLIP)
    assert (clip.encode_texts(["a cat"]) == before).all()
    assert plan_weights("proposals", DETECTOR).state == "cached"
    assert {file.state for file in pull_bundle(path)} == {"here"}
    assert server.asked == []

    from huggingface_hub import hf_hub_download

    found = hf_hub_download(CLIP_REPO, "open_clip_model.safetensors", local_files_only=True)
    assert COMMIT in found, "others find it too"


def test_a_bundle_says_nothing_of_who_made_it(bundle):
    with tarfile.open(bundle) as tar:
        for member in tar:
            assert (member.uname, member.gname, member.mtime, member.uid) == ("", "", 0, 0)
    content = members_of(bundle)[MANIFEST_NAME]
    assert str(bundle.parent).encode() not in content
    (model,) = json.loads(content)["models"]
    assert model["licence"] == "Apache-2.0"


def test_the_same_models_make_the_same_bundle(bundle, tmp_path):
    again = bundle_models([DETECTOR], tmp_path / "again.zsbundle", weights_dir=tmp_path / "there")
    assert again.read_bytes() == bundle.read_bytes()


def test_what_cannot_be_bundled(bundle, tmp_path, monkeypatch):
    with pytest.raises(InvalidInputError, match="is there already"):
        bundle_models([DETECTOR], bundle, weights_dir=tmp_path / "there")
    with pytest.raises(WeightsError, match=f"zs pull {DETECTOR}"):
        bundle_models([DETECTOR], tmp_path / "new", weights_dir=tmp_path / "empty")
    with pytest.raises(InvalidInputError, match="nothing to bundle"):
        bundle_models(["shapes-tiny"], tmp_path / "new")
    with pytest.raises(InvalidInputError, match="there is no folder"):
        bundle_models([DETECTOR], tmp_path / "no" / "new", weights_dir=tmp_path / "there")
    with pytest.raises(UnknownModelError):
        bundle_models(["what"], tmp_path / "new")
    (weights,) = (tmp_path / "there" / "checkpoints").glob("*.safetensors")
    weights.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="is damaged or another file"):
        bundle_models([DETECTOR], tmp_path / "new", weights_dir=tmp_path / "there")
    assert not (tmp_path / "new").exists()


def test_what_is_no_bundle(tmp_path, bundle):
    with pytest.raises(InvalidInputError, match="there is no bundle"):
        pull_bundle(tmp_path / "nothing")
    other = tmp_path / "other"
    other.write_bytes(b"no tar at all")
    refuse(other, tmp_path, "is no bundle")
    other.write_bytes(b"")
    refuse(other, tmp_path, "is no bundle")
    write_tar(other, [("readme.txt", b"hello")])
    refuse(other, tmp_path, "does not begin with manifest.json")
    write_tar(other, [(MANIFEST_NAME, b"{" * 2000)])
    refuse(other, tmp_path, "no bundle of models")
    write_tar(other, [(MANIFEST_NAME, b"[" * 100_000)])
    refuse(other, tmp_path, "no bundle of models")
    write_tar(other, [(MANIFEST_NAME, b" " * 2_000_000)])
    refuse(other, tmp_path, "does not begin with manifest.json")


def test_damage_on_the_way_is_noticed(tmp_path, bundle):
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    refuse(bundle, tmp_path, "is damaged: its sha256 is")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_cut_bundle_is_noticed(tmp_path, bundle, share):
    data = bundle.read_bytes()
    bundle.write_bytes(data[: int(len(data) * share)])
    refuse(bundle, tmp_path, "damaged|cut short|unpacked|unexpected end")


def test_a_member_that_is_missing_or_too_many(tmp_path, bundle):
    members = members_of(bundle)
    write_tar(bundle, [(MANIFEST_NAME, members[MANIFEST_NAME])])
    refuse(bundle, tmp_path, "is cut short")
    write_tar(bundle, [*members.items(), ("../../evil.py", b"import os")])
    refuse(bundle, tmp_path, r"'../../evil.py', which its manifest lacks")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "manifest.json"),
        (tarfile.DIRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
    ],
)
def test_only_plain_files(tmp_path, bundle, kind, target):
    members = members_of(bundle)
    manifest = members.pop(MANIFEST_NAME)
    (digest,) = members
    planted = tarfile.TarInfo(digest)
    planted.type, planted.linkname = kind, target
    write_tar(bundle, [(MANIFEST_NAME, manifest), (planted, b"")])
    refuse(bundle, tmp_path, "no plain file")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": "../../evil.safetensors"}, "none of the model's files"),
        ({"name": "/etc/cron.d/evil"}, "none of the model's files"),
        ({"name": "other.safetensors"}, "none of the model's files"),
        ({"name": ["a"]}, "its row is damaged"),
        ({"repo": "somebody/else", "commit": COMMIT}, "none of the model's files"),
        ({"repo": ["x"]}, "none of the model's files"),
        ({"commit": {"a": 1}}, "no commit"),
        ({"model": "no-such-model"}, "has no such model; update"),
        ({"model": "shapes-tiny"}, "none of the model's files"),
        ({"sha256": "../../../evil"}, "no sha256"),
        ({"sha256": "A" * 64}, "no sha256"),
        ({"sha256": "0" * 64}, "which was published"),
        ({"size": -1}, "manifest lacks|damaged"),
        ({"size": True}, "no sha256 and size"),
        ({"more": 1}, "no bundle of models"),
    ],
)
def test_a_manifest_cannot_name_other_places(tmp_path, bundle, changes, match):
    refuse(changed(bundle, **changes), tmp_path, match)


def test_two_files_of_one_name(tmp_path, bundle):
    members = members_of(bundle)
    content = json.loads(members[MANIFEST_NAME])
    content["files"] *= 2
    members[MANIFEST_NAME] = json.dumps(content).encode()
    refuse(write_tar(bundle, members.items()), tmp_path, "two files of one name")


def test_a_bundle_of_another_version(tmp_path, bundle):
    members = members_of(bundle)
    for change, match in (({"format_version": 2}, "update it"), ({"format": "x"}, "no bundle")):
        content = {**json.loads(members[MANIFEST_NAME]), **change}
        write_tar(bundle, {**members, MANIFEST_NAME: json.dumps(content).encode()}.items())
        refuse(bundle, tmp_path, match)


def test_a_pickle_that_would_run_is_refused(server, monkeypatch, tmp_path):
    """Its sha256 is right, and a loader would refuse it; but it should not even get here."""
    name = "regionclip_pretrained-cc_rn50.pth"
    target = tmp_path / "ran"
    content = pickle.dumps({"weight": Planted(target)})
    digest = hashlib.sha256(content).hexdigest()
    row = {
        "model": "regionclip-rn50",
        "name": name,
        "sha256": digest,
        "size": len(content),
        "repo": None,
        "commit": None,
    }
    head = {"format": "zs-operators models", "format_version": 1, "models": [], "files": [row]}
    path = write_tar(
        tmp_path / "evil.zsbundle", [(MANIFEST_NAME, json.dumps(head).encode()), (digest, content)]
    )
    refuse(path, tmp_path, f"weights of regionclip-rn50: .*{name}")
    assert not target.exists()


def test_what_is_here_is_not_replaced(tmp_path, bundle):
    (file,) = pull_bundle(bundle, weights_dir=tmp_path / "target")
    file.path.write_bytes(b"mine")
    with pytest.raises(WeightsError, match="is another file than the bundle's"):
        pull_bundle(bundle, weights_dir=tmp_path / "target")
    assert file.path.read_bytes() == b"mine"


def test_a_disk_without_room(tmp_path, bundle, monkeypatch):
    from collections import namedtuple

    from zs_operators import downloads

    usage = namedtuple("Usage", "total used free")(1, 1, 1000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: usage)
    refuse(bundle, tmp_path, "GB free and")
    with pytest.raises(WeightsError, match="GB free and"):
        bundle_models([DETECTOR], tmp_path / "new", weights_dir=tmp_path / "there")
    assert not (tmp_path / "new").exists()

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest

from zs_operators import weights_files
from zs_operators.errors import (
    InvalidInputError,
    OfflineError,
    UnknownModelError,
    WeightsError,
)
from zs_operators.weights import (
    DEFAULT_CLIP,
    fetch_weights,
    file_sha256,
    models,
    plan_weights,
    verify_weights,
)

REPO = "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"


@pytest.fixture
def online(monkeypatch):
    """As if downloads were allowed; what would reach the network is replaced by each test."""
    for name in weights_files.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty Hugging Face cache; the function puts a file into it as a download would."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(repo, filename, content, name=None):
        base = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        blob = base / "blobs" / (name or hashlib.sha256(content).hexdigest())
        snapshot = base / "snapshots" / ("0" * 40)
        for folder in (blob.parent, snapshot, base / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        (base / "refs" / "main").write_text("0" * 40)
        (snapshot / filename).symlink_to(blob)
        return snapshot / filename

    return put


def weights_folder(folder, *files, config=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).write_bytes(b"x")
    if config:
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {}}))
    return folder


class TestRegistry:
    def test_clip_entries_are_what_open_clip_knows(self):
        for entry in models("clip"):
            if entry.pretrained is None:
                continue
            config = open_clip.get_pretrained_cfg(entry.architecture, entry.pretrained)
            assert config["hf_hub"].rstrip("/") == entry.source, entry.name
            built_in = open_clip.get_model_config(entry.architecture)
            quick = config.get("quick_gelu", False)
            assert built_in.get("quick_gelu", False) == quick, entry.name

    def test_every_entry_says_what_a_person_must_know_before_a_download(self):
        names = [entry.name for entry in models()]
        assert len(set(names)) == len(names)
        assert DEFAULT_CLIP in names
        for entry in models():
            assert entry.size_mb > 0
            assert entry.licence
            assert entry.description
        with pytest.raises(InvalidInputError, match="kind"):
            models("clips")

    def test_planning_by_name_needs_neither_torch_nor_open_clip(self):
        code = (
            "import sys; from zs_operators.weights import plan_weights, models; models();"
            "plan_weights('clip'); plan_weights('clip', 'shapes-tiny');"
            "print([m for m in ('torch', 'open_clip', 'fiftyone') if m in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"


class TestPlan:
    def test_default_is_a_download_with_size_licence_and_source(self, hub_cache):
        plan = plan_weights("clip")
        assert plan.state == "download"
        assert (plan.architecture, plan.pretrained) == ("ViT-B-32", "datacomp_xl_s13b_b90k")
        assert (plan.size_mb, plan.licence, plan.source) == (605, "MIT", REPO)
        assert plan.path is None
        assert json.loads(json.dumps(plan.to_dict()))["filenames"][0].endswith(".safetensors")

    @pytest.mark.parametrize(
        "filename", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    )
    def test_finds_what_was_downloaded_before(self, hub_cache, filename):
        file = hub_cache(REPO, filename, b"weights")
        for plan in (plan_weights("clip"), plan_weights("clip", "ViT-B-32")):
            assert plan.state == "cached"
            assert plan.path == str(file)
            assert fetch_weights(plan) == file

    def test_bundled(self):
        plan = plan_weights("clip", "shapes-tiny")
        assert plan.state == "bundled"
        assert Path(plan.path).is_dir()
        assert fetch_weights(plan).suffix == ".safetensors"

    @pytest.mark.parametrize("spelling", ["ViT-B-16", "vit-b-16", "ViT-B/16"])
    def test_bare_architecture_gets_its_best_known_tag(self, hub_cache, spelling):
        plan = plan_weights("clip", spelling)
        assert (plan.architecture, plan.pretrained) == ("ViT-B-16", "datacomp_xl_s13b_b90k")
        assert plan.licence == "MIT"  # known because the registry has the same weights

    @pytest.mark.parametrize(
        ("asked", "tag", "expected"),
        [
            ("ViT-B-32", "openai", "ViT-B-32-quickgelu"),
            ("ViT-B-16", "dfn2b", "ViT-B-16-quickgelu"),
            ("ViT-B-32", "metaclip_400m", "ViT-B-32-quickgelu"),
            ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "ViT-B-32"),
            ("RN50", None, "RN50-quickgelu"),
        ],
    )
    def test_activation_is_paired_with_the_weights(self, hub_cache, caplog, asked, tag, expected):
        plan = plan_weights("clip", asked, tag)
        assert plan.architecture == expected
        assert expected in caplog.text

    def test_matching_activation_is_silent(self, hub_cache, caplog):
        assert plan_weights("clip", "ViT-B-32-quickgelu", "openai").pretrained == "openai"
        assert plan_weights("clip", "ViT-B-32", "LAION2B-s34b-b79k").architecture == "ViT-B-32"
        assert caplog.text == ""

    def test_random(self):
        plan = plan_weights("clip", "ViT-B-32", "random")
        assert (plan.state, plan.path, plan.pretrained) == ("random", None, None)
        with pytest.raises(WeightsError, match="random"):
            fetch_weights(plan)
        with pytest.raises(WeightsError, match="bundled"):
            plan_weights("clip", "shapes-tiny", "random")

    @pytest.mark.parametrize(
        ("model", "nearest"),
        [
            ("ViT-B-23", "ViT-B-32"),
            ("clip-vit-b32", "clip-vit-b-32"),
            ("shapes_tiny", "shapes-tiny"),
        ],
    )
    def test_unknown_model_suggests_the_nearest(self, model, nearest):
        with pytest.raises(UnknownModelError, match=rf"{model}.*nearest: .*{nearest}"):
            plan_weights("clip", model)

    def test_unknown_tag_suggests_the_nearest(self):
        with pytest.raises(UnknownModelError, match=r"'laion2b_s34b'.*laion2b_s34b_b79k"):
            plan_weights("clip", "ViT-B-32", "laion2b_s34b")
        with pytest.raises(UnknownModelError, match="has no pretrained tag 'zzz'; it has: openai"):
            plan_weights("clip", "ViT-B-32", "zzz")

    def test_architecture_without_published_weights_asks_for_a_file(self):
        published = {name for name, _ in open_clip.list_pretrained()}
        name = next(name for name in open_clip.list_models() if name not in published)
        with pytest.raises(UnknownModelError, match="give weights"):
            plan_weights("clip", name)

    def test_another_kind(self):
        with pytest.raises(UnknownModelError, match="kind 'clip'"):
            plan_weights("proposals", DEFAULT_CLIP)
        with pytest.raises(InvalidInputError, match="kind"):
            plan_weights("clop", DEFAULT_CLIP)

    def test_weights_that_nobody_serves_say_where_to_get_them(self):
        with pytest.raises(WeightsError, match=r"fetched by hand.*regionclip_pretrained"):
            plan_weights("clip", "regionclip-rn50")


class TestLocal:
    @pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
    @pytest.mark.parametrize("as_type", [str, Path])
    def test_file(self, tmp_path, suffix, as_type):
        file = tmp_path / f"weights{suffix}"
        file.write_bytes(b"x")
        plan = plan_weights("clip", "ViT-B-16", as_type(file))
        assert (plan.state, plan.architecture, plan.path) == ("local", "ViT-B-16", str(file))
        assert plan.source == "local"
        assert fetch_weights(plan, allow_download=False) == file

    @pytest.mark.parametrize("missing", ["nothere/w.pt", "w.safetensors", "./tag", "~/nothere"])
    def test_missing_file(self, tmp_path, monkeypatch, missing):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(WeightsError, match="there is no weights file or folder"):
            plan_weights("clip", "ViT-B-32", missing)
        with pytest.raises(WeightsError, match="there is no weights file or folder"):
            plan_weights("clip", "ViT-B-32", Path("openai"))

    def test_wrong_kind_of_file(self, tmp_path):
        file = tmp_path / "weights.npz"
        file.write_bytes(b"x")
        with pytest.raises(WeightsError, match=r"none of \.safetensors"):
            plan_weights("clip", "ViT-B-32", file)

    def test_folder_as_weights_or_as_model(self, tmp_path):
        folder = weights_folder(tmp_path / "my-clip", "open_clip_model.safetensors")
        for plan in (plan_weights("clip", weights=folder), plan_weights("clip", folder)):
            assert (plan.model, plan.architecture, plan.path) == (
                "my-clip",
                "my-clip",
                str(folder),
            )
        with pytest.raises(InvalidInputError, match="leave out weights"):
            plan_weights("clip", folder, "openai")

    def test_file_beside_a_config_needs_no_architecture(self, tmp_path):
        folder = weights_folder(tmp_path / "my-clip", "model.pt")
        plan = plan_weights("clip", weights=folder / "model.pt")
        assert plan.architecture == "my-clip"

    def test_folder_without_config_or_weights(self, tmp_path):
        bare = weights_folder(tmp_path / "bare", "a.pt", config=False)
        with pytest.raises(WeightsError, match=r"open_clip_config\.json"):
            plan_weights("clip", "ViT-B-32", bare)
        empty = weights_folder(tmp_path / "empty")
        with pytest.raises(WeightsError, match="no weights"):
            plan_weights("clip", "ViT-B-32", empty)
        many = weights_folder(tmp_path / "many", "a.pt", "b.pt")
        with pytest.raises(WeightsError, match="several"):
            plan_weights("clip", "ViT-B-32", many)
        weights_folder(many, "open_clip_model.safetensors")
        plan = plan_weights("clip", "ViT-B-32", many)
        assert fetch_weights(plan).name == "open_clip_model.safetensors"

    def test_a_folder_in_the_way_does_not_hide_a_tag(self, tmp_path, monkeypatch, hub_cache):
        (tmp_path / "openai").mkdir()
        monkeypatch.chdir(tmp_path)
        assert plan_weights("clip", "ViT-B-32", "openai").pretrained == "openai"


class TestOffline:
    @pytest.mark.parametrize("variable", ["ZS_OFFLINE", "HF_HUB_OFFLINE"])
    def test_one_message_with_file_source_and_place(self, hub_cache, online, monkeypatch, variable):
        monkeypatch.setenv(variable, "1")
        with pytest.raises(OfflineError) as error:
            fetch_weights(plan_weights("clip"))
        for part in ("open_clip_model.safetensors", REPO, "weights=<path", variable):
            assert part in str(error.value)

    def test_the_advice_names_the_architecture_the_weights_need(self, hub_cache, online):
        with pytest.raises(OfflineError, match="model='ViT-B-32-quickgelu'"):
            fetch_weights(plan_weights("clip", "ViT-B-32", "openai"), allow_download=False)

    def test_models_with_a_tokenizer_of_their_own_need_a_folder(self, hub_cache):
        with pytest.raises(OfflineError, match=r"tokenizer\.json .*one folder") as error:
            fetch_weights(plan_weights("clip", "siglip2-b-16"))
        assert "weights=<that folder>" in str(error.value)

    def test_an_unreachable_hub_is_noticed_at_once(self, hub_cache, online, monkeypatch):
        def no_such_host(*args, **kwargs):
            raise OSError("Name or service not known")

        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(weights_files.socket, "getaddrinfo", no_such_host)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", pytest.fail)
        with pytest.raises(OfflineError, match="cannot be reached"):
            fetch_weights(plan_weights("clip"))

    def test_a_connection_lost_on_the_way(self, hub_cache, online, monkeypatch):
        def lost(*args, **kwargs):
            raise ConnectionError("reset by peer")

        monkeypatch.setattr(weights_files, "_is_reachable", lambda url: True)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", lost)
        with pytest.raises(OfflineError, match="reset by peer"):
            fetch_weights(plan_weights("clip"))

    def test_downloads_the_first_file_the_source_has(
        self, hub_cache, online, monkeypatch, tmp_path
    ):
        from huggingface_hub.errors import EntryNotFoundError

        asked = []

        def download(repo, filename, cache_dir):
            asked.append(filename)
            if filename.endswith(".safetensors"):
                raise EntryNotFoundError(filename)
            return str(tmp_path / filename)

        monkeypatch.setattr(weights_files, "_is_reachable", lambda url: True)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        file = fetch_weights(plan_weights("clip"))
        assert file == tmp_path / "open_clip_pytorch_model.bin"
        assert asked == ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]


class TestChecksum:
    def test_is_of_the_content_and_notices_changes(self, tmp_path):
        file = tmp_path / "w.pt"
        file.write_bytes(b"first")
        assert file_sha256(file) == hashlib.sha256(b"first").hexdigest()
        file.write_bytes(b"second!")
        assert file_sha256(file) == hashlib.sha256(b"second!").hexdigest()

    def test_is_computed_once(self, tmp_path, monkeypatch):
        file = tmp_path / "w.pt"
        file.write_bytes(b"content")
        first = file_sha256(file)
        monkeypatch.setattr(weights_files.hashlib, "sha256", pytest.fail)
        assert file_sha256(file) == first

    def test_is_compared_with_the_registry(self, tmp_path):
        file = tmp_path / "w.pt"
        file.write_bytes(b"content")
        plan = plan_weights("clip", "ViT-B-32", file)
        digest = hashlib.sha256(b"content").hexdigest()
        assert verify_weights(replace(plan, sha256=digest.upper()), file) == digest
        with pytest.raises(WeightsError, match=f"{digest}, expected {'0' * 64}"):
            verify_weights(replace(plan, sha256="0" * 64), file)

    def test_a_damaged_file_in_the_cache_is_noticed(self, hub_cache):
        good = hub_cache(REPO, "open_clip_model.safetensors", b"content")
        plan = plan_weights("clip")
        assert verify_weights(plan, good) == hashlib.sha256(b"content").hexdigest()
        good.resolve().write_bytes(b"cut")
        with pytest.raises(WeightsError, match="damaged"):
            verify_weights(plan, good)

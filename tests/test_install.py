"""``zs install`` puts a link where FiftyOne looks, and never destroys what it did not make."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from zs_operators import install as module
from zs_operators.errors import InvalidInputError, MissingDependencyError
from zs_operators.install import find_installed, install, plugin_source, plugins_dir, uninstall


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the plugin goes, in an empty plugin folder."""
    folder = tmp_path / "plugins"
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(folder))
    return folder / "@zs" / "operators"


def make_plugin(folder, name="@zs/operators", version="0.0.1"):
    folder.mkdir(parents=True)
    (folder / "fiftyone.yml").write_text(f'name: "{name}"\nversion: {version}  # old\n')
    (folder / "mine.txt").write_text("precious")


def test_link_then_again_then_uninstall(place, root):
    done, changed = install()
    assert (done.path, done.kind, done.target, changed) == (place, "link", root, True)
    assert place.is_symlink()
    assert install() == (done, False)
    assert find_installed() == (done,)
    assert uninstall() == place
    assert not os.path.lexists(place)
    assert not place.parent.exists()
    assert uninstall() is None
    assert (root / "fiftyone.yml").is_file()  # the link went, not what it pointed to


def test_copy_holds_the_package_and_can_become_a_link(place):
    done, changed = install(copy=True)
    assert (done.kind, changed) == ("copy", True)
    assert (place / "zs_operators" / "version.py").is_file()
    assert (place / "plugins" / "zero_shot" / "__init__.py").is_file()
    assert not list(place.rglob("__pycache__"))
    assert not (place / "tests").exists()
    done, changed = install()
    assert (done.kind, place.is_symlink(), changed) == ("link", True, True)
    assert install(copy=True)[0].kind == "copy"
    assert not place.is_symlink()
    assert uninstall() == place


def test_dangling_link_is_replaced(place, root, tmp_path):
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "a checkout that was deleted")
    assert install()[0].target == root


def test_link_to_another_checkout_of_ours_is_replaced(place, root, tmp_path):
    make_plugin(tmp_path / "old")
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "old")
    assert install()[0].target == root
    assert (tmp_path / "old" / "mine.txt").is_file()


def test_folder_that_we_did_not_make_needs_force(place):
    make_plugin(place)
    with pytest.raises(InvalidInputError, match=r"not made by `zs install`.*--force"):
        install()
    with pytest.raises(InvalidInputError, match="--force"):
        uninstall()
    assert (place / "mine.txt").read_text() == "precious"
    assert install(force=True)[0].kind == "link"


def test_git_checkout_is_never_deleted(place):
    make_plugin(place)
    (place / ".git").mkdir()
    for call in (install, uninstall):
        with pytest.raises(InvalidInputError, match="git checkout"):
            call(force=True)
    assert (place / "mine.txt").read_text() == "precious"


def test_link_to_a_stranger_needs_force(place, tmp_path):
    make_plugin(tmp_path / "stranger", name="@someone/else")
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "stranger")
    with pytest.raises(InvalidInputError, match=r"another plugin \(@someone/else\)"):
        install()
    assert install(force=True)[1]
    assert (tmp_path / "stranger" / "mine.txt").is_file()


def test_second_copy_under_another_name_is_refused(place):
    make_plugin(plugins_dir() / "downloaded")
    with pytest.raises(InvalidInputError, match=r"0\.0\.1 is already at .*downloaded"):
        install(force=True)


def test_repository_linked_by_hand_is_recognised(place, root):
    plugins_dir().mkdir()
    (plugins_dir() / "by-hand").symlink_to(root)
    found, changed = install()
    assert (found.path.name, changed) == ("by-hand", False)
    with pytest.raises(InvalidInputError, match="by hand"):
        uninstall()


def test_repository_itself_as_the_plugin_folder(root, monkeypatch):
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(root))
    found, changed = install()
    assert (found.path, changed) == (root, False)
    assert not (root / "@zs").exists()


def test_hidden_folders_and_nested_manifests_do_not_count(place):
    make_plugin(plugins_dir() / ".trash")
    make_plugin(plugins_dir() / "other", name="@someone/else")
    make_plugin(plugins_dir() / "other" / "nested")
    assert find_installed() == ()


def test_package_without_the_plugin_files_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_PACKAGE", tmp_path / "zs_operators")
    with pytest.raises(MissingDependencyError, match="fiftyone plugins download"):
        plugin_source()


@pytest.mark.parametrize(
    ("settings", "variables"),
    [
        ({}, {}),
        ({}, {"FIFTYONE_DEFAULT_DATASET_DIR": "{home}/data"}),
        ({"default_dataset_dir": "{home}/in-json"}, {}),
        ({"plugins_dir": "{home}/json-plugins"}, {"FIFTYONE_DEFAULT_DATASET_DIR": "{home}/data"}),
        ({"plugins_dir": "{home}/json-plugins"}, {"FIFTYONE_PLUGINS_DIR": "{home}/variable"}),
    ],
)
def test_plugins_dir_is_the_one_of_fiftyone(settings, variables, tmp_path, monkeypatch):
    from fiftyone.core.config import FiftyOneConfig

    for name in ("FIFTYONE_PLUGINS_DIR", "FIFTYONE_DEFAULT_DATASET_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(home=tmp_path))
    settings = {name: value.format(home=tmp_path) for name, value in settings.items()}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(settings))
    monkeypatch.setenv("FIFTYONE_CONFIG_PATH", str(config))
    assert str(plugins_dir()) == FiftyOneConfig(settings).plugins_dir


def test_command_imports_no_fiftyone(place):
    script = (
        "import sys; from zs_operators.cli import main; main(['install']); "
        "assert 'fiftyone' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert place.is_symlink()

"""FiftyOne finds the plugin however it got into the plugin folder, and loses nothing of its own."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from zs_operators.version import __version__

# Prints what a fresh process finds in the plugin folder. PACKAGE_BELOW: the only place to take
# zs_operators from, as if it were not installed.
SCRIPT = """
import importlib.machinery, json, os, sys, time
only = os.environ.get("PACKAGE_BELOW")
class OnlyBelow:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "zs_operators":
            return None
        places = [place for place in sys.path if place.startswith(only)]
        spec = importlib.machinery.PathFinder.find_spec(name, places)
        if spec is None:
            raise ModuleNotFoundError(name, name=name)
        return spec
if only:
    sys.meta_path.insert(0, OnlyBelow)
import fiftyone as fo
import fiftyone.plugins as fop
if os.environ.get("DOWNLOAD"):
    fop.download_plugin(os.environ["DOWNLOAD"])
from fiftyone.operators.registry import OperatorRegistry
registry = OperatorRegistry()
operators = registry.list_operators()
modules = sorted(sys.modules)
ours = [p for p in fop.list_plugins(enabled="all", builtin=False)]
seconds = []
if ours:
    from fiftyone.plugins.context import PluginContext
    fop.ensure_plugin_requirements("@zs/operators", error_level=0)
    fop.ensure_plugin_compatibility("@zs/operators", error_level=0)
    for _ in range(7):
        start = time.perf_counter()
        PluginContext(fop.get_plugin("@zs/operators")).register_all()
        seconds.append(time.perf_counter() - start)
print("FOUND" + json.dumps({
    "errors": registry.list_errors(),
    "builtin": sorted(operator.uri for operator in operators if operator.builtin),
    "ours": sorted(operator.uri for operator in operators if not operator.builtin),
    "plugins": {plugin.name: [plugin.version, plugin.directory] for plugin in ours},
    "modules": modules,
    "package": getattr(sys.modules.get("zs_operators"), "__file__", None),
    "icons": sorted({icon for operator in operators if not operator.builtin
                     for icon in (operator.config.light_icon, operator.config.dark_icon) if icon}),
    "seconds": seconds,
    "plugins_dir": fo.config.plugins_dir,
}))
"""

# Opens every form on an image with a box, and prints the modules that were imported for it.
FORMS = """
import json, sys
import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators.executor import ExecutionContext, Executor
box = fo.Detection(label="a", bounding_box=[0.1, 0.1, 0.5, 0.5])
dataset = fo.Dataset()
boxes = {name: fo.Detections(detections=[box.copy()]) for name in ("boxes", "truth")}
dataset.add_sample(fo.Sample(filepath="a.png", **boxes))
names = {"class_names": "cat"}
forms = 0
for task, params in (("classify", {}), ("detect", {}), ("segment", {"prompt_with": "boxes"}),
                     ("segment", {"prompt_with": "everything"}), ("evaluate", {})):
    uri = f"@zs/operators/{task}"
    request = {"params": {**names, **params}, "dataset_name": dataset.name}
    ctx = ExecutionContext(request, executor=Executor(), operator_uri=uri)
    properties = foo.get_operator(uri).resolve_type(ctx, "inputs").type.properties
    assert not any(prop.invalid for prop in properties.values()), task
    forms += 1
dataset.delete()
print(json.dumps({"forms": forms, "modules": sorted(sys.modules)}))
"""


def found_by_fiftyone(plugins_dir: Path, cwd: Path, **variables: str) -> dict:
    environment = {**os.environ, "FIFTYONE_PLUGINS_DIR": str(plugins_dir), **variables}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],  # -c puts the working directory first on sys.path
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert lines, done.stderr
    return json.loads(lines[-1][5:])


@pytest.fixture(scope="module")
def without(tmp_path_factory) -> dict:
    """What FiftyOne registers when it has no plugin but its own."""
    empty = tmp_path_factory.mktemp("none")
    found = found_by_fiftyone(empty, empty)
    assert found["ours"] == []
    assert len(found["builtin"]) > 50
    return found


@pytest.fixture(scope="module")
def linked(tmp_path_factory, root) -> dict:
    """The repository linked, and the process started in the repository: the worst place for it."""
    plugins = tmp_path_factory.mktemp("linked")
    (plugins / "zs-operators").symlink_to(root, target_is_directory=True)
    return found_by_fiftyone(plugins, root)


def check(found: dict, without: dict, root: Path) -> None:
    manifest = yaml.safe_load((root / "fiftyone.yml").read_text())
    names = manifest.get("operators", []) + manifest.get("panels", [])
    assert found["errors"] == []
    assert found["builtin"] == without["builtin"]
    assert found["ours"] == sorted(f"@zs/operators/{name}" for name in names)
    assert found["plugins"]["@zs/operators"][0] == __version__


def test_linked(linked, without, root):
    check(linked, without, root)


def test_copied_without_installing_the_package(checkout, without, root, tmp_path):
    copy = tmp_path / "plugins" / "some-folder"
    shutil.copytree(checkout, copy)
    found = found_by_fiftyone(copy.parent, tmp_path, PACKAGE_BELOW=str(copy))
    check(found, without, root)
    assert Path(found["package"]) == copy / "zs_operators" / "__init__.py"


def test_downloaded(checkout, without, root, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    archive = Path(
        shutil.make_archive(
            str(tmp_path / "main"), "zip", root_dir=checkout.parent, base_dir=checkout.name
        )
    )
    handler = functools.partial(QuietHandler, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        found = found_by_fiftyone(plugins, tmp_path, DOWNLOAD=url, PACKAGE_BELOW=str(plugins))
        server.shutdown()
    check(found, without, root)
    assert Path(found["package"]).is_relative_to(plugins / "@zs" / "operators")


def test_copied_by_zs_install(without, root, tmp_path):
    environment = {**os.environ, "FIFTYONE_PLUGINS_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "zs_operators.cli", "install", "--copy"]
    subprocess.run(command, env=environment, cwd=root, check=True, capture_output=True)
    check(found_by_fiftyone(tmp_path, tmp_path, PACKAGE_BELOW=str(tmp_path)), without, root)


def test_registering_imports_nothing_heavy(linked, without):
    """Every registry access runs the entry, and the App makes one at every keystroke."""
    ours = ("zs_operators", "fiftyone.plugins.orgs.zs", "fiftyone.plugins.orgs.zs.operators")
    extra = {
        name
        for name in set(linked["modules"]) - set(without["modules"])
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith(ours)
    }
    assert extra <= {"fiftyone.plugins.orgs"}
    for heavy in ("torch", "torchvision", "open_clip", "segment_anything"):
        assert heavy not in linked["modules"]


def test_forms_import_no_models(linked, root, tmp_path):
    """A form is resolved at every keystroke, and the first one must not take seconds."""
    environment = {**os.environ, "FIFTYONE_PLUGINS_DIR": str(tmp_path)}
    (tmp_path / "zs-operators").symlink_to(root, target_is_directory=True)
    command = [sys.executable, "-c", FORMS]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["forms"] == 5
    for heavy in ("torch", "torchvision", "open_clip", "segment_anything"):
        assert heavy not in found["modules"]


def test_registering_again_takes_milliseconds(linked):
    assert min(linked["seconds"]) < 0.02


def test_icons_exist(linked, root):
    assert linked["icons"]
    for icon in linked["icons"]:
        assert (root / icon.lstrip("/")).is_file(), icon


def test_importing_the_package_imports_no_third_party(root):
    script = "import sys, zs_operators, zs_operators.cli; print(*sys.modules)"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.append({str(root)!r}); {script}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for heavy in ("torch", "open_clip", "fiftyone", "numpy", "PIL", "yaml"):
        assert heavy not in done.stdout.split()


def test_no_package_called_plugins(root):
    """FiftyOne ships a top-level package of that name; ours would hide all its operators."""
    assert not (root / "plugins" / "__init__.py").exists()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

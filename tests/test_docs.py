"""Every command and every code block of README does what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from zs_operators.shapes.dataset import load_shapes_dataset

README = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?P<note><!--[^>]*-->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)
NEEDS_WEIGHTS = "needs weights that do not come with the repository"

#: Lines that cannot be run as they stand, and what is run instead.
INSTEAD = {
    "make test": "make --dry-run test",  # these tests are what it runs
    "pip install .": "pip install --dry-run --no-deps --no-build-isolation .",
}


def blocks(language):
    return [
        (match["code"], match["note"] or "")
        for match in BLOCK.finditer(README)
        if match["language"] == language
    ]


@pytest.fixture
def demo_dataset(tmp_path):
    dataset = load_shapes_dataset("zs-demo", num_scenes=12, folder=tmp_path)
    yield dataset
    dataset.delete()


def test_every_block_is_of_a_language_that_is_tested():
    assert {match["language"] for match in BLOCK.finditer(README)} == {"bash", "python"}


def test_python_blocks_run_one_after_the_other(demo_dataset):
    namespace = {}
    for code, note in blocks("python"):
        if NEEDS_WEIGHTS in note:
            with pytest.raises(Exception, match="vit_b_32"):
                exec(code, namespace)
        else:
            exec(code, namespace)

    assert len(namespace["unsure"]) == 10
    assert len(namespace["stars"]) == 5
    assert len(demo_dataset.exists("quick")) == 20
    assert demo_dataset.has_field("by_apply_model")
    assert "circle" in namespace["report"].labels


@pytest.mark.parametrize(
    "line", [line for code, _ in blocks("bash") for line in code.strip().splitlines()]
)
def test_shell_lines_run(line, root, tmp_path, monkeypatch):
    if "zs-demo" in line:
        dataset = load_shapes_dataset("zs-demo", num_scenes=12, folder=tmp_path)
        dataset.persistent = True
    binaries = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(binaries), prepend=":")
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(tmp_path / "plugins"))
    monkeypatch.setenv("FIFTYONE_DEFAULT_DATASET_DIR", str(tmp_path / "datasets"))
    command = INSTEAD.get(line, line)
    done = subprocess.run(
        shlex.split(command), cwd=root, capture_output=True, text=True, timeout=600, check=False
    )

    # doctor may find something amiss in a test environment, and says so with 1
    assert done.returncode in ((0, 1) if line == "zs doctor" else (0,)), done.stdout + done.stderr
    if line == "make demo":
        assert "never seen in training" in done.stdout
    if line == "make test":
        assert "pytest" in done.stdout


def test_links_and_pictures_exist(root):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (root / target).exists(), target

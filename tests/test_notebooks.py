"""The notebooks of docs/ run from top to bottom, one after the other in one kernel."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from zs_operators.shapes.dataset import load_shapes_dataset

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """A client whose kernel has imported torch and FiftyOne once, for all notebooks."""
    folder = tmp_path_factory.mktemp("notebooks")
    load_shapes_dataset("zs-demo", num_scenes=60, folder=folder, fresh=True)
    client = NotebookClient(nbformat.v4.new_notebook(), resources={"metadata": {"path": folder}})
    client.timeout = 120
    with client.setup_kernel():
        yield client


def run(client: NotebookClient, path: Path) -> str:
    """Everything that the cells print, of a kernel that has forgotten the notebook before."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    client.nb = notebook
    client.execute_cell(nbformat.v4.new_code_cell("%reset -f"), -1, store_history=False)
    for index, cell in enumerate(notebook.cells):
        client.execute_cell(cell, index)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not any(output.output_type == "error" for output in outputs)
    printed = [output.text for output in outputs if output.output_type == "stream"]
    results = [output.data["text/plain"] for output in outputs if "data" in output]
    return "\n".join([*printed, *results])


def numbers(pattern: str, text: str) -> list[float]:
    found = re.search(pattern, text, re.MULTILINE)
    assert found, text
    return [float(number) for number in found.groups()]


def test_there_are_three_without_outputs():
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs"), path.name
            assert cell.get("execution_count") is None, path.name


def test_each_is_on_the_page_of_notebooks():
    page = (FOLDER / "index.md").read_text()
    assert set(re.findall(r"\]\((\S+\.ipynb)\)", page)) == {path.name for path in NOTEBOOKS}


def test_classify_and_prompts(kernel):
    said = run(kernel, FOLDER / "classify-and-prompts.ipynb")
    first, second = numbers(r"\[(0\.\d+), (0\.\d+)\] \d+ labels changed", said)
    assert second > first + 0.2
    assert "210 images were not encoded again" in said
    assert "'rejected'" in said


def test_detect_and_segment(kernel):
    said = run(kernel, FOLDER / "detect-and-segment.ipynb")
    assert numbers(r"(\d\.\d+) of \d+ boxes have their right name", said)[0] > 0.85
    assert min(numbers(r"^([\d.]+) ([\d.]+) ([\d.]+)$", said)) > 0.6  # mAP, found, named
    assert said.count("PIL.") == 2  # both pictures were drawn


def test_evaluate_and_few_labels(kernel):
    said = run(kernel, FOLDER / "evaluate-and-few-labels.ipynb")
    before, after = numbers(r"([\d.]+) -> ([\d.]+) on \d+ images", said)
    assert after > before + 0.1
    assert "40 reviewed" in said

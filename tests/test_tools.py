"""``make audit`` and ``make matrix``: what they conclude; what they call runs elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

BAD = {
    "name": "a",
    "version": "1",
    "vulns": [{"id": "X-1", "aliases": ["Y-1"], "fix_versions": []}],
}
GOOD = {"name": "b", "version": "2", "vulns": []}
SKIPPED = {"name": "c", "skip_reason": "not on PyPI"}


@pytest.fixture
def load(root, monkeypatch):
    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"tools_{name}", root / f"tools/{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize(
    ("probe", "packages", "accepted", "is_clean", "says"),
    [
        ([BAD], [GOOD, SKIPPED], {}, True, "1 packages of 2 audited"),
        ([BAD], [GOOD, BAD], {}, False, "a 1: X-1, mended in no release yet"),
        ([BAD], [BAD], {"Y-1": "not called"}, True, "1 packages of 1 audited"),
        ([SKIPPED], [BAD], {}, True, "WARNING"),  # a service that knows of nothing
        (None, None, {}, True, "WARNING"),  # no network
        ([BAD], None, {}, True, "WARNING"),
    ],
)
def test_findings_fail_and_silence_warns(
    load, monkeypatch, capsys, probe, packages, accepted, is_clean, says
):
    audit = load("audit")
    monkeypatch.setattr(audit, "ACCEPTED", accepted)
    monkeypatch.setattr(
        audit, "_advisories", lambda first, *rest: (probe if first == "-r" else packages, "")
    )
    assert audit._packages_are_clean() == is_clean
    assert says in capsys.readouterr().out


def test_the_lowest_are_the_least_that_are_allowed(load, root):
    matrix = load("matrix")
    lines = (root / "requirements.txt").read_text().splitlines()
    ranges = [line for line in lines if line and not line.startswith("#")]
    lowest = matrix._requirements("lowest", [])
    assert matrix._requirements("latest", []) == ranges
    assert [line.replace("==", ">=") for line in lowest] == [r.partition(",")[0] for r in ranges]
    assert "torch==2.9.0" in matrix._requirements("lowest", ["torch==2.9.0"])


def test_the_table_is_replaced_and_the_rest_of_the_page_kept(load, tmp_path, monkeypatch):
    matrix = load("matrix")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n")
    monkeypatch.setattr(matrix, "PAGE", page)
    matrix._write_page([matrix.Row("3.12", "latest", "passes", {"torch": "2.9.0"}, 12.4)])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| 3.12 | latest | – | – | 2.9.0 | – | – | – | passes | 12 |" in text
    assert "old" not in text

"""``make audit``, ``docs`` and ``matrix``: what they conclude; what they call runs elsewhere."""

from __future__ import annotations

import argparse
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


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ('<a href="https://example.org">a link</a><img src="images/a.png">', None),
        ('<script src="https://unpkg.com/shim"></script>', "<script src=https://unpkg.com/shim>"),
        (
            '<link rel="stylesheet" href="//fonts.example/a.css">',
            "<link href=//fonts.example/a.css>",
        ),
        ('<p style="background: url(http://example.org/a.png)">', "http://example.org/a.png"),
        ("<style>@import 'https://fonts.example/b.css';</style>", "https://fonts.example/b.css"),
        ('<pre class="mermaid">a --> b</pre>', "a diagram"),
    ],
)
def test_a_page_that_loads_from_elsewhere_is_found(load, tmp_path, capsys, page, says):
    check_site = load("check_site")
    (tmp_path / "page.html").write_text(f"<html><body>{page}</body></html>")
    assert check_site.main(str(tmp_path)) == int(says is not None)
    said = capsys.readouterr().out
    assert says is None or f"docs: from the network: page.html: {says}\n" in said
    assert "docs: 1 pages" in said


def test_a_site_without_pages_is_an_error(load, tmp_path):
    assert load("check_site").main(str(tmp_path)) == 1


def test_docstrings_become_lists_with_links(load):
    pytest.importorskip("griffe", reason="extra docs")
    text = load("docs_docstrings").as_markdown(
        "Does it.\n\n"
        "Args:\n"
        "    samples: a view;\n"
        "        of images: all of them\n"
        '    overlap ("none"), limit (at most\n'
        "    two), **options: see\n"
        "        :func:`zs_operators.classify` and :func:`~zs_operators.boxes.fuse`\n\n"
        "Returns:\n"
        "    a :class:`RunReport`,\n"
        "    or None\n\n"
        "Raises:\n"
        "    WeightsError, DeviceError\n"
    )
    assert text == (
        "Does it.\n\n"
        "**Arguments**\n\n"
        "- `samples`: a view; of images: all of them\n"
        '- `overlap` (`"none"`), `limit` (at most two), `**options`: see '
        "[`zs.classify`][zs_operators.classify] and `boxes.fuse`\n\n"
        "**Returns** a [`zs.RunReport`][zs_operators.RunReport], or None\n\n"
        "**Raises**\n\n"
        "- `WeightsError`, `DeviceError`"
    )


def test_links_lead_to_the_same_pages_on_the_site(load):
    pytest.importorskip("mkdocs", reason="extra docs")
    on_site = load("docs_site")._on_site
    assert on_site("../SECURITY.md", "docs/compatibility.md", "compatibility.md") == "SECURITY.md"
    assert on_site("docs/runs.md", "CHANGELOG.md", "CHANGELOG.md") == "runs.md"
    assert on_site("../images/a.png", "docs/reference/x.md", "reference/x.md") == "../images/a.png"
    assert on_site("../../README.md", "docs/tutorials/x.md", "tutorials/x.md") == "../index.md"
    gone = "../../benchmarks/x.py"  # not on the site: mkdocs refuses it
    assert on_site(gone, "docs/tutorials/x.md", "tutorials/x.md") == gone


def test_the_command_line_page_has_every_command(load):
    pytest.importorskip("mkdocs", reason="extra docs")
    from zs_operators.cli import build_parser

    text = load("docs_site").command_line()
    actions = build_parser()._actions
    (commands,) = (action for action in actions if isinstance(action, argparse._SubParsersAction))
    for name in commands.choices:
        assert f"\n### zs {name}\n" in text
    assert "--scenes SCENES" in text  # of the demo, which reads its own arguments

"""Who may import whom, read from the sources: imports inside functions count as well.

What only type checkers see (``if TYPE_CHECKING``) does not run and does not count.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = "zs_operators"
FACE = "plugins.zero_shot"
#: No exceptions: a module that needs one is two modules, or on the wrong floor.
MODEL_LIBRARIES = {"torch", "torchvision", "open_clip", "segment_anything"}


def modules_of(root: Path, package: str) -> dict[str, Path]:
    """Name of each module -> its file; a package goes by the name of its folder."""
    found = {}
    for file in (root / package.replace(".", "/")).rglob("*.py"):
        name = ".".join(file.relative_to(root).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = file
    return found


def imports_of(source: str, package: str) -> set[str]:
    """Dotted names that running the source, and all its functions, would import.

    Args:
        package: what relative imports are relative to
    """
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(parts if node.level else []), *filter(None, [node.module])])
            found.update(f"{base}.{alias.name}" for alias in node.names)
        # Names that a package hands on when they are first used
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            found.update(f"{package}.{home}" for home in ast.literal_eval(node.value).values())
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return found


def edges_of(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Which of the modules each imports: of ``from a.b import c`` a.b.c if that is a module."""
    edges = {}
    for name, file in modules.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        targets = set()
        for target in imports_of(file.read_text(encoding="utf-8"), package):
            while target and target not in modules:
                target = target.rpartition(".")[0]
            targets |= {target} - {"", name}
        edges[name] = targets
    return edges


def reached(edges: dict[str, set[str]], start: str) -> set[str]:
    """All that ``start`` imports, and what that imports, and so on."""
    found, ahead = set(), [start]
    while ahead:
        for target in edges[ahead.pop()] - found:
            found.add(target)
            ahead.append(target)
    return found


def outside(file: Path, package: str = "") -> set[str]:
    """First parts of the names that a file imports, such as "torch"."""
    names = imports_of(file.read_text(encoding="utf-8"), package)
    return {name.partition(".")[0] for name in names}


@pytest.fixture(scope="module")
def engine(root):
    return modules_of(root, PACKAGE)


@pytest.mark.parametrize("package", [PACKAGE, FACE])
def test_no_module_imports_itself_by_way_of_others(root, package):
    edges = edges_of(modules_of(root, package))
    assert len(edges) > 20
    circles = {name: sorted(edges[name]) for name in edges if name in reached(edges, name)}
    assert not circles


def test_models_know_no_fiftyone(engine):
    """Floors 0-3: who calculates gets arrays and gives arrays, in a script without a database."""
    edges = edges_of(engine)
    libraries = {name: outside(file, PACKAGE) for name, file in engine.items()}
    models = {name for name in engine if libraries[name] & MODEL_LIBRARIES}
    databases = {name for name in engine if libraries[name] & {"fiftyone", "mongoengine", "eta"}}
    assert f"{PACKAGE}.scoring" in models
    assert f"{PACKAGE}.labels" in databases
    wrong = {
        name: found for name in models if (found := ({name} | reached(edges, name)) & databases)
    }
    assert not wrong


def test_the_engine_knows_no_face(engine):
    assert not [name for name, file in engine.items() if "plugins" in outside(file, PACKAGE)]


def test_the_face_knows_no_models(root):
    """What an operator's file imports is what every request to the App pays for."""
    wrong = {
        name: sorted(found)
        for name, file in modules_of(root, FACE).items()
        if (found := outside(file, FACE) & {*MODEL_LIBRARIES, "transformers", "sklearn", "scipy"})
    }
    assert not wrong


def test_modules_do_not_hide_what_the_package_hands_on(engine):
    """``import zs_operators.detect`` would put the module in place of the function."""
    import zs_operators as zs

    top = {name.split(".")[1] for name in engine if name.count(".") == 1}
    assert not top & set(zs.__all__)


@pytest.mark.parametrize(
    ("sources", "is_circle"),
    [
        ({"a": "import p.b", "b": "from p.a import x"}, True),
        ({"a": "def f():\n    from p import b", "b": "from p.c import x", "c": "import p.a"}, True),
        ({"a": "from . import b", "b": "from .a import x"}, True),
        ({"__init__": "_HOMES = {'x': 'a'}", "a": "from p import x"}, True),
        ({"__init__": "_HOMES = {'x': 'a'}", "a": "from p import b", "b": ""}, False),
        (
            {
                "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.b",
                "b": "import p.a",
            },
            False,
        ),
    ],
)
def test_these_tests_see_circles(tmp_path, sources, is_circle):
    folder = tmp_path / "p"
    folder.mkdir()
    for name, source in {"__init__": "", **sources}.items():
        (folder / f"{name}.py").write_text(source)
    edges = edges_of(modules_of(tmp_path, "p"))
    assert any(name in reached(edges, name) for name in edges) == is_circle

"""Puts the App's face (plugins/, fiftyone.yml, assets/) into the wheel as zs_operators/_plugin.

A top-level ``plugins`` package in the wheel would overwrite FiftyOne's own. As data below ours,
the same files are what ``zs install`` links into FiftyOne's plugin folder. Everything else is in
pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FACE = ("fiftyone.yml", "requirements.txt", "LICENSE", "assets", "plugins")


class BuildWithFace(build_py):
    def run(self):
        package = Path(self.build_lib, "zs_operators")
        if not self.editable_mode:  # build/ keeps modules that a later version has dropped
            shutil.rmtree(package, ignore_errors=True)
        super().run()
        if self.editable_mode:  # a checkout has the face at its root
            return
        root = Path(__file__).resolve().parent
        target = package / "_plugin"
        for name in FACE:
            source = root / name
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(source, target / name, ignore=ignore)
            else:
                shutil.copy2(source, target / name)


setup(cmdclass={"build_py": BuildWithFace})

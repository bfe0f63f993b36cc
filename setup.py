"""Puts the templates of bundles into the package that is built; pyproject.toml says everything else."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TEMPLATES = "bundle_templates"


class BuildWithTemplates(build_py):
    """Copy them, unless the package is only linked to the checkout in which they lie."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "medcalib", TEMPLATES)
            # those of an earlier build may be there
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(TEMPLATES, target)

    def get_source_files(self) -> list[str]:
        """What a source distribution needs, too."""
        return super().get_source_files() + [str(path) for path in Path(TEMPLATES).rglob("*") if path.is_file()]


setup(cmdclass={"build_py": BuildWithTemplates})

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import trimgate

ROOT = Path(__file__).parents[1]
SOURCES = {
    "trimgate": ROOT / "src/trimgate",
    "trimgate.components": ROOT / "components",
    "trimgate.pipelines": ROOT / "pipelines",
}


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join((name, *file.parent.relative_to(folder).parts))
        for name, folder in SOURCES.items()
        for file in folder.rglob("__init__.py")
    }
    assert sorted(listed) == sorted(found)


COMPONENTS = sorted(ROOT.glob("components/*/*/component.py"))


@pytest.mark.parametrize("file", COMPONENTS, ids=lambda f: f.parent.name)
def test_component_folder(file):
    text = file.read_text()
    assert re.findall(r'base_image="([^"]+)"', text) == [
        f"trimgate/python-core:{trimgate.__version__}"
    ]
    assert "install_kfp_package=False" in text
    metadata = yaml.safe_load(file.with_name("metadata.yaml").read_text())
    assert metadata["name"] == file.parent.name
    assert {"stability", "dependencies", "tags", "lastVerified"} <= set(metadata)


@pytest.mark.parametrize("file", COMPONENTS, ids=lambda f: f.parent.name)
def test_component_imports_only_kfp_at_module_level(file):
    modules = re.findall(r"^(?:from|import) (\S+)", file.read_text(), re.MULTILINE)
    assert set(modules) <= {"kfp", "typing"}


def test_readmes_are_in_step():
    from trimgate.components._readme import readme

    for file in COMPONENTS:
        assert file.with_name("README.md").read_text() == readme(file), (
            "python -m trimgate.components._readme"
        )

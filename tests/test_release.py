"""What a release needs: one version, and a changelog that tells of it."""

import tomllib
from pathlib import Path

import pytest
import yaml

import cbam3d
from tests.check_release import ROOT, problems


def write(root: Path, version: str, citation: str, changelog: str) -> None:
    (root / "cbam3d").mkdir()
    (root / "cbam3d" / "__init__.py").write_text(f'"""Doc."""\n\n__version__ = "{version}"\n')
    (root / "CITATION.cff").write_text(f"cff-version: 1.2.0\nversion: {citation}\n")
    (root / "CHANGELOG.md").write_text(f"# Changelog\n\nText.\n\n{changelog}")


@pytest.mark.parametrize(
    ("version", "citation", "changelog", "expected"),
    [
        ("1.2.0", "1.2.0", "## Unreleased\n\n## 1.2.0 (2026-01-01)\n\n- A.\n", []),
        ("1.2.0", "1.2.0", "## [1.2.0] - 2026-01-01\n- A.\n", []),
        ("1.1.0", "1.2.0", "## 1.2.0\n- A.\n", ["cbam3d/__init__.py has the version 1.1.0, not 1.2.0"]),
        ("1.2.0", "1.1.0", "## 1.2.0\n- A.\n", ["CITATION.cff has the version 1.1.0, not 1.2.0"]),
        ("1.2.0", "1.2.0", "## 1.1.0\n- A.\n", ["CHANGELOG.md tells nothing of 1.2.0"]),
        ("1.2.0", "1.2.0", "## Unreleased\n- B.\n\n## 1.2.0\n- A.\n", ["CHANGELOG.md has changes under Unreleased"]),
    ],
)
def test_what_is_missing_is_named(tmp_path, version, citation, changelog, expected):
    write(tmp_path, version, citation, changelog)
    assert problems("1.2.0", tmp_path) == expected


def test_the_version_is_declared_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "cbam3d/__init__.py"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == cbam3d.__version__


def test_the_environments_follow_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip = environment["dependencies"][0], environment["dependencies"][-1]["pip"]
    assert python == f"python{project['requires-python']}"
    assert pip == ["-e .[serve,explain,export]"]
    extras = project["optional-dependencies"].keys()
    assert set(pip[0].partition("[")[2].strip("]").split(",")) <= extras
    docker = (ROOT / "Dockerfile").read_text()
    assert "FROM python:3.11-slim" in docker
    assert "USER " in docker


def test_the_workflow_publishes_what_was_checked():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    steps = [step.get("run", "") for step in jobs["build"]["steps"]]
    order = ["tests/check_release.py", "python -m build", "twine check", "check-wheel-contents"]
    places = [next(i for i, step in enumerate(steps) if word in step and "pip install" not in step) for word in order]
    assert places == sorted(places)
    assert jobs["publish"]["needs"] == "test"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "password" not in str(jobs)

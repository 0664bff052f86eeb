"""The project files that other tools read: citation, hooks, workflow, issue form, and the CI command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import mmphate_gpu

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
if sys.version_info >= (3, 11):
    import tomllib

    PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version_and_names_the_papers():
    citation = load("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == mmphate_gpu.__version__
    for paper in citation["references"]:
        assert paper["authors"][0]["family-names"] in README
        assert paper["title"] and paper["year"] and (paper.get("url") or paper.get("doi"))
    assert "2406.01969" in citation["references"][0]["url"]


def test_hooks_are_pinned_and_cover_python_and_c():
    repositories = load(".pre-commit-config.yaml")["repos"]
    assert all(re.fullmatch(r"v\d+\.\d+\.\d+", repository["rev"]) for repository in repositories)
    hooks = {hook["id"]: hook for repository in repositories for hook in repository["hooks"]}
    assert hooks.keys() == {"ruff-check", "ruff-format", "clang-format"}
    sources = [path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*") if path.suffix[1:]]
    formatted = {Path(path).suffix for path in sources if re.search(hooks["clang-format"]["files"], path)}
    assert formatted == {".h", ".cpp", ".cu"} == {Path(path).suffix for path in sources} - {".md"}


def test_the_workflow_runs_what_a_submission_must_pass():
    workflow = load(".github/workflows/ci.yml")
    triggers = workflow[True]  # YAML reads the key "on" as true
    assert {"push", "pull_request"} <= triggers.keys()
    job = workflow["jobs"]["ci"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert {"3.10", "3.13"} <= {*job["strategy"]["matrix"]["python"]}


def test_the_bug_form_asks_for_the_configuration():
    fields = {field["id"]: field for field in load(".github/ISSUE_TEMPLATE/bug.yml")["body"]}
    assert "mmphate-gpu config" in fields["config"]["attributes"]["label"]
    assert all(field["validations"]["required"] for field in fields.values())


@pytest.mark.skipif(sys.platform == "win32", reason="a bash script")
def test_ci_parses_and_finds_the_commands_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)
    command = re.search(r"^python3 -m venv .* pytest.*$", README, re.MULTILINE)
    install, _, test = command.group().rpartition(" && ")
    assert install.endswith('pip install ".[test]"') and test.startswith(".venv/bin/python -m pytest")
    for check in ("ruff check .", "ruff format --check .", "mypy", "mkdocs build --strict", "[docs]"):
        assert check in script


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib comes with Python 3.11")
def test_the_extras_hold_what_ci_runs():
    extras = PROJECT["project"]["optional-dependencies"]
    names = {extra: {re.match(r"[\w-]+", needed).group() for needed in extras[extra]} for extra in ("test", "docs")}
    assert {"pytest", "ruff", "mypy", "pyyaml"} <= names["test"]
    assert {"mkdocs-material", "mkdocstrings"} <= names["docs"]

"""A new platform is one folder and one registry line: what the scaffold writes works at once, in a copy of the tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from engine import ROOT

from providers.base import PLATFORMS
from tools.new_platform import FILES, Refused, package_of, registered, rendered, write_platform

BASE = (ROOT / "providers" / "base.py").read_text()
TREE = ("infra", "ops", "providers", "serving", "tools", "tests", "stacks", "docs")
NAME = "sixteenletters42"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the checkout that is nobody's."""
    for name in TREE:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for name in ("Pulumi.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    return tmp_path


def run(tree: Path, *args: str) -> str:
    """A program in the copy, which finds the copy's modules before the checkout's."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    done = subprocess.run(
        [sys.executable, *args],
        cwd=tree,
        env={**env, "PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_only_the_registry_is_changed_and_all_else_is_new(tree: Path) -> None:
    before = {file: file.read_bytes() for file in tree.rglob("*") if file.is_file() and ".venv" not in file.parts}
    written = write_platform(tree, NAME)
    changed = [str(file.relative_to(tree)) for file, text in before.items() if file.read_bytes() != text]
    assert changed == ["providers/base.py"]
    assert {path for path in written if path.startswith("providers/") and path != "providers/base.py"} == {
        f"providers/{NAME}/{name}"
        for name in (
            *("client.py", "adapter.py", "resources.py", "pricing.py", "account.py"),
            *("data/names.csv", "data/machines.csv", "data/prices.csv", "data/places.csv"),
        )
    }


@pytest.mark.heavy
def test_what_it_writes_is_clean_and_passes_its_own_tests_at_once(tree: Path) -> None:
    python = [path for path in write_platform(tree, NAME) if path.endswith(".py")]
    run(tree, "-m", "ruff", "check", *python)
    run(tree, "-m", "ruff", "format", "--check", *python)
    passed = run(tree, "-m", "pytest", f"tests/test_{NAME}.py", "-k", "not after_any_failure", "-p", "no:cacheprovider")
    assert "failed" not in passed


@pytest.mark.slow
def test_no_test_of_the_tables_has_to_know_its_name(tree: Path) -> None:
    # A longer name makes the table of prices wider than a terminal, which a test would tell.
    write_platform(tree, "zephyr")
    about = ("places", "gpus", "prices", "snapshot_offers", "ops_offers", "rank", "budget", "market", "plugin_service")
    run(tree, "-m", "pytest", *(f"tests/test_{name}.py" for name in about), "-p", "no:cacheprovider")


@pytest.mark.slow
@pytest.mark.engine
def test_its_story_runs_with_the_real_engine_and_its_types_are_strict(tree: Path, pulumi_cli: str) -> None:
    write_platform(tree, NAME)
    run(tree, "-m", "pytest", f"tests/test_{NAME}_engine.py", f"tests/test_{NAME}.py", "-p", "no:cacheprovider")
    run(tree, "-m", "pyright", f"providers/{NAME}")


def test_its_offers_are_ranked_beside_everybody_elses_and_what_is_generated_knows_it(tree: Path) -> None:
    run(tree, "tools/new_platform.py", NAME)
    assert f"## `{NAME}`" in (tree / "docs" / "config.md").read_text()
    assert f"vllm-anywhere:{NAME}" in (tree / "docs" / "spec.schema.json").read_text()
    command = f"from ops.cli import main; main(['compare', '--offline', '--json', '--platform', '{NAME}'])"
    offers = json.loads(run(tree, "-c", command))["offers"]
    assert {(one["sku"], one["gpu"]) for one in offers} == {("l4-1", "L4"), ("4090-1", "RTX 4090")}


def test_nothing_is_left_of_the_templates_own_names() -> None:
    for template in FILES:
        text = rendered((ROOT / "tools" / "platform" / f"{template}.txt").read_text(), "lambda")
        assert "acme" not in text.lower()
        if template.endswith(".py"):
            compile(text, template, "exec")


def test_a_word_of_pythons_own_is_no_folder() -> None:
    assert (package_of("lambda"), package_of("match"), package_of("acme")) == ("lambda_cloud", "match_cloud", "acme")
    assert '    "async": "providers.async_cloud",\n' in registered(BASE, "async")


@pytest.mark.parametrize("name", ["Acme", "a-b", "", "x", "../x", "seventeenletters7", *sorted(PLATFORMS)])
def test_a_name_that_can_not_be_one_or_is_taken_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "providers").mkdir()
    (tmp_path / "providers" / "base.py").write_text(BASE)
    with pytest.raises(Refused, match=r"lower-case|already"):
        write_platform(tmp_path, name)
    assert (tmp_path / "providers" / "base.py").read_text() == BASE


def test_without_ruff_nothing_is_written_and_it_says_how_to_get_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.new_platform.find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"`make tools` once.*Nothing was written"):
        write_platform(tree, NAME)
    assert not (tree / "providers" / NAME).exists()


def test_nothing_is_written_over_what_is_there(tree: Path) -> None:
    (tree / "stacks" / f"Pulumi.{NAME}.yaml").write_text("mine")
    with pytest.raises(Refused, match="is there already"):
        write_platform(tree, NAME)
    assert not (tree / "providers" / NAME).exists()

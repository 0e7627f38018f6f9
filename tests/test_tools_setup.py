"""Steps, setting up, pinning and cleaning: what a user sees of them, and that nothing is lost."""

from __future__ import annotations

import io
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tools import clean, pin, setup
from tools.steps import Progress, interruptible, main, run_step

ROOT = Path(__file__).resolve().parents[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(stream: io.StringIO) -> str:
    progress = Progress("Building", stream=stream, now=0.0)
    for second in range(26):
        progress.tick(now=float(second))
    progress.done("done", now=26.0)
    return stream.getvalue()


def test_in_a_pipe_a_step_says_every_ten_seconds_how_long_it_has_taken() -> None:
    assert drawn(io.StringIO()) == "Building (1 s)\nBuilding (11 s)\nBuilding (21 s)\nBuilding: done (26 s)\n"


def test_in_a_terminal_a_step_keeps_to_one_line() -> None:
    text = drawn(Terminal())
    assert text.count("\n") == 1
    assert text.endswith("\r\033[KBuilding: done (26 s)\n")
    assert "(24 s)" in text and "(25 s)" in text


def test_a_step_that_is_over_at_once_is_not_mentioned() -> None:
    stream = io.StringIO()
    progress = Progress("Quick", stream=stream, now=0.0)
    progress.tick(now=0.5)
    progress.done("done", now=0.6)
    assert stream.getvalue() == ""


def test_another_version_of_a_client_is_installed_by_the_next_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    before = [setup.fingerprint(tmp_path, test=test) for test in (False, True)]
    monkeypatch.setattr(setup, "VASTAI", ("vastai==9.9.9",))
    after = [setup.fingerprint(tmp_path, test=test) for test in (False, True)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


def test_a_step_that_fails_shows_the_end_of_what_it_wrote(capfd: pytest.CaptureFixture[str]) -> None:
    program = "import sys\nfor n in range(100): print('line', n)\nsys.exit('disk full')"
    assert main(["Compiling", sys.executable, "-u", "-c", program]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert "Compiling failed" in said.err and "disk full" in said.err and "line 99" in said.err
    assert "line 10\n" not in said.err


def test_a_step_beyond_its_limit_is_ended() -> None:
    result = run_step("Waiting", [sys.executable, "-c", "import time; time.sleep(600)"], limit_s=0.1)
    assert result.status is None and not result.ok


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "constraints.txt").write_text("a==1\n")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    return tmp_path


def test_setting_up_is_skipped_until_something_it_depends_on_changes(checkout: Path) -> None:
    assert not setup.is_installed(checkout, test=False)
    (checkout / ".venv/.installed").write_text(setup.fingerprint(checkout, test=False))
    assert setup.is_installed(checkout, test=False)
    assert not setup.is_installed(checkout, test=True)
    (checkout / ".venv/.installed").write_text(setup.fingerprint(checkout, test=True))
    assert setup.is_installed(checkout, test=False) and setup.is_installed(checkout, test=True)
    (checkout / "constraints.txt").write_text("a==2\n")
    assert not setup.is_installed(checkout, test=True)


def test_a_python_without_venv_is_told_from_other_failures(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho 'ensurepip is not available'; exit 1\n")
    python.chmod(0o755)
    with pytest.raises(setup.SetupFailed, match=r"sudo apt install python3\.\d+-venv"):
        setup.install(tmp_path, python, test=False)
    python.write_text("#!/bin/sh\necho 'read-only file system'; exit 1\n")
    with pytest.raises(setup.SetupFailed, match="read-only file system"):
        setup.install(tmp_path, python, test=False)


def test_an_environment_without_pip_is_made_anew_and_ours_is_compiled(checkout: Path) -> None:
    half = checkout / ".venv/bin/python"
    half.write_text("#!/bin/sh\nexit 1\n")
    half.chmod(0o755)
    (checkout / ".venv/left-behind").touch()
    # Stands in for the machine's Python, and puts a copy of itself where an environment is asked for.
    python = checkout / "python3"
    python.write_text(
        f'#!/bin/sh\necho "$*" >>"{checkout}/calls"\n'
        'if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi\n'
    )
    python.chmod(0o755)
    setup.install(checkout, python, test=False)
    assert not (checkout / ".venv/left-behind").exists()
    assert setup.is_installed(checkout, test=False)
    calls = (checkout / "calls").read_text()
    assert calls.startswith(f"-m venv {checkout}/.venv\n")
    assert f"-m compileall -q {checkout}/infra" in calls
    setup.install(checkout, python, test=False)
    assert (checkout / "calls").read_text().count("-m venv") == 1, "one that is whole is kept"


def test_an_environment_that_runs_this_is_not_removed_under_it(checkout: Path) -> None:
    half = checkout / ".venv/bin/python"
    half.write_text("#!/bin/sh\nexit 1\n")
    half.chmod(0o755)
    with pytest.raises(setup.SetupFailed, match="remove that folder in a new shell"):
        setup.install(checkout, half, test=False)
    assert half.exists()


def test_an_interrupt_ends_in_one_line_and_the_status_of_a_signal(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert interruptible(interrupted) == 130
    assert capsys.readouterr().err == "Interrupted; run the same command to go on.\n"
    assert interruptible(lambda: 3) == 3


def state(backend: Path, stack: str, *types: str) -> None:
    path = backend / ".pulumi/stacks/vllm-anywhere" / f"{stack}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    resources = [{"urn": "urn", "type": type} for type in types]
    path.write_text(json.dumps({"version": 3, "checkpoint": {"latest": {"resources": resources} if types else None}}))


def test_a_stack_that_owns_something_is_live(tmp_path: Path) -> None:
    state(tmp_path, "gone")
    state(tmp_path, "empty", "pulumi:pulumi:Stack", "pulumi:providers:vllm-anywhere")
    state(tmp_path, "local", "pulumi:pulumi:Stack", "vllm-anywhere:local:Server", "vllm-anywhere:index:Ready")
    (tmp_path / ".pulumi/stacks/vllm-anywhere/torn.json").write_text('{"version": 3, "checkp')
    assert clean.live_stacks(tmp_path) == {"local": 2, "torn": 1}


def test_nothing_is_removed_while_a_stack_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state(tmp_path / ".state/backend", "runpod", "vllm-anywhere:runpod:Pod")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(clean, "ROOT", tmp_path)
    assert clean.main() == 1
    assert (tmp_path / ".venv").is_dir()
    assert "Stack runpod still owns 1 resources: run `pulumi destroy -s runpod` first" in capsys.readouterr().err


def test_cleaning_removes_what_can_be_made_again_and_keeps_settings(checkout: Path) -> None:
    (checkout / "stacks").mkdir()
    (checkout / "tools/__pycache__").mkdir(parents=True)
    example, mine = checkout / "stacks/Pulumi.local.example.yaml", checkout / "stacks/Pulumi.local.yaml"
    example.write_text("# For you.\nconfig:\n  vllm-anywhere:provider: local\n")
    mine.write_text("config:\n  vllm-anywhere:provider: local\n  vllm-anywhere:model: {max_len: 2048}\n")
    assert clean.clean(checkout) == [".venv"]
    assert mine.is_file() and not (checkout / "tools/__pycache__").exists()
    mine.write_text("encryptionsalt: v1:abc\n" + example.read_text())
    assert clean.clean(checkout) == ["stacks/Pulumi.local.yaml"]


def test_constraints_are_sorted_normalised_and_name_no_host() -> None:
    text = pin.constraints({"Zebra": "2", "a_b.c": "1", "pip": "9", "vllm-anywhere": "0"})
    assert text.splitlines()[1:] == ["a-b-c==1", "zebra==2"]
    committed = (ROOT / "constraints.txt").read_text()
    assert "://" not in committed
    assert all(re.fullmatch(r"#.*|[a-z0-9-]+==\S+", line) for line in committed.splitlines())


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"], setup.WEIGHTS]
    names = {re.split(r"[^A-Za-z0-9_.-]", text)[0].lower().replace("_", "-") for text in wanted}
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert names <= pinned

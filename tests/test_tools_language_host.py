"""The language host under the real CLI: what a program's author sees when things go well, and when they don't."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pytest

from tools import language_host
from tools.language_host import own_providers
from tools.language_program import failure_message

TOOLS = Path(language_host.__file__).parent
VENV = TOOLS.parent / ".venv"


@dataclass
class Program:
    """A Pulumi project of its own, run by a CLI whose language host is the one in this tree."""

    folder: Path
    env: dict[str, str]

    def write(self, text: str, name: str = "__main__.py") -> None:
        (self.folder / name).write_text(text)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["pulumi", *arguments, "--non-interactive", "--color=never"],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def ok(self, *arguments: str) -> str:
        status, output = self.run(*arguments)
        assert status == 0, output
        return output


@pytest.fixture
def program(tmp_path: Path, pulumi_cli: str) -> Iterator[Program]:
    real = Path(pulumi_cli).resolve()
    if not (real.parent / "language_host.py").is_file():
        pytest.skip("this machine's Pulumi brings its own language host")
    bin = tmp_path / "bin"
    bin.mkdir()
    # Linked, not copied: the CLI looks for its language host beside its own file.
    try:
        os.link(real, bin / "pulumi")
    except OSError:
        (bin / "pulumi").symlink_to(real)
    for name in ("pulumi-language-python", "language_host.py", "language_program.py"):
        (bin / name).symlink_to(TOOLS / name)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".venv").symlink_to(VENV)
    (folder / "Pulumi.yaml").write_text(
        "name: three\nruntime:\n  name: python\n  options:\n    virtualenv: .venv # beside the project\n"
    )
    (tmp_path / "state").mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "COVERAGE"))}
    env |= {
        "PATH": f"{bin}:{os.environ['PATH']}",
        "PULUMI_BACKEND_URL": f"file://{tmp_path / 'state'}",
        "PULUMI_CONFIG_PASSPHRASE": "for tests only",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_HOME": str(tmp_path / "home"),
    }
    made = Program(folder, env)
    made.ok("stack", "init", "one")
    yield made


@pytest.mark.engine
def test_a_three_line_program_previews_and_goes_up(program: Program) -> None:
    program.write("import pulumi\npulumi.export('org', pulumi.get_organization())\npulumi.export('answer', 42)\n")
    assert "answer: 42" in program.ok("preview", "-s", "one")
    program.ok("up", "--yes", "-s", "one")
    assert program.ok("stack", "output", "answer", "-s", "one").strip() == "42"
    assert program.ok("stack", "output", "org", "-s", "one").strip() == "organization"


@pytest.mark.engine
def test_a_module_that_declares_things_when_imported_does_so_in_preview_and_update(program: Program) -> None:
    program.write("import pulumi\npulumi.export('declared', 'yes')\nseen = pulumi.runtime.is_dry_run()\n", "net.py")
    program.write("import net, pulumi\npulumi.export('dry', net.seen)\n")
    program.ok("up", "--yes", "-s", "one")
    assert program.ok("stack", "output", "declared", "-s", "one").strip() == "yes"
    assert program.ok("stack", "output", "dry", "-s", "one").strip() == "false"


@pytest.mark.engine
def test_a_program_that_raises_shows_its_own_frames_once(program: Program) -> None:
    program.write("def deep():\n    raise ValueError('boom')\n\ndeep()\n")
    status, output = program.run("preview", "-s", "one")
    assert status != 0
    assert output.count("Traceback (most recent call last)") == 1
    assert output.count("ValueError: boom") == 1
    assert '__main__.py", line 4, in <module>' in output
    assert "runpy" not in output and "language_host" not in output and "site-packages" not in output


@pytest.mark.engine
def test_an_expected_failure_shows_its_message_and_no_traceback(program: Program) -> None:
    program.write("import pulumi\nraise pulumi.RunError('there is no such GPU')\n")
    status, output = program.run("preview", "-s", "one")
    assert status != 0
    assert output.partition("Diagnostics:")[2].count("there is no such GPU") == 1
    assert "Traceback" not in output


@pytest.mark.engine
def test_config_secrets_reach_the_program_and_stay_secret(program: Program) -> None:
    program.ok("config", "set", "--secret", "token", "hunter2-hunter2", "-s", "one")
    program.write(
        "import pulumi\nc = pulumi.Config()\n"
        "pulumi.export('fine', c.require('token') == 'hunter2-hunter2')\n"
        "pulumi.export('token', c.require_secret('token'))\n"
    )
    output = program.ok("up", "--yes", "-s", "one")
    assert "hunter2" not in output
    assert program.ok("stack", "output", "fine", "-s", "one").strip() == "true"
    assert "hunter2" not in program.ok("stack", "export", "-s", "one")


@pytest.mark.engine
def test_two_stacks_go_up_at_the_same_time(program: Program) -> None:
    program.ok("stack", "init", "two")
    program.write("import pulumi\npulumi.export('stack', pulumi.get_stack())\n")
    runs = [program.start("up", "--yes", "-s", stack) for stack in ("one", "two")]
    for run in runs:
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output
    for stack in ("one", "two"):
        assert program.ok("stack", "output", "stack", "-s", stack).strip() == stack


@pytest.mark.engine
def test_an_interrupt_ends_a_running_program_quietly(program: Program) -> None:
    run, host = _up_to_a_long_sleep(program)
    run.send_signal(signal.SIGINT)
    rest, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "Traceback" not in rest and "KeyboardInterrupt" not in rest
    assert _soon_gone(host)


@pytest.mark.engine
def test_a_program_does_not_outlive_an_engine_that_was_killed(program: Program) -> None:
    run, host = _up_to_a_long_sleep(program)
    run.kill()
    assert _soon_gone(host)


def _up_to_a_long_sleep(program: Program) -> tuple[subprocess.Popen[str], int]:
    """An update whose program sleeps, and the process id of its language host."""
    program.write("import os, time\nprint(f'running as {os.getpid()}', flush=True)\ntime.sleep(600)\n")
    run = program.start("up", "--yes", "--skip-preview", "-s", "one")
    assert run.stdout is not None
    for line in run.stdout:
        if "running as" in line:
            return run, int(line.rsplit("running as ", 1)[1].split()[0])
    raise AssertionError("the program never ran")


def _soon_gone(pid: int) -> bool:
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.engine
def test_a_missing_virtual_environment_is_named(program: Program) -> None:
    (program.folder / ".venv").unlink()
    program.write("")
    status, output = program.run("preview", "-s", "one")
    assert status != 0
    assert f"virtual environment .venv is missing in {program.folder}" in output


def wrapper(tmp_path: Path, runtime: str) -> Path:
    """A project beside an installed wrapper, whose stand-in interpreter `.env/bin/python` says what it is given."""
    for name in ("pulumi-language-python", "language_host.py"):
        target = tmp_path / "installed" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((TOOLS / name).read_bytes())
        target.chmod(0o755)
    python = tmp_path / "project/.env/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$0 $*"\n')
    python.chmod(0o755)
    (tmp_path / "project/Pulumi.yaml").write_text(f"name: three\n{runtime}\n")
    return tmp_path / "project"


def start_wrapper(project: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [project.parent / "installed/pulumi-language-python", "127.0.0.1:1"],
        cwd=project,
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "runtime",
    [
        "runtime:\n  name: python\n  options:\n    virtualenv: .env # here",
        "runtime: {name: python, options: {virtualenv: .env}}",
        "runtime: { name: python, options: { toolchain: pip, 'virtualenv': '.env' , typechecker: mypy } }",
        'runtime:\n  name: python\n  options: {virtualenv: ".env", toolchain: pip}',
    ],
)
def test_the_environment_is_found_however_the_project_file_is_written(tmp_path: Path, runtime: str) -> None:
    project = wrapper(tmp_path, runtime)
    said = start_wrapper(project).stdout
    assert said == f"{project}/.env/bin/python -u {tmp_path}/installed/language_host.py 127.0.0.1:1\n"


def test_a_checkout_runs_its_own_language_host_whichever_was_installed_last(tmp_path: Path) -> None:
    project = wrapper(tmp_path, "runtime: {name: python, options: {virtualenv: .env}}")
    (project / "tools").mkdir()
    (project / "tools/language_host.py").touch()
    assert f"-u {project}/tools/language_host.py " in start_wrapper(project).stdout


def test_a_python_without_the_sdk_is_named_in_a_sentence(tmp_path: Path) -> None:
    project = wrapper(tmp_path, "runtime: python")
    python = tmp_path / "empty/bin/python"
    python.parent.mkdir(parents=True)
    # Without its packages this interpreter is as bare as a fresh one.
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    done = start_wrapper(project, VIRTUAL_ENV=str(tmp_path / "empty"))
    assert done.returncode == 1
    assert "has no package `pulumi`" in done.stderr and "runtime.options.virtualenv" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit("no GPU fits"), "no GPU fits"),
        (SystemExit(3), "The program exited with status 3."),
        (SystemExit(0), None),
        (SystemExit(), None),
        (pulumi.RunError("provider: unknown"), "provider: unknown"),
    ],
)
def test_an_expected_end_needs_no_traceback(error: BaseException, message: str | None) -> None:
    assert failure_message(error, Path("/project")) == message


def test_a_program_that_does_not_parse_shows_the_line_alone(tmp_path: Path) -> None:
    broken = tmp_path / "__main__.py"
    broken.write_text("x = (\n")
    with pytest.raises(SyntaxError) as raised:
        compile(broken.read_text(), str(broken), "exec")
    message = failure_message(raised.value, tmp_path)
    assert message is not None
    assert f'File "{broken}", line 1' in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("project", "names"),
    [
        ("name: shop\nplugins:\n  providers:\n    - name: own\n      path: plugin\nmain: infra\n", ["own"]),
        ("plugins:\n  providers:\n    - path: a\n      name: 'one'\n    - {name: two, path: b}\n", ["one", "two"]),
        ("name: shop\nruntime:\n  name: python\n", []),
    ],
)
def test_the_providers_that_a_project_brings_along_are_found(project: str, names: list[str]) -> None:
    assert own_providers(project) == names

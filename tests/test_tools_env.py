"""`. tools/env.sh` in the shells people use, in a checkout of its own with a stand-in for the Pulumi CLI."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.get_pulumi import BUILT, dotted

ROOT = Path(__file__).resolve().parents[1]
SHELLS = [shell for shell in ("sh", "bash", "zsh") if shutil.which(shell)]


@dataclass
class Checkout:
    folder: Path
    home: Path

    def source(
        self, shell: str = "sh", *, path: str | None = None, cwd: Path | None = None, **env: str
    ) -> dict[str, str]:
        """The environment after sourcing, plus `status`, and what the shell said under `said`."""
        script = f'. "{path or self.folder / "tools/env.sh"}"; echo "status=$?"; set | grep "^_v[a]_"; env'
        done = subprocess.run(
            [shutil.which(shell) or shell, "-c", script],
            cwd=cwd or self.folder,
            env={"PATH": f"{self.home / 'bin'}:/usr/bin:/bin", "HOME": str(self.home), **env},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "_va_" not in done.stdout, "a helper is left behind in the shell"
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line) | {"said": done.stderr}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    # A space in the path finds what isn't quoted.
    folder, home = tmp_path / "a checkout", tmp_path / "home"
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "stacks").mkdir()
    shutil.copy(ROOT / "stacks/Pulumi.local.example.yaml", folder / "stacks")
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to(sys.executable)
    for name, body in (("pulumi", "echo v3.272.0"), ("pulumi-language-python", "exit 0")):
        program = home / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    return Checkout(folder, home)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_the_tools_a_file_backend_and_a_passphrase(checkout: Checkout, shell: str) -> None:
    after = checkout.source(shell, cwd=checkout.home)
    assert after["status"] == "0", after["said"]
    # The stand-in for the user's own `pulumi` was there before: only the environment comes in front.
    assert after["PATH"] == f"{checkout.folder / '.venv/bin'}:{checkout.home / 'bin'}:/usr/bin:/bin"
    assert after["PULUMI_BACKEND_URL"] == f"file://{checkout.folder / '.state/backend'}"
    assert (checkout.folder / ".state/backend").is_dir()
    phrase = Path(after["PULUMI_CONFIG_PASSPHRASE_FILE"])
    assert phrase.is_relative_to(checkout.home)
    assert stat.S_IMODE(phrase.stat().st_mode) == 0o600
    assert len(phrase.read_text()) == 64


@pytest.mark.parametrize("shell", SHELLS)
def test_a_relative_path_is_found_from_the_folder_above(checkout: Checkout, shell: str) -> None:
    after = checkout.source(shell, path="./a checkout/tools/env.sh", cwd=checkout.folder.parent)
    assert after["status"] == "0", after["said"]
    assert after["PULUMI_BACKEND_URL"] == f"file://{checkout.folder / '.state/backend'}"


@pytest.mark.parametrize("shell", SHELLS)
def test_sourcing_again_changes_nothing(checkout: Checkout, shell: str) -> None:
    first = checkout.source(shell)
    again = checkout.source(shell, PATH=first["PATH"])
    assert again["PATH"] == first["PATH"]
    assert again["PULUMI_CONFIG_PASSPHRASE_FILE"] == first["PULUMI_CONFIG_PASSPHRASE_FILE"]


@pytest.mark.parametrize("shell", SHELLS)
def test_our_folders_are_on_path_once_and_before_an_environment_activated_since(checkout: Checkout, shell: str) -> None:
    built = checkout.home / ".cache/vllm-anywhere/pulumi" / dotted(BUILT) / "source/bin"
    built.mkdir(parents=True)
    (checkout.home / "bin/pulumi").rename(built / "pulumi")
    first = checkout.source(shell)
    ours = f"{checkout.folder / '.venv/bin'}:{built}"
    assert first["PATH"] == f"{ours}:{checkout.home / 'bin'}:/usr/bin:/bin"
    again = checkout.source(shell, PATH=f"{checkout.home / 'other/bin'}:{first['PATH']}")
    assert again["PATH"] == f"{ours}:{checkout.home / 'other/bin'}:{checkout.home / 'bin'}:/usr/bin:/bin"


def test_operations_at_once_are_not_counted_by_this_machines_cores_unless_told_so(checkout: Checkout) -> None:
    assert checkout.source()["PULUMI_PARALLEL"] == "128"
    assert checkout.source(PULUMI_PARALLEL="3")["PULUMI_PARALLEL"] == "3"


def test_two_new_homes_have_different_passphrases(checkout: Checkout, tmp_path: Path) -> None:
    phrases = {
        Path(checkout.source(XDG_CONFIG_HOME=str(tmp_path / name))["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text()
        for name in ("one", "two")
    }
    assert len(phrases) == 2


@pytest.mark.parametrize(
    "own",
    [{"PULUMI_BACKEND_URL": "s3://my-state"}, {"PULUMI_ACCESS_TOKEN": "pul-stand-in"}],
)
def test_a_backend_of_the_users_own_is_kept(checkout: Checkout, own: dict[str, str]) -> None:
    after = checkout.source(**own)
    assert after.get("PULUMI_BACKEND_URL") == own.get("PULUMI_BACKEND_URL")
    assert not (checkout.folder / ".state").exists()


def test_a_login_is_kept(checkout: Checkout) -> None:
    (checkout.home / ".pulumi").mkdir()
    credentials = checkout.home / ".pulumi/credentials.json"
    credentials.write_text('{\n  "current": "https://pulumi.example.com"\n}')
    assert "PULUMI_BACKEND_URL" not in checkout.source()
    credentials.write_text('{\n  "current": ""\n}')
    assert "PULUMI_BACKEND_URL" in checkout.source()


@pytest.mark.parametrize(
    "own",
    [
        {"PULUMI_CONFIG_PASSPHRASE": "mine"},
        {"PULUMI_CONFIG_PASSPHRASE": ""},
        {"PULUMI_CONFIG_PASSPHRASE_FILE": "/mine"},
    ],
)
def test_a_passphrase_of_the_users_own_is_kept(checkout: Checkout, own: dict[str, str]) -> None:
    after = checkout.source(**own)
    for name in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        assert after.get(name) == own.get(name)
    assert not (checkout.home / ".config").exists()


def test_the_local_stack_file_is_made_once_and_then_the_users(checkout: Checkout) -> None:
    checkout.source()
    mine = checkout.folder / "stacks/Pulumi.local.yaml"
    assert mine.read_text() == (checkout.folder / "stacks/Pulumi.local.example.yaml").read_text()
    mine.write_text("config: {vllm-anywhere:provider: fake}\n")
    checkout.source()
    assert "fake" in mine.read_text()


def test_a_checkout_that_is_not_set_up_says_what_to_run(checkout: Checkout) -> None:
    shutil.rmtree(checkout.folder / ".venv")
    after = checkout.source()
    assert after["status"] != "0"
    assert "run `make setup` there" in after["said"]
    assert "PULUMI_BACKEND_URL" not in after

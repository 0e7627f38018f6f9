"""What the benchmarks share: timing in alternation, a private Pulumi project, and the last line."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def arguments(description: str, runs: int) -> argparse.Namespace:
    """`--check` and `--runs`, the same for every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="exit 1 beyond the goal")
    parser.add_argument("--runs", type=int, default=runs, help=f"rounds (default {runs})")
    return parser.parse_args()


def alternate(work: Mapping[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds that each piece of work takes, in turns, so that a noisy machine is unfair to all alike.

    One round before the first is not counted: it warms caches.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(runs + 1):
        for name, run in work.items():
            begun = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    for name, taken in seconds.items():
        shown = " ".join(f"{one:.2f}" for one in taken)
        print(f"{name}: median {statistics.median(taken):.3f} s  ({shown})")
    return seconds


def conclude(figure: str, value: float, goal: float, check: bool) -> None:
    """Print the last line, `<figure> <value>, goal <goal>`; with `check`, exit 1 beyond the goal."""
    print(f"{figure} {value:.2f}, goal {goal:.2f}")
    sys.exit(1 if check and value > goal else 0)


def pulumi_env(folder: Path) -> dict[str, str]:
    """An environment whose backend and state are in `folder`."""
    if shutil.which("pulumi") is None:
        sys.exit("no pulumi on PATH: source tools/env.sh first")
    (folder / "backend").mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "VLLM_ANYWHERE_"))}
    return kept | {
        "PULUMI_BACKEND_URL": f"file://{folder / 'backend'}",
        "PULUMI_CONFIG_PASSPHRASE": "for benchmarks only",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "VLLM_ANYWHERE_STATE": str(folder / "state"),
    }


def project_copy(folder: Path) -> Path:
    """This project in a folder of its own, by links, with its own stack files."""
    project = folder / "project"
    project.mkdir()
    for name in ("Pulumi.yaml", "infra", "providers", "serving", "ops", ".venv"):
        (project / name).symlink_to(ROOT / name)
    (project / "stacks").mkdir()
    return project


def pulumi(folder: Path, env: Mapping[str, str], *args: str) -> str:
    """Run one command; what it prints on stdout.

    Raises:
        subprocess.CalledProcessError: when it fails; its output is printed first.
    """
    done = subprocess.run(
        ["pulumi", *args, "--non-interactive"],
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    done.check_returncode()
    return done.stdout

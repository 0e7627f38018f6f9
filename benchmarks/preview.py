"""`pulumi preview` of a local stack against that of a three-line Python program, with the same CLI."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from support import ROOT, alternate, arguments, conclude, project_copy, pulumi, pulumi_env

GOAL = 1.40
BARE = 'import pulumi\n\npulumi.export("answer", 42)\n'


def measure(stack: str, goal: float, args: argparse.Namespace, settings: str = "", without: str = "") -> None:
    """Both in turns, and the ratio. `settings` is the stack's file, `without` a variable that neither may see."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = pulumi_env(folder)
        env.pop(without, None)
        ours, bare = project_copy(folder), folder / "bare"
        bare.mkdir()
        (bare / "__main__.py").write_text(BARE)
        runtime = f"runtime:\n  name: python\n  options:\n    virtualenv: {ROOT / '.venv'}\n"
        (bare / "Pulumi.yaml").write_text(f"name: bare\n{runtime}")
        for project in (ours, bare):
            pulumi(project, env, "stack", "init", stack)
        if settings:
            (ours / f"stacks/Pulumi.{stack}.yaml").write_text(settings)
        seconds = alternate(
            {
                "three lines": lambda: pulumi(bare, env, "preview", "-s", stack),
                f"stack {stack}": lambda: pulumi(ours, env, "preview", "-s", stack),
            },
            args.runs,
        )
    ratio = statistics.median(seconds[f"stack {stack}"]) / statistics.median(seconds["three lines"])
    conclude("ratio", ratio, goal, args.check)


if __name__ == "__main__":
    measure("local", GOAL, arguments(__doc__ or "", runs=7))

"""`pulumi preview` of a local stack against that of a three-line Python program, with the same CLI."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from support import ROOT, alternate, arguments, conclude, project_copy, pulumi, pulumi_env

GOAL = 1.40
BARE = 'import pulumi\n\npulumi.export("answer", 42)\n'


def main() -> None:
    """Measure both, in turns."""
    args = arguments(__doc__ or "", runs=7)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = pulumi_env(folder)
        ours, bare = project_copy(folder), folder / "bare"
        bare.mkdir()
        (bare / "__main__.py").write_text(BARE)
        virtualenv = ROOT / ".venv"
        runtime = f"runtime:\n  name: python\n  options:\n    virtualenv: {virtualenv}\n"
        (bare / "Pulumi.yaml").write_text(f"name: bare\n{runtime}")
        for project in (ours, bare):
            pulumi(project, env, "stack", "init", "local")
        seconds = alternate(
            {
                "three lines": lambda: pulumi(bare, env, "preview", "-s", "local"),
                "vllm-anywhere": lambda: pulumi(ours, env, "preview", "-s", "local"),
            },
            args.runs,
        )
    ratio = statistics.median(seconds["vllm-anywhere"]) / statistics.median(seconds["three lines"])
    conclude("ratio", ratio, GOAL, args.check)


if __name__ == "__main__":
    main()

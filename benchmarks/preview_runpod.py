"""`pulumi preview` of stack runpod without a key, hence by dated prices, against that of a three-line program."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from preview import BARE
from support import ROOT, alternate, arguments, conclude, project_copy, pulumi, pulumi_env

GOAL = 1.60
STACK = "runpod"


def main() -> None:
    """Measure both, in turns."""
    args = arguments(__doc__ or "", runs=7)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = pulumi_env(folder)
        env.pop("RUNPOD_API_KEY", None)
        ours, bare = project_copy(folder), folder / "bare"
        bare.mkdir()
        (bare / "__main__.py").write_text(BARE)
        (bare / "Pulumi.yaml").write_text(
            f"name: bare\nruntime:\n  name: python\n  options:\n    virtualenv: {ROOT / '.venv'}\n"
        )
        for project in (ours, bare):
            pulumi(project, env, "stack", "init", STACK)
        (ours / f"stacks/Pulumi.{STACK}.yaml").write_text(_settings())
        seconds = alternate(
            {
                "three lines": lambda: pulumi(bare, env, "preview", "-s", STACK),
                "stack runpod": lambda: pulumi(ours, env, "preview", "-s", STACK),
            },
            args.runs,
        )
    ratio = statistics.median(seconds["stack runpod"]) / statistics.median(seconds["three lines"])
    conclude("ratio", ratio, GOAL, args.check)


def _settings() -> str:
    """The tracked stack's, without the salt of whoever has deployed it from here."""
    lines = (ROOT / f"stacks/Pulumi.{STACK}.yaml").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("encryptionsalt:"))


if __name__ == "__main__":
    main()

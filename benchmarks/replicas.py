"""`pulumi up` of 50 pods on the emulated RunPod against `up` of one.

A pod takes 20 s from its create until it serves, by the emulator's script; a real one takes longer. One real server
answers for all pods: 50 of them would measure this machine's cores. The rest is real: the engine, the provider, state,
and every call of each pod.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from support import ROOT, arguments, conclude, project_copy, pulumi, pulumi_env

sys.path.insert(0, str(ROOT / "tests"))

from emulators.runpod import RunPodEmulator
from emulators.runpod.engines import Engine, Engines

GOAL = 2.00
MANY = 50
BOOT_S = 20
STACK = "replicas"


class OneForAll(Engines):
    """Containers that share the server of the first."""

    _first = ""

    def ready(self, name: str) -> Engine | None:
        one, own = super().ready(self._first), self.get(name)
        return replace(own, address=one.address) if one and own else None

    def _started(self, name: str, *what: Any) -> Engine:
        if not self._first:
            self._first = name
            return super()._started(name, *what)
        command, boot, now = what
        first = self._running[self._first]
        return replace(first, command=command, boot=boot, started_at=now)

    @staticmethod
    def _end(engine: Engine) -> None:
        """It ends with this process, by its leash."""


def main() -> None:
    """Measure both, in turns; making the stack, and `destroy`, are not counted."""
    args = arguments(__doc__ or "", runs=2)
    seconds: dict[int, list[float]] = {1: [], MANY: []}
    for _ in range(args.runs):
        for count, taken in seconds.items():
            taken.append(_up(count))
            print(f"{count}: {taken[-1]:.1f} s", flush=True)
    conclude("ratio", statistics.median(seconds[MANY]) / statistics.median(seconds[1]), GOAL, args.check)


def _up(count: int) -> float:
    """Seconds that `up` takes for that many pods on an empty account."""
    with tempfile.TemporaryDirectory() as temporary, RunPodEmulator() as runpod:
        runpod.world.engines = OneForAll()
        runpod.boot(start_s=BOOT_S)
        env = pulumi_env(Path(temporary)) | runpod.env()
        project = project_copy(Path(temporary))
        (project / f"stacks/Pulumi.{STACK}.yaml").write_text(
            "config:\n  vllm-anywhere:provider: runpod\n"
            "  vllm-anywhere:hardware: {gpus: [RTX 4000 Ada]}\n"
            f"  vllm-anywhere:scaling: {{min: {count}}}\n"
        )
        pulumi(project, env, "stack", "init", STACK)
        begun = time.perf_counter()
        pulumi(project, env, "up", "--yes", "--skip-preview", "-s", STACK)
        took = time.perf_counter() - begun
        made = json.loads(pulumi(project, env, "stack", "output", "--json", "-s", STACK))
        if len(made.get("endpoints", [made])) != count or len(runpod.state()["pods"]) != count:
            sys.exit(f"{count} pods were asked for, and there are {len(runpod.state()['pods'])}")
        pulumi(project, env, "destroy", "--yes", "--skip-preview", "-s", STACK)
        if runpod.state()["pods"] or runpod.violations:
            sys.exit(f"left behind: {runpod.state()['pods']}, {runpod.violations}")
        return took


if __name__ == "__main__":
    main()

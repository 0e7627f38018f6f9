"""Names in a spec that only a catalogue can check: GPUs and regions."""

from __future__ import annotations

from serving import NAMESPACE
from serving.gpus import UnknownGpu, find_gpus
from serving.places import unknown_regions
from serving.spec import DeploymentSpec, Problem, SpecError


def check_names(spec: DeploymentSpec) -> None:
    """Refuse GPUs and regions that nothing has.

    Raises:
        SpecError: with every such name and the nearest ones.
    """
    problems = unknown_regions(spec.placement.regions)
    for name in spec.hardware.gpus:
        try:
            find_gpus(name)
        except UnknownGpu as error:
            problems.append(Problem(f"{NAMESPACE}:hardware.gpus", name, f"{error} `vllm-anywhere fit` lists them"))
    if problems:
        raise SpecError(problems)

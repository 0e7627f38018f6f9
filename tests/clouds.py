"""Every cloud, emulated on this machine, and the environment that sends all programs there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from emulators.lambda_cloud import LambdaEmulator
from emulators.modal import ModalEmulator
from emulators.runpod import RunPodEmulator
from emulators.vastai import Servers, VastEmulator, offer_row

from tests.doubles.gcp.cloud import VARIABLE, Cloud
from tests.doubles.gcp.rest import Rest


@dataclass
class Clouds:
    """`env` has addresses and keys of all of them."""

    runpod: RunPodEmulator
    vastai: VastEmulator
    modal: ModalEmulator
    gcp: Cloud
    lambda_cloud: LambdaEmulator
    env: dict[str, str]

    def rented(self) -> set[str]:
        """The platforms on which there is anything of anybody's."""
        runpod = self.runpod.state()
        found = {
            "runpod": any(runpod[shelf] for shelf in ("pods", "endpoints", "volumes", "registries")),
            "vastai": bool(self.vastai.instances),
            "modal": self.modal.state() != {"apps": [], "volumes": []},
            "gcp": bool(self.gcp.all()),
            "lambda": bool(self.lambda_cloud.instances or self.lambda_cloud.rulesets),
        }
        return {platform for platform, anything in found.items() if anything}

    def violations(self) -> list[str]:
        """Where a program broke a platform's contract."""
        emulators = (self.runpod, self.vastai, self.modal, self.lambda_cloud)
        return [text for emulator in emulators for text in emulator.violations]


@contextmanager
def emulated(at: Path) -> Iterator[Clouds]:
    """All of them until the block ends, with their files in a new folder."""
    (at / "market").mkdir(parents=True)
    with ExitStack() as stack:
        runpod = stack.enter_context(RunPodEmulator())
        rows = [offer_row(id, dph_base=0.3 + id / 100) for id in range(1, 6)]
        rows += [offer_row(6, dph_base=0.4, gpu_name="RTX A5000", compute_cap=860)]
        vastai = stack.enter_context(VastEmulator(rows, servers=Servers(at / "market")))
        modal = stack.enter_context(ModalEmulator())
        gcp = Cloud(at / "cloud", owned=True)
        stack.callback(gcp.close)
        rest = stack.enter_context(Rest(gcp))
        lambda_cloud = stack.enter_context(LambdaEmulator(at / "lambda"))
        env = runpod.env() | modal.env() | rest.environ | lambda_cloud.env()
        env |= {"VAST_API_KEY": vastai.key, "VLLM_ANYWHERE_VASTAI_URL": vastai.url}
        env |= {VARIABLE: str(gcp.folder), "GOOGLE_PROJECT": "shop-1"}
        yield Clouds(runpod, vastai, modal, gcp, lambda_cloud, env)

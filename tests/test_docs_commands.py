"""Every command block of the README and of docs/ is run, a page after the other, with the real Pulumi CLI.

The platforms are emulated; what a page calls `local` is a real server. Pages share one copy of the checkout.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from docs_runner import Block, Checkout, blocks_of, pages, shows
from emulators.modal.emulator import TOKEN

pytest.importorskip("pulumi_gcp", reason="the gcp extra is not installed")

from clouds import Clouds, emulated

from tests.doubles.gcp.cloud import BIN

QUICK = [
    pytest.mark.engine,
    pytest.mark.xdist_group("docs"),
    pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"]),
]
SLOW = [*QUICK, pytest.mark.slow]
HEAVY = {
    "docs/bench.md",
    "docs/operate.md",
    "docs/platforms/gcp.md",
    "docs/platforms/lambda.md",
    "docs/platforms/modal.md",
    "docs/platforms/runpod.md",
    "docs/platforms/vastai.md",
    "docs/replicas.md",
    "docs/security.md",
    "docs/switch-provider.md",
    "docs/watch.md",
}
"""Pages whose stories other tests of the default run tell too."""

BILLS = [page for page in pages() if page.startswith("docs/platforms/") and page in HEAVY]

FROM_A_CLONE = {"README.md", "CONTRIBUTING.md", "docs/getting-started.md"}
"""Pages that begin with `make up`, in a shell that knows of nothing."""

UP = "pulumi stack output endpoint -s local >/dev/null 2>&1 || make up"
"""What pages about a running deployment take for granted."""

NOT_RUN = 12
"""Blocks that can't be run. A new one needs a reason on its page, and a look here."""

KEYS = ("RUNPOD_API_KEY", "VAST_API_KEY", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "LAMBDA_API_KEY", "GOOGLE_PROJECT")
"""What a reader sets by a command of the page, and not before."""


def written(clouds: Clouds) -> Mapping[str, str]:
    """What stands for keys on the pages, and keys for the emulators."""
    return {
        "RUNPOD_API_KEY=rpa_...": f"RUNPOD_API_KEY={clouds.runpod.key}",
        "VAST_API_KEY=...": f"VAST_API_KEY={clouds.vastai.key}",
        "MODAL_TOKEN_ID=...": f"MODAL_TOKEN_ID={TOKEN[0]}",
        "MODAL_TOKEN_SECRET=...": f"MODAL_TOKEN_SECRET={TOKEN[1]}",
        "GOOGLE_PROJECT=...": "GOOGLE_PROJECT=shop-1",
        "LAMBDA_API_KEY=...": f"LAMBDA_API_KEY={clouds.lambda_cloud.key}",
    }


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    with emulated(tmp_path_factory.mktemp("clouds") / "all") as clouds:
        for name in KEYS:
            del clouds.env[name]
        yield clouds
        assert clouds.violations() == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, pulumi_cli: str, clouds: Clouds) -> Iterator[Checkout]:
    at = tmp_path_factory.mktemp("docs")
    path = [str(BIN), str(Path(pulumi_cli).parent), os.environ["PATH"]]
    checkout = Checkout.create(at, os.pathsep.join(path), clouds.env)
    yield checkout
    checkout.close()


def prelude(page: str) -> str:
    """What a reader of the page has done before."""
    if page in FROM_A_CLONE:
        return ""
    return "source tools/env.sh" if page.startswith("docs/platforms/") else f"source tools/env.sh\n{UP}"


@pytest.mark.parametrize("page", [pytest.param(page, marks=SLOW if page in HEAVY else QUICK) for page in pages()])
def test_every_command_of_a_page_works_and_prints_what_the_page_shows(
    page: str, checkout: Checkout, clouds: Clouds
) -> None:
    before = clouds.rented()
    read(blocks_of(page), page, checkout, clouds)
    assert clouds.rented() <= before, "the page leaves something behind that bills"


@pytest.mark.parametrize("page", [pytest.param(page, marks=QUICK) for page in BILLS])
def test_the_bill_on_a_platforms_page_is_what_its_preview_prints(page: str, checkout: Checkout, clouds: Clouds) -> None:
    blocks = [block for block in blocks_of(page) if not block.not_run]
    (bill, *_) = (at for at, block in enumerate(blocks) if "a month " in block.prints)
    read(blocks[: bill + 1], page, checkout, clouds)


def read(blocks: Sequence[Block], page: str, checkout: Checkout, clouds: Clouds) -> None:
    """Run blocks of a page in one shell."""
    shell = checkout.shell(prelude(page), written(clouds), typed=f"{clouds.runpod.key}\n")
    for block in blocks:
        if not block.not_run:
            shell.run(block)


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    skipped = [block for page in pages() for block in blocks_of(page) if block.not_run]
    assert len(skipped) == NOT_RUN, "\n".join(f"{block}{block.not_run}" for block in skipped)


def test_output_may_have_other_widths_and_stands_together() -> None:
    output = "Total   $1.20\n\n  an hour\n  a month, as of 2026-01-02\n"
    assert shows(output, "Total $1.20\nan hour\n")
    assert shows(output, "a month, as of ...")
    assert not shows(output, "Total $1.20\na month, as of ...")
    assert not shows(output, "Total $1.21")

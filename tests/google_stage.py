"""A stack on Google's double, for tests that drive the real Pulumi CLI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine import Project

from tests.doubles.gcp.cloud import BIN, VARIABLE, Cloud


@contextmanager
def google(project: Project) -> Iterator[Cloud]:
    """A cloud of the project's own. No credentials are there, and prices are the dated ones."""
    cloud = Cloud(project.folder / "cloud", owned=True)
    project.env["PATH"] = f"{BIN}:{project.env['PATH']}"
    project.env |= {VARIABLE: str(cloud.folder), "GOOGLE_PROJECT": "shop-1", "VLLM_ANYWHERE_OFFLINE": "1"}
    project.env["CLOUDSDK_CONFIG"] = str(project.folder / "gcloud")
    for name in ("GOOGLE_OAUTH_ACCESS_TOKEN", "GOOGLE_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS"):
        project.env.pop(name, None)
    try:
        yield cloud
    finally:
        cloud.close()

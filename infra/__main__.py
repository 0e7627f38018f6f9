"""The Pulumi program: stack config -> spec -> plan -> resources -> outputs."""

from infra.early import start_provider

_starting = start_provider()

from infra.program import run  # noqa: E402 - the provider starts while this is imported

run()

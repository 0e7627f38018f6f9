"""The Pulumi program: stack config -> spec -> plan -> resources -> outputs."""

from infra.program import run

run()

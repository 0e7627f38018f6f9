"""The Pulumi program: stack config -> spec -> plan -> resources -> outputs."""

from pulumi.runtime import config

if "vllm-anywhere:gateway" in {**config.get_config_env(), **config.CONFIG.get()}:
    from infra.gateway import run
else:
    from infra.program import run

run()

"""A double of Pulumi's gcp provider plugin, version 10.2: the real CLI and the real SDK, without Google.

Put `bin/` on PATH and name a folder in `PULUMI_GCP_DOUBLE`; `Cloud(folder)` is that folder from the test's side:
what exists, what was asked for, and the faults to come (`Faults`). A test that reaches into a VM needs Linux, where
all of 127.0.0.0/8 is this machine, and `@pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"])`:

- Every external address is one of its own in 127.0.0.0/8, so a VM answers on its real port. Ports below 1024 need
  root, or `net.ipv4.ip_unprivileged_port_start=0`.
- A VM that runs serves with llama.cpp what its startup script would serve with vLLM (`vm.py` says what is read from
  the script), once its service account may read its secrets, and only to ports that a firewall rule opens for it.
- A VM ends with its instance, with the cloud, and with the process that made the cloud.
- `rest.Rest(cloud)` answers what the project asks Google itself, over HTTP.
- Google's own doings (groups that heal) happen while a plugin runs, and at each read.

Not emulated: containers without an entry point of their own, such as Caddy's; who may pass a firewall rule (anybody,
on the ports that it opens); data sources; health checks, so a group heals what does not run and nothing else.

Strictness comes from the SDK's typed classes (`sdk.py`) and from the tables in `kinds.py`. Emulated, all of it: what is
said here about Google was never tried on Google. Stricter than the plugin: numbers are not taken for texts, and values
that only Google's API would refuse are refused by Check, with their path.
"""

from tests.doubles.gcp.cloud import Cloud, Faults, Record

__all__ = ["Cloud", "Faults", "Record"]

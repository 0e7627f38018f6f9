"""Platform-neutral: the spec, what it costs, whether it fits. No I/O."""

VERSION = "0.1.0"
"""The project's version; pyproject.toml reads it here."""

NAMESPACE = "vllm-anywhere"
"""The stack-config namespace, which is the Pulumi project's name and the provider's package name."""

USER_PRICES = "VLLM_ANYWHERE_PRICES"
"""Environment variable: path of a price file of one's own; its rows win over the snapshot's."""

REPORT = "VLLM_ANYWHERE_REPORT"
"""Environment variable: with `json`, the report of a preview is one JSON object, for programs that read
`preview --json`."""

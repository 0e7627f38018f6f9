"""Platform-neutral: the spec, what it costs, whether it fits. No I/O."""

VERSION = "0.1.0"
"""The project's version; pyproject.toml reads it here."""

NAMESPACE = "vllm-anywhere"
"""The stack-config namespace, which is the Pulumi project's name and the provider's package name."""

"""Platform-neutral: the spec, what it costs, whether it fits. No I/O."""

NAMESPACE = "vllm-anywhere"
"""The stack-config namespace, which is the Pulumi project's name and the provider's package name."""

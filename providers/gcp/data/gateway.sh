#!/bin/bash
# What the unit runs: secrets into a file that only root reads, and the gateway in the foreground.
set -euo pipefail

root=${VLLM_ANYWHERE_ROOT:-}
etc=$root/etc/vllm-anywhere
# shellcheck source=/dev/null
. "$etc/settings"

python3 "$etc/fetch.py" "$root/run/vllm-anywhere/env" "${SECRETS[@]}"
exec "$root/opt/vllm-anywhere/bin/python" "$etc/program/gateway_vm.py" "$root/run/vllm-anywhere/env" "$PORT"

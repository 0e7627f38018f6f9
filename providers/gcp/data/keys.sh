#!/bin/bash
# What the unit beside vLLM's runs: the secrets again and again, so that the guard takes keys that were rotated.
set -euo pipefail

root=${VLLM_ANYWHERE_ROOT:-}
etc=$root/etc/vllm-anywhere
# shellcheck source=/dev/null
. "$etc/settings"

while sleep "${VLLM_ANYWHERE_KEYS_S:-30}"; do
  python3 "$etc/fetch.py" "$root/run/vllm-anywhere/env" "${SECRETS[@]}" || true
done

#!/bin/bash
# What the unit runs: secrets into a file that only root reads, the image, and vLLM in the foreground.
set -euo pipefail

root=${VLLM_ANYWHERE_ROOT:-}
etc=$root/etc/vllm-anywhere
# shellcheck source=/dev/null
. "$etc/settings"

python3 "$etc/fetch.py" "$root/run/vllm-anywhere/env" "${SECRETS[@]}"

for ((try = 1; ; try++)); do
  docker image inspect "$IMAGE" >/dev/null 2>&1 && break
  echo "vllm-anywhere: pulling $IMAGE"
  docker pull --quiet "$IMAGE" && break
  ((try < 10)) || exit 1
  echo "vllm-anywhere: the pull failed ($try of 10), again in 15 s"
  sleep 15
done

docker rm --force vllm-anywhere >/dev/null 2>&1 || true
mkdir -p "$root/var/lib/vllm-anywhere/cache"
exec docker run --rm --name vllm-anywhere --gpus all --ipc host \
  --publish "$PUBLISH" \
  --volume "$root/var/lib/vllm-anywhere/cache:/root/.cache" \
  --volume "$etc/start.sh:/start.sh:ro" \
  --env-file "$root/run/vllm-anywhere/env" \
  --volume "$root/run/vllm-anywhere:/run/vllm-anywhere:ro" \
  --env ANYWHERE_KEYS=/run/vllm-anywhere/env \
  "${LOGGING[@]}" --entrypoint /bin/sh "$IMAGE" /start.sh

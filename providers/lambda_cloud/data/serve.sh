#!/bin/sh
# What the unit runs: waits for the secrets, fetches the image, and keeps vLLM in the foreground.
set -eu

root=${VLLM_ANYWHERE_ROOT:-}
etc=$root/etc/vllm-anywhere
var=$root/var/lib/vllm-anywhere

echo "vllm-anywhere: waiting for the server's secrets"
until [ -s "$var/env" ] && [ -s "$var/keys/keys" ]; do sleep 1; done

image=$(cat "$etc/image")
try=1
until docker image inspect "$image" >/dev/null 2>&1; do
  echo "vllm-anywhere: pulling $image"
  docker pull --quiet "$image" && break
  [ "$try" -lt 10 ] || exit 1
  echo "vllm-anywhere: the pull failed ($try of 10), again in 15 s"
  try=$((try + 1))
  sleep 15
done

docker rm --force vllm-anywhere >/dev/null 2>&1 || true
mkdir -p "$var/cache"
echo "vllm-anywhere: starting the server"
exec docker run --rm --name vllm-anywhere --gpus all --ipc host --publish 8000:8000 \
  --volume "$var/cache:/root/.cache" \
  --volume "$etc/start.sh:/start.sh:ro" \
  --volume "$var/keys:/keys:ro" \
  --env-file "$var/env" --env ANYWHERE_KEYS=/keys/keys \
  --entrypoint /bin/sh "$image" /start.sh

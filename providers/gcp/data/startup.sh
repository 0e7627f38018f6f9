# A kernel that is upgraded behind the driver's back leaves a machine without a GPU.
systemctl disable --now unattended-upgrades.service apt-daily.timer apt-daily-upgrade.timer >/dev/null 2>&1 || true

say "waiting for the GPU"
patiently 60 5 nvidia-smi --list-gpus || { say "the driver shows no GPU"; exit 1; }

if ! command -v docker >/dev/null || ! command -v nvidia-ctk >/dev/null; then
  say "installing Docker and NVIDIA's container toolkit"
  # What a reboot interrupted has to be finished first.
  dpkg --configure -a
  patiently 10 15 apt update
  if ! apt-cache show nvidia-container-toolkit >/dev/null 2>&1; then
    # https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html
    key=/usr/share/keyrings/nvidia-container-toolkit.gpg
    patiently 10 15 curl -fsSL -o "$root$key.asc" https://nvidia.github.io/libnvidia-container/gpgkey
    gpg --batch --yes --dearmor -o "$root$key" "$root$key.asc"
    # shellcheck disable=SC2016 # apt itself replaces $(ARCH)
    printf 'deb [signed-by=%s] https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /\n' "$key" \
      >"$root/etc/apt/sources.list.d/nvidia-container-toolkit.list"
    patiently 10 15 apt update
  fi
  patiently 10 15 apt install docker.io nvidia-container-toolkit
fi

if ! grep -qs nvidia "$root/etc/docker/daemon.json"; then
  nvidia-ctk runtime configure --runtime=docker
  systemctl restart docker.service
fi

stale=0
settings | changed "$etc/settings" 0644 && stale=1
start_script | changed "$etc/start.sh" 0644 && stale=1
certificate | changed "$etc/tls.pem" 0644 && stale=1
fetch_py | changed "$etc/fetch.py" 0644 && stale=1
serve_sh | changed "$etc/serve.sh" 0755 && stale=1
keys_sh | changed "$etc/keys.sh" 0755 && stale=1
vllm_unit | changed "$units/vllm-anywhere.service" 0644 && stale=1
keys_unit | changed "$units/vllm-anywhere-keys.service" 0644 && stale=1
services=(vllm-anywhere.service vllm-anywhere-keys.service)
if [[ -n $(caddyfile) ]]; then
  caddyfile | changed "$etc/Caddyfile" 0644 && stale=1
  caddy_unit | changed "$units/vllm-anywhere-caddy.service" 0644 && stale=1
  services+=(vllm-anywhere-caddy.service)
fi

systemctl daemon-reload
systemctl enable "${services[@]}"
if ((stale)); then
  systemctl restart "${services[@]}"
else
  systemctl start "${services[@]}"
fi
say "set up; the server starts"

home=$root/opt/vllm-anywhere
if ! cmp -s <(constraints) "$home/.installed"; then
  say "installing LiteLLM"
  # What a reboot interrupted has to be finished first.
  dpkg --configure -a
  patiently 10 15 apt update
  patiently 10 15 apt install python3-venv
  python3 -m venv --clear "$home"
  constraints >"$home/constraints.txt"
  patiently 10 15 "$home/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
    --constraint "$home/constraints.txt" 'litellm[proxy]'
  mv "$home/constraints.txt" "$home/.installed"
fi

stale=0
settings | changed "$etc/settings" 0644 && stale=1
certificate | changed "$etc/tls.pem" 0644 && stale=1
fetch_py | changed "$etc/fetch.py" 0644 && stale=1
gateway_sh | changed "$etc/gateway.sh" 0755 && stale=1
keys_sh | changed "$etc/keys.sh" 0755 && stale=1
gateway_vm_py | changed "$etc/program/gateway_vm.py" 0644 && stale=1
holder_py | changed "$etc/program/holder.py" 0644 && stale=1
gateway_hooks_py | changed "$etc/program/gateway_hooks.py" 0644 && stale=1
gateway_serve_py | changed "$etc/program/gateway_serve.py" 0644 && stale=1
guard_py | changed "$etc/program/guard.py" 0644 && stale=1
gateway_unit | changed "$units/vllm-anywhere.service" 0644 && stale=1
keys_unit | changed "$units/vllm-anywhere-keys.service" 0644 && stale=1
services=(vllm-anywhere.service vllm-anywhere-keys.service)

systemctl daemon-reload
systemctl enable "${services[@]}"
if ((stale)); then
  systemctl restart "${services[@]}"
else
  systemctl start "${services[@]}"
fi
say "set up; the gateway starts"

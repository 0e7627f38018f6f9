# Runs on every boot, as root, and may be cut off anywhere: each step looks at what is there before it acts.
# The lines above this one, which are made from the stack, set its variables and its two functions.
set -euo pipefail

root=${VLLM_ANYWHERE_ROOT:-}
etc=$root/etc/vllm-anywhere
units=$root/etc/systemd/system

say() { echo "vllm-anywhere: $*"; }

# Runs a command again until it succeeds, at most $1 times with $2 seconds between.
patiently() {
  local tries=$1 pause=$2 n
  shift 2
  for ((n = 1; ; n++)); do
    "$@" && return
    ((n < tries)) || return 1
    say "'$*' failed ($n of $tries), again in $pause s"
    sleep "$pause"
  done
}

# Puts stdin into file $1 with mode $2. Succeeds if that changed the file, which is never seen half written.
changed() {
  local file=$1 mode=$2
  mkdir -p "${file%/*}"
  cat >"$file.new"
  chmod "$mode" "$file.new"
  if cmp -s "$file.new" "$file"; then
    rm "$file.new"
    return 1
  fi
  mv "$file.new" "$file"
}

apt() { DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q -y "$@"; }


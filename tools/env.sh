# Source this, from any folder, in sh, bash or zsh:  . tools/env.sh
#
# Puts `pulumi`, `vllm-anywhere` and the project's `python` on PATH. Where you have no Pulumi backend of your own
# (PULUMI_BACKEND_URL, PULUMI_ACCESS_TOKEN or a login), state goes to .state/backend of this checkout; where you
# have set no passphrase (PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE), one is made for you, once,
# in ~/.config/vllm-anywhere/passphrase.

_va_find() {
    if [ -n "${BASH_VERSION:-}" ]; then
        eval '_va_file=${BASH_SOURCE[0]}'
    elif [ -n "${ZSH_VERSION:-}" ]; then
        eval '_va_file=${funcfiletrace[1]%:*}'
    else
        # A plain sh doesn't tell, but it holds the file open while it reads it.
        _va_file=
        for _va_fd in /proc/$$/fd/*; do
            case $(readlink "$_va_fd") in
                */tools/env.sh) _va_file=$(readlink "$_va_fd") ;;
            esac
        done
    fi
    _va_root=
    if [ -n "$_va_file" ]; then
        _va_root=$(CDPATH='' cd -- "$(dirname -- "$_va_file")/.." && pwd)
    fi
    if [ ! -f "$_va_root/tools/env.sh" ]; then
        _va_root=$PWD
        while [ "$_va_root" != / ] && [ ! -f "$_va_root/tools/env.sh" ]; do
            _va_root=$(dirname -- "$_va_root")
        done
    fi
    [ -f "$_va_root/tools/env.sh" ]
}

# To the front of PATH, and nowhere else on it: sourcing again changes nothing.
_va_first() {
    _va_rest=:$PATH:
    while :; do
        case $_va_rest in
            *":$1:"*) _va_rest=${_va_rest%%":$1:"*}:${_va_rest#*":$1:"} ;;
            *) break ;;
        esac
    done
    _va_rest=${_va_rest#:}
    _va_rest=${_va_rest%:}
    PATH=$1${_va_rest:+:$_va_rest}
}

_va_set_up() {
    if ! _va_find; then
        echo "Can't tell where this file is; change to the checkout's folder first." >&2
        return 1
    fi
    if [ ! -x "$_va_root/.venv/bin/python" ] ||
        ! _va_bin=$("$_va_root/.venv/bin/python" "$_va_root/tools/get_pulumi.py" --ready); then
        echo "$_va_root isn't set up yet; run \`make setup\` there." >&2
        return 1
    fi
    # Only our own: the folder of a `pulumi` of yours, say /usr/bin, keeps its place.
    case $_va_bin in
        */vllm-anywhere/pulumi/*) _va_first "$_va_bin" ;;
    esac
    _va_first "$_va_root/.venv/bin"
    export PATH

    # Operations wait for machines elsewhere, and Pulumi's own number goes by the cores of this one.
    export PULUMI_PARALLEL="${PULUMI_PARALLEL:-128}"

    # A release that is newer than what is pinned here is no news.
    export PULUMI_SKIP_UPDATE_CHECK=true

    _va_login=${PULUMI_HOME:-$HOME/.pulumi}/credentials.json
    if [ -z "${PULUMI_BACKEND_URL:-}" ] && [ -z "${PULUMI_ACCESS_TOKEN:-}" ] &&
        ! grep -Eqs '"current"[[:space:]]*:[[:space:]]*"[^"]+"' "$_va_login"; then
        mkdir -p "$_va_root/.state/backend" || return 1
        export PULUMI_BACKEND_URL="file://$_va_root/.state/backend"
    fi

    # Set but empty is a passphrase too: Pulumi takes it for the empty one.
    if [ -z "${PULUMI_CONFIG_PASSPHRASE+set}" ] && [ -z "${PULUMI_CONFIG_PASSPHRASE_FILE:-}" ]; then
        _va_phrase=${XDG_CONFIG_HOME:-$HOME/.config}/vllm-anywhere/passphrase
        if [ ! -s "$_va_phrase" ]; then
            mkdir -p "$(dirname -- "$_va_phrase")" || return 1
            # Linked into place, so that of two shells that start at once the first one's is kept.
            (
                umask 077
                od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$_va_phrase.$$" &&
                    { ln "$_va_phrase.$$" "$_va_phrase" 2>/dev/null || :; } && rm -f "$_va_phrase.$$"
            ) || return 1
        fi
        export PULUMI_CONFIG_PASSPHRASE_FILE="$_va_phrase"
    fi

    # `local` is a stack of your own: Pulumi writes this machine's encryption salt into its file.
    if [ ! -e "$_va_root/stacks/Pulumi.local.yaml" ]; then
        cp "$_va_root/stacks/Pulumi.local.example.yaml" "$_va_root/stacks/Pulumi.local.yaml" || return 1
    fi
}

_va_set_up
_va_status=$?
unset -f _va_find _va_first _va_set_up
unset _va_file _va_fd _va_root _va_bin _va_rest _va_login _va_phrase
# An expression that carries the status out without a variable left behind.
if [ "$_va_status" -eq 0 ]; then
    unset _va_status
else
    unset _va_status
    false
fi

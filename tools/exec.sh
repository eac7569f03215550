#!/usr/bin/env bash
# Runs a command of the checkout in the development container: tools/exec.sh make lint
# Needs a Docker engine and nothing else; the container's Python environment is kept in a volume. Where no image can be
# pulled, `make base-images` first: its base, and what it found out about the host's trust and pip, are used here too.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
  echo "usage: tools/exec.sh COMMAND [ARGUMENT…]   for example: tools/exec.sh make lint" >&2
  exit 2
fi
docker info >/dev/null 2>&1 || {
  echo "tools/exec.sh: no Docker engine answers; start one, or run the command directly after \`make setup\`" >&2
  exit 1
}

# What .env says of this host; nothing where there is none.
told() { sed -n "s/^$1=//p" .env 2>/dev/null || true; }
base=$(told QC_BASE) ca=$(told QC_CA) pip=$(told QC_PIP_CONF)

# The container's Python follows from its base, and so does its environment.
tag=$(printf '%s' "${base:-official}" | tr -c 'a-zA-Z0-9\n' -)
docker build -q -t "qcontroller-dev:$tag" ${base:+--build-arg "BASE=$base"} .devcontainer >/dev/null

mounts=(-v "$PWD:/workspace" -v "qcontroller-dev-venv-$tag:/workspace/.venv")
[ -z "$ca" ] || mounts+=(-v "$ca:/run/secrets/ca:ro")
[ -z "$pip" ] || mounts+=(-v "$pip:/run/secrets/pip:ro" -e PIP_CONFIG_FILE=/run/secrets/pip)
# The checkout may be a worktree, whose repository lies elsewhere.
if [ -f .git ]; then
  repository=$(sed -n 's/^gitdir: //p' .git)
  mounts+=(-v "${repository%/worktrees/*}:${repository%/worktrees/*}")
fi
exec docker run --rm -i --init "${mounts[@]}" -w /workspace \
  "qcontroller-dev:$tag" sh -c 'tools/setup --python && exec "$@"' sh "$@"

#!/usr/bin/env bash
# Runs a command of the checkout in the development container: tools/exec.sh make lint
# Needs a Docker engine and nothing else; the container's Python environment is kept in a volume.
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
docker build -q -t qcontroller-dev .devcontainer >/dev/null
exec docker run --rm -i --init \
  -v "$PWD:/workspace" -v qcontroller-dev-venv:/workspace/.venv -w /workspace \
  qcontroller-dev sh -c 'tools/setup --python && exec "$@"' sh "$@"

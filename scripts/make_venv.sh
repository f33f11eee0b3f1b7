#!/usr/bin/env bash
# Creates .venv if it does not exist and installs a requirements file: bash scripts/make_venv.sh requirements.txt
set -euo pipefail
CDPATH= cd "$(dirname "$0")/.."
if [ ! -x .venv/bin/pip ]; then
    python3 -c 'import sys; sys.exit("error: Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
    python3 -m venv .venv
fi
# quiet if everything is there already; otherwise its progress is shown, for PyTorch has gigabytes
.venv/bin/python -m pip install --quiet --no-index --requirement "$1" 2> /dev/null ||
    .venv/bin/python -m pip install --requirement "$1"

#!/usr/bin/env bash
# Creates .venv if it does not exist and installs a requirements file: bash scripts/make_venv.sh requirements.txt
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -c 'import sys; sys.exit("error: Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
[ -x .venv/bin/pip ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --requirement "$1"

#!/usr/bin/env bash
# Sets up .venv, checks the style and runs the tests; arguments go to pytest: bash scripts/run_tests.sh -m 'not slow'
set -euo pipefail
CDPATH= cd "$(dirname "$0")/.."
bash scripts/make_venv.sh requirements-dev.txt
.venv/bin/python -m ruff check .
.venv/bin/python -m pytest --numprocesses auto --dist loadfile "$@"

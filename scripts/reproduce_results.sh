#!/usr/bin/env bash
# Makes results/ and the table in docs/results.md again from the weights in pretrained/: bash scripts/reproduce_results.sh [GPU]
# Sets that are named behind it are measured alone: bash scripts/reproduce_results.sh cpu set5 set14
# Results of weights that have not changed are kept; with --fresh they, too, are measured: ... cpu set5 --fresh
set -euo pipefail
cd "$(dirname "$0")/.."
python scripts/results.py --gpu "${1:-0}" --sets "${@:2}"
python scripts/figures.py --gpu "${1:-0}"
echo 'next: git diff results docs/results.md'

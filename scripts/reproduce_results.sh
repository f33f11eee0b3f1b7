#!/usr/bin/env bash
# Measures the weights in pretrained/ again, and makes the table in docs/results.md, results/results.json and the
# figures of that page from the numbers: bash scripts/reproduce_results.sh [GPU]
# With further arguments, only these sets are measured: bash scripts/reproduce_results.sh cpu set5 set14
# Results of unchanged weights are kept, unless --fresh is given: ... cpu set5 --fresh
set -euo pipefail
CDPATH= cd "$(dirname "$0")/.."
gpu=0
case ${1:-} in
    -h | --help) sed -n 's/^# //p' scripts/reproduce_results.sh; exit;;
    '' | -*) ;;
    *) gpu=$1; shift;;
esac
python scripts/results.py --gpu "$gpu" --sets "$@"
python scripts/figures.py --gpu "$gpu"
echo 'next: git diff results docs/results.md'

#!/usr/bin/env bash
# PSNR on the DIV2K validation photos at all scales: bash scripts/test-div2k.sh MODEL [GPU]
# Further arguments go to test.py. Data is read from load/ in the working directory.
set -euo pipefail
root=$(CDPATH= cd "$(dirname "$0")/.." && pwd)  # with CDPATH, cd may go elsewhere, and prints where
[ $# -gt 0 ] || { echo "usage: bash scripts/test-div2k.sh MODEL [GPU]" >&2; exit 2; }

python "$root/test.py" --config "$root/configs/test/test-div2k-"{2,3,4,6,12,18,24,30}.yaml \
    --model "$1" --gpu "${2:-0}" "${@:3}"

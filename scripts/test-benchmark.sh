#!/usr/bin/env bash
# PSNR on those of Set5, Set14, B100 and Urban100 that exist: bash scripts/test-benchmark.sh MODEL [GPU]
# Further arguments go to test.py. Data is read from load/ in the working directory.
set -euo pipefail
root=$(CDPATH= cd "$(dirname "$0")/.." && pwd)  # with CDPATH, cd may go elsewhere, and prints where
[ $# -gt 0 ] || { echo "usage: bash scripts/test-benchmark.sh MODEL [GPU]" >&2; exit 2; }

configs=()
for set in Set5 Set14 B100 Urban100; do
    if [ -d "load/benchmark/$set/HR" ]; then
        configs+=("$root/configs/test/test-$(echo $set | tr A-Z a-z)-"{2,3,4,6,8}.yaml)
    else
        echo "$set is left out: load/benchmark/$set/HR is missing (python scripts/prepare_data.py benchmark)" >&2
    fi
done
[ ${#configs[@]} -gt 0 ] || exit 2
python "$root/test.py" --config "${configs[@]}" --model "$1" --gpu "${2:-0}" "${@:3}"

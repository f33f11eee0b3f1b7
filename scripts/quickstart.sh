#!/usr/bin/env bash
# From nothing to pictures: sets up .venv, trains a small A-LIIF on six photos on the CPU, and compares it with
# bicubic on two others. The training takes some three minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/make_venv.sh requirements.txt
export OMP_WAIT_POLICY=passive  # threads that wait by spinning are many times slower where the machine is busy
out=save/quickstart
configs=(configs/quickstart/test-sample-{2,3,4,6}.yaml)

evaluate() {  # MODEL NAME
    .venv/bin/python test.py --config "${configs[@]}" --model "$1" --gpu cpu \
        --save-dir $out/$2 --json $out/$2.json > /dev/null
}

.venv/bin/python scripts/prepare_data.py sample
.venv/bin/python train_liif.py --config configs/quickstart/train_sample.yaml --name quickstart --gpu cpu --overwrite
evaluate bicubic bicubic
evaluate $out/epoch-last.pth ours
.venv/bin/python scripts/compare.py $out load/sample/valid

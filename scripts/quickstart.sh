#!/usr/bin/env bash
# From nothing to pictures: sets up .venv, trains a small A-LIIF on six photos on the CPU, and compares it with
# bicubic on two others. The training takes some three minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/make_venv.sh requirements.txt
out=save/quickstart
configs=(configs/quickstart/test-sample-{2,3,4,6}.yaml)

.venv/bin/python scripts/prepare_data.py sample
.venv/bin/python train_liif.py --config configs/quickstart/train_sample.yaml --name quickstart --gpu cpu --overwrite
for name in bicubic ours; do
    model=$([ $name = ours ] && echo $out/epoch-last.pth || echo bicubic)
    .venv/bin/python test.py --config "${configs[@]}" --model "$model" --gpu cpu \
        --save-dir $out/$name --json $out/$name.json > /dev/null
done
.venv/bin/python scripts/compare.py $out load/sample/valid

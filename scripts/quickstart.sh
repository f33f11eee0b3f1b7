#!/usr/bin/env bash
# From nothing to pictures: sets up .venv, enlarges a photo with the shipped model (seconds), trains a small A-LIIF on
# six photos on the CPU (three to seven minutes on two cores), and compares both with bicubic on two unseen photos.
# If it is interrupted while it trains, the same command continues.
set -euo pipefail
CDPATH= cd "$(dirname "$0")/.."
bash scripts/make_venv.sh requirements.txt
export OMP_WAIT_POLICY=passive  # on a busy machine, threads that spin while waiting are many times slower
out=save/quickstart shipped=edsr-baseline-A-liif-pixel
configs=(configs/quickstart/test-sample-{2,3,4,6}.yaml)

evaluate() {  # MODEL NAME
    .venv/bin/python test.py --config "${configs[@]}" --model "$1" --gpu cpu \
        --save-dir $out/$2 --json $out/$2.json > /dev/null
}

.venv/bin/python scripts/prepare_data.py sample > /dev/null
echo '1. A photo, enlarged four times by the shipped model'
.venv/bin/python demo.py load/sample/train/chelsea.png --scale 4 --output $out/cat-x4.png --model $shipped \
    --gpu cpu --compare --overwrite
echo '2. A small A-LIIF is trained on six other photos'
if [ -e $out/finished ]; then  # the last training: start again
    rm -rf $out/epoch-*.pth $out/log.txt $out/tensorboard $out/finished
fi
.venv/bin/python train_liif.py --config configs/quickstart/train_sample.yaml --name quickstart --gpu cpu --resume
touch $out/finished
echo '3. Two reduced photos, restored by bicubic interpolation, the model just trained, and the shipped one'
evaluate bicubic bicubic
evaluate $out/epoch-last.pth trained
evaluate $shipped shipped
.venv/bin/python scripts/compare.py $out load/sample/valid bicubic trained shipped
cat << END

Look at $out/cat-x4-compare.png, then at $out/compare/test-sample-4-*.png. Next:
    source .venv/bin/activate
    python demo.py PHOTO --scale 4 --output big.png
    python train_liif.py --config configs/finetune.yaml    # with your own photos in load/own
END

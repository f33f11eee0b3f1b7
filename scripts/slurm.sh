#!/usr/bin/env bash
# Trains on all GPUs of a SLURM job. Shortly before its time is over it saves, requeues the job, and resumes:
#   sbatch --nodes=2 scripts/slurm.sh configs/train-div2k/train_rdn-A-liif.yaml --amp bf16
#SBATCH --job-name=a-liif
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
source .venv/bin/activate
port=$((20000 + SLURM_JOB_ID % 10000))  # jobs that share a node need different ones
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

srun torchrun --nnodes="$SLURM_NNODES" --nproc_per_node="$SLURM_GPUS_ON_NODE" --rdzv_backend=c10d \
    --rdzv_id="$SLURM_JOB_ID" --rdzv_endpoint="${nodes[0]}:$port" train_liif.py --config "$@" --resume &

save_and_queue_again() {
    scancel --signal=TERM "$SLURM_JOB_ID.0"  # training finishes its iteration and saves
    wait %1 || true
    scontrol requeue "$SLURM_JOB_ID"
}
trap save_and_queue_again USR1
wait %1

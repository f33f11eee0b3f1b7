"""scripts/slurm.sh starts training on a job's nodes, and when the job's time is nearly over saves and queues it again.

The commands of SLURM and torchrun are stood in for by scripts that note how they were called.
"""

import os
import signal
import subprocess
import time

import pytest
from paths import ROOT

SCRIPT = ROOT / 'scripts/slurm.sh'
COMMANDS = {
    'scontrol': 'echo "scontrol $*" >> calls; [ $1 != show ] || printf "node7\\nnode8\\n"',
    'srun': 'echo "srun $*" >> calls; exec "$@"',
    'torchrun': 'trap "sleep 0.3; echo saved >> calls; exit 1" TERM; echo $$ > training; '
                'while [ ! -e done ]; do sleep 0.05; done; exit $(cat done)',
    'scancel': 'echo "scancel $*" >> calls; kill -TERM $(cat training)',
}


@pytest.fixture
def job(tmp_path):
    """The script, running in a folder where training waits for a file `done` that holds its exit status."""
    (tmp_path / '.venv/bin').mkdir(parents=True)
    (tmp_path / '.venv/bin/activate').touch()
    for name, body in COMMANDS.items():
        (tmp_path / name).write_text(f'#!/usr/bin/env bash\n{body}\n')
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_JOB_ID': '42',
                   'SLURM_JOB_NODELIST': 'node[7-8]', 'SLURM_NNODES': '2', 'SLURM_GPUS_ON_NODE': '4'}
    process = subprocess.Popen(['bash', SCRIPT, 'a.yaml', '--amp', 'bf16'], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / 'training').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    yield process
    process.kill()
    process.wait()


def calls(tmp_path):
    return (tmp_path / 'calls').read_text().splitlines()


def test_all_gpus_of_all_nodes_train_and_meet_at_the_first_node(job, tmp_path):
    (tmp_path / 'done').write_text('0')
    assert job.wait(60) == 0
    show, srun = calls(tmp_path)
    assert show == 'scontrol show hostnames node[7-8]'
    assert srun == ('srun torchrun --nnodes=2 --nproc_per_node=4 --rdzv_backend=c10d --rdzv_id=42 '
                    '--rdzv_endpoint=node7:20042 train_liif.py --config a.yaml --amp bf16 --resume')


def test_a_job_whose_time_is_nearly_over_saves_and_then_queues_again(job, tmp_path):
    job.send_signal(signal.SIGUSR1)
    job.wait(60)
    assert calls(tmp_path)[2:] == ['scancel --signal=TERM 42.0', 'saved', 'scontrol requeue 42']


def test_training_that_fails_fails_the_job(job, tmp_path):
    (tmp_path / 'done').write_text('2')
    assert job.wait(60) == 2
    assert len(calls(tmp_path)) == 2

"""Training on several processes or GPUs, and how its result is compared with that of one."""

import socket

import pytest
import torch
from processes import ended, fork
from projects import COMMAND

# Five photos in batches of 4: in an epoch's second batch, of one photo, all ranks but the first have an empty share.
# Three photos are validated: of four ranks one has none.
CHANGES = {'train_dataset.batch_size': 4, 'epoch_max': 10, 'ema': 0.9, 'grad_clip': 0.5}

needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason='there are no two GPUs')


def torchrun(processes):
    return ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']


def start_ranks(folders, script, *args):
    """Starts `script` as torchrun starts its processes, one in each of `folders`, forked as by `projects.forked`.

    What they print is in the file `output` of their folder.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    for folder in folders:
        (folder / 'output').write_text('')
    return [fork(folder, script, *args, streams=('output', 'output'), environment={
        'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': str(len(folders)), 'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': port, 'TORCHELASTIC_RUN_ID': 'forked'})
        for rank, folder in enumerate(folders)]


def run(project, *flags, processes):
    """Trains on some processes; one is this process itself."""
    if processes == 1:
        project.train(*flags)
    else:
        ranks = start_ranks([project.folder] * processes, 'train_liif.py', *COMMAND, *flags)
        assert [ended(rank) for rank in ranks] == [0] * processes, project.output()


def assert_close(checkpoint, other):
    """The same up to the rounding of sums in another order."""
    assert (checkpoint['epoch'], checkpoint['iteration']) == (other['epoch'], other['iteration'])
    for weights, expected in ((checkpoint['model']['sd'], other['model']['sd']), (checkpoint['ema'], other['ema'])):
        for key in expected:
            torch.testing.assert_close(weights[key], expected[key], rtol=1e-3, atol=1e-5)


def losses_on_gpus(project, gpus, *flags):
    """The loss of each epoch, trained by this process on the GPUs that --gpu names."""
    project.train('--gpu', gpus, *flags)
    return losses(project)


def losses(project):
    return list(project.events()['loss'].values())

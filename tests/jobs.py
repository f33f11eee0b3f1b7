"""Training on several processes or GPUs, and how its result is compared with that of one."""

import pytest
import torch

# Five photos in batches of 4: in an epoch's second batch, of one photo, all ranks but the first have an empty share.
# Three photos are validated: of four ranks one has none.
CHANGES = {'train_dataset.batch_size': 4, 'epoch_max': 10, 'ema': 0.9, 'grad_clip': 0.5}

needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason='there are no two GPUs')


def torchrun(processes):
    return ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']


def run(project, *flags, processes):
    """Trains on some processes; one is this process itself."""
    if processes == 1:
        project.train(*flags)
    else:
        assert project.start(*flags, launcher=torchrun(processes)).wait(100) == 0, project.output()


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

"""Real training processes, killed at random moments of their lives and resumed: nothing is lost, nothing changes.

KILLS=100 in the environment kills so many, instead of a few.
"""

import os
import random
import signal
import time

import pytest
import torch
from processes import ended, fork
from projects import COMMAND, Project, assert_same

KILLS = int(os.environ.get('KILLS', 4))
FEATURES = {'ema': 0.9, 'epoch_save': 2, 'train_dataset.num_workers': 1}


def start(project):
    """Trains on in another process."""
    return fork(project.folder, 'train_liif.py', *COMMAND, '--resume', streams=('output', 'output'))


def seconds_to(project, process, text):
    """Waits until log.txt holds `text`: how long that took."""
    begin = time.monotonic()
    while text not in (project.run / 'log.txt').read_text():
        assert process.is_alive() and time.monotonic() < begin + 100, project.output()
        time.sleep(0.01)
    return time.monotonic() - begin


def finish(project, epochs):
    """Trains on, undisturbed, until `epochs` are done."""
    project.change({**FEATURES, 'epoch_max': epochs})
    assert ended(start(project)) == 0, project.output()


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_in_the_weights_of_an_undisturbed_run(tmp_path):
    rng, done, codes = random.Random(0), 0, []
    project = Project(tmp_path / 'killed')
    finish(project, 1)
    project.change({**FEATURES, 'epoch_max': 10 ** 6})  # it never ends by itself
    process = start(project)
    start_up = seconds_to(project, process, 'epoch 2/1000000, train')
    process.kill()
    process.join()
    for i in range(KILLS):
        process = start(project)
        time.sleep(rng.uniform(0, 2 * start_up))
        assert process.is_alive(), project.output()
        os.kill(process.pid, (signal.SIGTERM, signal.SIGKILL)[i % 2])
        codes.append(ended(process))
        # before training begins, which takes a moment, SIGTERM ends it as it ends any process
        assert codes[-1] in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM), project.output()
        checkpoint = torch.load(project.run / 'epoch-last.pth', weights_only=True)
        assert checkpoint['epoch'] >= done
        done = checkpoint['epoch']
    finish(project, done + 1)
    undisturbed = Project(tmp_path / 'undisturbed')
    finish(undisturbed, done + 1)
    assert_same(project.checkpoints(), undisturbed.checkpoints())
    print(f'{KILLS} kills survived in {done} epochs: {codes.count(-signal.SIGKILL)} by SIGKILL, '
          f'{len(codes) - codes.count(-signal.SIGKILL)} by SIGTERM')

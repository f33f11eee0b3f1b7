"""Real training processes, killed at random moments of their lives and resumed: nothing is lost, nothing changes.

KILLS=100 in the environment kills so many, instead of a few.
"""

import os
import random
import signal
import time

import pytest
import torch
from projects import Project, assert_same

KILLS = int(os.environ.get('KILLS', 4))
FEATURES = {'ema': 0.9, 'epoch_save': 2, 'train_dataset.num_workers': 1}


def seconds_to(project, process, text):
    """Waits until log.txt holds `text`: how long that took."""
    start = time.monotonic()
    while not (project.run.exists() and text in (project.run / 'log.txt').read_text()):
        assert process.poll() is None and time.monotonic() < start + 100, project.output()
        time.sleep(0.01)
    return time.monotonic() - start


def finish(project, epochs):
    """Trains on, undisturbed, until `epochs` are done."""
    project.change({**FEATURES, 'epoch_max': epochs})
    process = project.start('--resume')
    assert process.wait(300) == 0, project.output()


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_in_the_weights_of_an_undisturbed_run(tmp_path):
    rng, done, codes = random.Random(0), 0, []
    project = Project(tmp_path / 'killed', {**FEATURES, 'epoch_max': 10 ** 6})  # it never ends by itself
    (project.run / 'log.txt').parent.mkdir(parents=True)
    (project.run / 'log.txt').touch()
    process = project.start('--resume')
    start_up = seconds_to(project, process, 'epoch 1/1000000, train')  # after it is saved for the first time
    process.kill()
    process.wait()
    for i in range(KILLS):
        process = project.start('--resume')
        time.sleep(rng.uniform(0, 2 * start_up))
        assert process.poll() is None, project.output()
        process.send_signal((signal.SIGTERM, signal.SIGKILL)[i % 2])
        codes.append(process.wait(60))
        # before Python runs, which takes a moment, SIGTERM ends it as it ends any process
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

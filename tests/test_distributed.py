"""Several processes, as torchrun starts them: what comes out does not depend on their number."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jobs import CHANGES, assert_close, losses, losses_on_gpus, needs_two_gpus, run, start_ranks, torchrun
from paths import ROOT
from processes import ended
from projects import COMMAND, Project

pytestmark = pytest.mark.slow  # they start jobs of several processes


@pytest.fixture(scope='module')
def projects(tmp_path_factory):
    """The same training on one and four processes."""
    made = {n: Project(tmp_path_factory.mktemp(f'on-{n}'), CHANGES) for n in (1, 4)}
    for processes, project in made.items():
        run(project, processes=processes)
    return made


def wait_for(project, process, condition):
    start = time.monotonic()
    while not condition():
        assert process.poll() is None and time.monotonic() < start + 60, project.output()
        time.sleep(0.02)


def children(process):
    """The ids of the processes that a process has started."""
    return [int(pid) for pid in Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()]


# --- torchrun --------------------------------------------------------------------------------------


def test_the_loss_curve_of_twenty_iterations_does_not_depend_on_the_number_of_processes(projects):
    found, expected = (losses(projects[n]) for n in (4, 1))
    assert len(found) == 10
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_weights_after_twenty_iterations_do_not_depend_on_the_number_of_processes(projects):
    assert_close(projects[4].checkpoint(), projects[1].checkpoint())


def test_validation_does_not_depend_on_the_number_of_processes(projects):
    psnr, expected = (list(projects[n].events()['psnr'].values()) for n in (4, 1))
    assert psnr == pytest.approx(expected, abs=1e-3)


def test_the_first_process_alone_writes(projects):
    names = sorted(path.name for path in projects[4].run.iterdir())
    assert names == ['config.yaml', 'epoch-best.pth', 'epoch-last.pth', 'lock', 'log.txt', 'tensorboard']
    assert len(list((projects[4].run / 'tensorboard').iterdir())) == 1
    assert len(projects[4].log()) == 11
    output = projects[4].output()
    assert output.count('running on the CPU') == output.count('epoch 5/10, train:') == 1


def test_a_run_of_a_single_epoch_ends_well_under_torchrun(tmp_path):
    project = Project(tmp_path, {**CHANGES, 'epoch_max': 1})
    assert project.start(launcher=torchrun(2)).wait(120) == 0, project.output()
    assert project.output().count('next: ') == 1


def test_a_batch_size_that_the_processes_do_not_divide_is_an_error(tmp_path):
    project = Project(tmp_path, {**CHANGES, 'train_dataset.batch_size': 3})
    assert [ended(rank) for rank in start_ranks([tmp_path] * 2, 'train_liif.py', *COMMAND)] == [2, 2]
    assert 'error: tiny.yaml: train_dataset: batch_size 3 must be a multiple of the 2 processes' in project.output()
    assert not project.run.exists()


def test_a_process_that_dies_ends_the_job_and_another_number_of_processes_goes_on(tmp_path, projects):
    project = Project(tmp_path, {**CHANGES, 'epoch_max': 10 ** 6})
    job = project.start(launcher=torchrun(2))
    wait_for(project, job, (project.run / 'epoch-last.pth').exists)
    os.kill(children(job)[1], signal.SIGKILL)
    assert job.wait(60) != 0
    done = project.checkpoint()['epoch']
    project.change({**CHANGES, 'epoch_max': done + 2})
    run(project, '--resume', processes=1)
    undisturbed = Project(tmp_path / 'undisturbed', {**CHANGES, 'epoch_max': done + 2})
    run(undisturbed, processes=1)
    assert_close(project.checkpoint(), undisturbed.checkpoint())


def test_a_scheduler_that_signals_all_processes_of_a_job_loses_no_iteration(tmp_path):
    long = {**CHANGES, 'train_dataset.dataset.args.repeat': 100, 'epoch_max': 1,  # 125 iterations
            'optimizer': {'name': 'sgd', 'args': {'lr': 0.001}}}  # larger steps would make much of rounding errors
    project, undisturbed = Project(tmp_path, long), Project(tmp_path / 'undisturbed', long)
    job = project.start(launcher=torchrun(2))
    wait_for(project, job, lambda: re.search(r' [1-9]\d*/125 ', project.output()))
    for pid in (*children(job), job.pid):  # the ranks get a second signal from torchrun
        os.kill(pid, signal.SIGTERM)
    assert job.wait(60) != 0
    assert 0 < project.checkpoint()['iteration'] < 125
    assert 'continue with the same command and --resume' in project.log()[-1]
    run(project, '--resume', processes=1)
    run(undisturbed, processes=1)
    assert_close(project.checkpoint(), undisturbed.checkpoint())


OWN_ENCODER = '''
from torch import nn
from models import register

@register('with-a-head')
class WithAHead(nn.Module):
    out_dim, receptive_radius = 4, 1

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 10)  # a classifier's, of no use here

    def forward(self, x):
        return self.body(x)
'''


def test_an_own_encoder_with_an_idle_layer_trains_on_two_processes_as_on_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'idle_layer.py').write_text(OWN_ENCODER)
    made = [Project(tmp_path / name, {**CHANGES, 'epoch_max': 2, 'model.args.encoder_spec': {'name': 'with-a-head'}})
            for name in ('one', 'two')]
    for processes, project in enumerate(made, 1):
        run(project, '--import', 'idle_layer', processes=processes)
    assert_close(made[1].checkpoint(), made[0].checkpoint())


def test_machines_that_do_not_share_the_folder_are_an_error(tmp_path):
    machines = [Project(tmp_path / name, {**CHANGES, 'epoch_max': 1}) for name in ('first', 'second')]
    machines[0].train()
    for machine in machines:
        machine.change({**CHANGES, 'epoch_max': 2})
    ranks = start_ranks([machine.folder for machine in machines], 'train_liif.py', *COMMAND, '--resume')
    assert [ended(rank) for rank in ranks] == [2, 2]
    for machine in machines:
        assert 'error: save/_tiny: the machines do not see the same checkpoint there' in machine.output()


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
def test_a_process_ends_without_the_threads_of_its_collectives(tmp_path):
    """One of them that still holds a tensor when Python ends would abort the process, though all went well."""
    script = tmp_path / 'ends.py'
    script.write_text('''
import os
import torch
from devices import Parallel

def threads():
    return set(os.listdir('/proc/self/task'))

before = threads()
parallel = Parallel('cpu')
collectives = threads() - before
model = torch.nn.Linear(2, 2)
net = parallel.wrap(model)
optimizer = torch.optim.Adam(model.parameters())
net(torch.ones(1, 2)).sum().backward()
optimizer.step()
parallel.any(False)
parallel.close()
print(len(collectives), len(collectives & threads()))
''')
    done = subprocess.run([sys.executable, *torchrun(1), script],
                          env={**os.environ, 'PYTHONPATH': str(ROOT)},
                          capture_output=True, text=True, check=True)
    started, left = map(int, done.stdout.split()[-2:])
    assert started > 0 and left == 0


@needs_two_gpus
def test_two_processes_on_gpus_give_the_losses_of_one(tmp_path):
    project = Project(tmp_path / 'two', CHANGES)
    run(project, '--gpu', '0', processes=2)
    assert losses(project) == pytest.approx(losses_on_gpus(Project(tmp_path / 'one', CHANGES), '0'), rel=1e-4)

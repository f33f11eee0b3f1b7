"""Several GPUs of one process, by DataParallel: what comes out does not depend on their number; and a single GPU."""

import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from unittest import mock

import pytest
import specs
import torch
from jobs import CHANGES, assert_close, losses, losses_on_gpus, needs_two_gpus
from projects import Project, before_step
from torch import nn
from torch.nn.parallel import replicate

from cli import run_cli
from devices import Parallel
from errors import UserError
from training.run import Config
from training.trainer import Trainer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path, CHANGES)


@pytest.fixture(scope='module')
def on_cpu(tmp_path_factory):
    """The same project, trained on the CPU."""
    project = Project(tmp_path_factory.mktemp('on-cpu'), CHANGES)
    project.train()
    return project


class TwoReplicas(nn.Module):
    """What DataParallel does with two GPUs, in memory: replicas in two threads, each with half of the batch."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        halves = list(zip(*(tensor.chunk(2) for tensor in inputs), strict=True))
        replicas = replicate(self.model, list(range(len(halves))))
        with ThreadPoolExecutor(2) as pool:
            return torch.cat(list(pool.map(lambda replica, half: replica(*half), replicas, halves)))


def copies(tensors, devices, detach=False):
    return [[tensor.clone() for tensor in tensors] for _ in devices]


def test_training_two_replicas_in_threads_equals_training_one_model(project, on_cpu, monkeypatch):
    replication = sys.modules['torch.nn.parallel.replicate']
    monkeypatch.setattr(replication, '_broadcast_coalesced_reshape', copies)
    monkeypatch.setattr(Parallel, 'wrap', lambda self, model, compiled, amp: TwoReplicas(model))
    project.train()
    assert losses(project) == pytest.approx(losses(on_cpu), rel=1e-4)
    assert_close(project.checkpoint(), on_cpu.checkpoint())


def test_several_indices_are_one_process_with_several_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    monkeypatch.setattr(torch.cuda, 'set_device', lambda device: None)
    parallel = Parallel('3,1')
    assert (parallel.rank, parallel.world, parallel.device) == (0, 1, torch.device('cuda', 3))
    with mock.patch.object(nn, 'DataParallel') as wrapped:
        parallel.wrap('model')
    wrapped.assert_called_once_with('model', [torch.device('cuda', 3), torch.device('cuda', 1)])
    with pytest.raises(UserError, match='compile: true works with one GPU, or with torchrun'):
        parallel.wrap('model', compiled=True)
    with pytest.raises(UserError, match='amp works with one GPU, or with torchrun'):
        parallel.wrap('model', amp='bf16')


@pytest.mark.parametrize('distributed, gpus', [(True, 1), (False, 2)], ids=['torchrun', 'DataParallel'])
def test_cuda_graphs_are_refused_on_several_gpus(distributed, gpus, tmp_path):
    cpu = torch.device('cpu')
    parallel = SimpleNamespace(distributed=distributed, devices=[cpu] * gpus, device=cpu)
    config = Config({}, specs.pixel(), {'name': 'adam', 'args': {'lr': 1e-3}}, 1, cuda_graphs=True)
    with pytest.raises(UserError, match='cuda_graphs works with one GPU'):
        Trainer(config, parallel, tmp_path)


# --- GPUs ------------------------------------------------------------------------------------------


@needs_gpu
def test_a_gpu_gives_the_losses_of_the_cpu(project, on_cpu):
    assert losses_on_gpus(project, '0') == pytest.approx(losses(on_cpu), rel=1e-3)


@needs_gpu
def test_bf16_on_a_gpu_gives_losses_close_to_float32(project, on_cpu):
    assert losses_on_gpus(project, '0', '--amp', 'bf16') == pytest.approx(losses(on_cpu), rel=0.05)


@needs_gpu
def test_batches_come_to_a_gpu_in_pinned_memory(project):
    pinned, step = [], Trainer.step

    def recorded(trainer, batch, *args):
        pinned.extend(value.is_pinned() for value in batch.values())
        return step(trainer, batch, *args)

    with mock.patch.object(Trainer, 'step', recorded):
        project.train('--gpu', '0')
    assert len(pinned) == 20 * 4 and all(pinned)


@needs_gpu
def test_a_gpu_without_memory_left_is_one_line(project, capsys):
    with before_step(1, lambda trainer: torch.empty(1 << 50, device='cuda')), pytest.raises(SystemExit) as end:
        run_cli(lambda: project.train('--gpu', '0'))
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: out of GPU memory: lower batch_size')


@needs_two_gpus
def test_two_gpus_of_one_process_give_the_losses_of_one(tmp_path):
    one, two = (losses_on_gpus(Project(tmp_path / gpus, CHANGES), gpus) for gpus in ('0', '0,1'))
    assert two == pytest.approx(one, rel=1e-4)

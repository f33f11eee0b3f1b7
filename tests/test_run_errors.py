"""Mistakes in how a run is started, and what it meets: one line on stderr that says what is wrong, and where."""

import os
import re

import pytest
import torch
from processes import forked
from projects import Project, before_step, error, error_of_process, only_line

from cli import run_cli
from errors import UserError

# --- devices ---------------------------------------------------------------------------------------------------------


def with_two_gpus(project, monkeypatch, capsys, gpu):
    """The error that a machine with two GPUs would give."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: project.train('--gpu', gpu))
    assert end.value.code == 2
    return only_line(capsys.readouterr().err)


@pytest.mark.parametrize('gpu, index', [('2', 2), ('0,5', 5), ('-1', -1)])
def test_a_gpu_that_is_not_there_is_told_with_those_that_are(project, monkeypatch, capsys, gpu, index):
    assert with_two_gpus(project, monkeypatch, capsys, gpu) == f'error: --gpu: there is no GPU {index} (known: 0, 1)'


def test_a_gpu_may_be_named_once(project, monkeypatch, capsys):
    assert with_two_gpus(project, monkeypatch, capsys, '0,0') == 'error: --gpu 0,0 names a GPU twice'


@pytest.mark.parametrize('gpu', ['all', '0;1', ''])
def test_a_gpu_is_given_by_its_index(project, monkeypatch, capsys, gpu):
    line = with_two_gpus(project, monkeypatch, capsys, gpu)
    assert line == f"error: --gpu must be 'cpu' or indices such as 0 or 0,1, not {gpu!r}"


def test_where_a_gpus_memory_ends_the_error_says_what_to_lower(project, capsys):
    def exhaust(trainer):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ...')
    with before_step(2, exhaust), pytest.raises(SystemExit) as end:
        run_cli(project.train)
    assert end.value.code == 2
    assert only_line(capsys.readouterr().err).startswith('error: out of GPU memory: lower batch_size or sample_q')


def test_where_the_memory_ends_on_a_cpu_the_error_says_what_to_lower(project, capsys):
    with before_step(2, lambda trainer: torch.empty(1 << 50)), pytest.raises(SystemExit) as end:
        run_cli(project.train)
    assert end.value.code == 2
    assert only_line(capsys.readouterr().err) == (
        'error: out of memory: lower batch_size or sample_q in training, eval_bsize in validation on samples, or TILE '
        'in models/predict.py for whole images')


@pytest.mark.skipif(torch.cuda.is_available(), reason='CUDA is available')
@pytest.mark.parametrize('gpu', ['0', '0,1', '7'])
def test_without_cuda_training_runs_on_the_cpu_and_says_so_in_one_line(project, gpu):
    project.change({'epoch_max': 1})
    done = forked(project.folder, 'train_liif.py', '--config', 'tiny.yaml', '--gpu', gpu)
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if 'CPU' in line] == [
        'running on the CPU (CUDA is not available)']


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A project whose run has ended; tests may change its config, but the run refuses what they then ask for."""
    project = Project(tmp_path_factory.mktemp('trained'))
    project.train()
    return project


def test_a_wrong_path_to_the_config_is_told_before_the_state_of_the_runs_folder(trained):
    for flags in ([], ['--resume'], ['--overwrite']):
        assert error(trained, '--name', '_tiny', '--config', 'large.yaml', *flags) == (
            'large.yaml: cannot be read (No such file or directory)')


def test_a_run_that_is_there_is_not_replaced_unasked(trained):
    trained.change({})
    message = 'save/_tiny holds a run: continue it with --resume, or replace it with --overwrite'
    assert error(trained) == message
    last = (trained.run / 'epoch-last.pth').rename(trained.run / 'epoch-7.pth')  # another is a run as well
    assert error(trained) == message
    last.rename(trained.run / 'epoch-last.pth')


def test_overwrite_replaces_a_run_of_which_only_a_damaged_checkpoint_is_left(project):
    project.run.mkdir(parents=True)
    (project.run / 'epoch-best.pth').write_bytes(b'half')
    project.train('--overwrite')
    assert project.checkpoint()['epoch'] == 3


def test_a_run_that_has_ended_cannot_be_resumed(trained):
    trained.change({})
    assert error(trained, '--resume') == 'tiny.yaml: epoch_max 3 is already reached (epoch 3)'


@pytest.mark.parametrize('changes, flags, key', [
    ({'train_dataset.batch_size': 4}, [], 'train_dataset.batch_size'),
    ({'train_dataset.wrapper.args.inp_size': 9}, [], 'train_dataset.wrapper.args.inp_size'),
    ({'optimizer.args.lr': 1}, [], 'optimizer.args.lr'),
    ({'model.args.imnet_spec.args.hidden_list': [9]}, [], 'model.args.imnet_spec.args.hidden_list'),
    ({'data_norm': None}, [], 'data_norm'), ({'ema': 0.9}, [], 'ema'), ({'seed': 1}, [], 'seed'),
    ({'loss': [{'name': 'mse'}]}, [], 'loss'),
    ({}, ['--seed', '1'], 'seed'), ({}, ['--amp', 'bf16'], 'amp'), ({}, ['--tf32'], 'tf32')])
def test_what_changes_the_weights_cannot_be_changed_on_resuming(trained, changes, flags, key):
    trained.change({**changes, 'epoch_max': 4})
    assert error(trained, '--resume', *flags).startswith(
        f"tiny.yaml: {key} differs from the run's own (save/_tiny/config.yaml); restore it")


@pytest.mark.parametrize('link', ['save', 'save/_tiny'])
def test_of_a_save_folder_on_a_disk_that_is_not_mounted_the_link_is_named(project, link):
    (project.folder / link).parent.mkdir(exist_ok=True)
    (project.folder / link).symlink_to('/nowhere/disk')
    assert error(project) == (f'{link}: is a link to /nowhere/disk, which does not exist; mount its disk, or '
                              'change the link')


def test_a_save_folder_may_be_a_link_to_another_disk(project):
    (project.folder / 'disk').mkdir()
    (project.folder / 'save').symlink_to('disk')
    project.train()
    assert (project.folder / 'disk/_tiny/epoch-last.pth').exists()


@pytest.mark.parametrize('rank, world', [('0', '2'), ('1', '2'), ('3', '1')])
def test_several_processes_must_be_started_by_torchrun(project, monkeypatch, rank, world):
    monkeypatch.setenv('RANK', rank)
    monkeypatch.setenv('WORLD_SIZE', world)
    with pytest.raises(UserError, match=f'RANK is {rank} and WORLD_SIZE {world}, but not by torchrun: start several'):
        project.train()


def test_one_process_whose_environment_says_so_trains(project, monkeypatch):
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '1')
    project.change({'epoch_max': 1})
    project.train()
    assert project.checkpoint()['epoch'] == 1


def test_a_cosine_schedule_cannot_be_resumed_with_another_epoch_max(tmp_path):
    project = Project(tmp_path, {'cosine_lr': {}})
    project.train()
    project.change({'cosine_lr': {}, 'epoch_max': 4})
    assert error(project, '--resume').startswith("tiny.yaml: epoch_max differs from the run's own")


@pytest.mark.parametrize('obstacle', ['save', 'save/_tiny', 'save/_tiny/tensorboard'])
def test_a_save_folder_that_cannot_be_made_is_told_with_the_reason(project, obstacle):
    (project.folder / obstacle).parent.mkdir(parents=True, exist_ok=True)
    (project.folder / obstacle).write_text('in the way')
    assert re.fullmatch(r'save(/_tiny(/tensorboard)?)?: cannot be read or written \(.*\)', error(project))


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_save_folder_must_be_one_where_the_user_may_write(project):
    (project.folder / 'save').mkdir(mode=0o500)
    assert error(project) == 'save/_tiny: cannot be read or written (Permission denied)'


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    changes = {'epoch_val': None, 'model.args.imnet_spec.args.hidden_list': [64]}  # the checkpoint is the largest file
    project = Project(tmp_path, {**changes, 'epoch_max': 1})
    project.train()
    before = (project.run / 'epoch-last.pth').read_bytes()
    project.change(changes)
    assert error_of_process(project, '--resume', largest_file=len(before) // 2) == (
        'save/_tiny/epoch-last.pth: cannot be written (File too large)')
    assert (project.run / 'epoch-last.pth').read_bytes() == before
    assert sorted(path.name for path in project.run.iterdir()) == [
        'config.yaml', 'epoch-last.pth', 'lock', 'log.txt', 'tensorboard']


def test_a_loss_that_is_not_finite_ends_the_run_with_its_iteration(project):
    project.change({'optimizer': {'name': 'sgd', 'args': {'lr': 1e30}}})
    assert re.fullmatch('the loss is (inf|nan) in epoch 1/3, iteration [23]: lower lr or set grad_clip; save/_tiny '
                        'keeps what was saved before', error(project))


# --- the programs themselves -----------------------------------------------------------------------------------------


def test_a_program_of_its_own_ends_the_same(project):
    project.change({'epoch_mx': 1})
    assert error_of_process(project).startswith("tiny.yaml: unknown key 'epoch_mx', did you mean")

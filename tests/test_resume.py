"""Stopped, killed, overwritten or continued: a run ends in the weights of an undisturbed one, bit for bit."""

import os
import signal
from types import SimpleNamespace
from unittest import mock

import pytest
import specs
import torch
from projects import Killed, Project, assert_same, before_step, error_of_process, kill, stop

from devices import Parallel
from errors import UserError
from models import checkpoint
from training import run, trainer
from training.start import restore

FEATURES = {
    'adam': {'ema': 0.9, 'epoch_save': 2, 'cosine_lr': {'warmup': 1, 'hold': 2},
             'train_dataset.wrapper.args.sample_q': None},
    'sgd': {'optimizer': {'name': 'sgd', 'args': {'lr': 1e-2, 'momentum': 0.9}}, 'grad_clip': 0.1, 'epoch_val': 2,
            'multi_step_lr': {'milestones': [1, 2], 'gamma': 0.5}}}


# --- one run in a folder ---------------------------------------------------------------------------


def test_a_run_is_locked_before_its_checkpoint_is_read(project):
    stop(project, 2)
    refused = []

    def open_run(*args):
        refused.extend(error_of_process(project, flag) for flag in ('--resume', '--overwrite'))
        return run.open_run(*args)

    with mock.patch('train_liif.open_run', open_run):
        project.train('--resume')
    assert refused == ['save/_tiny: another process trains there; wait until it ends, or give this run a --name or '
                       '--tag of its own'] * 2


# --- stopped and resumed ---------------------------------------------------------------------------


def test_what_the_model_draws_is_drawn_again_after_stopping(tmp_path, undisturbed):
    features = {'model.args.encoder_spec': {
        'name': 'swinir', 'args': {'embed_dim': 4, 'depths': [2], 'num_heads': [2], 'window': 4}}}
    project = Project(tmp_path, features)
    stop(project, 3)
    torch.manual_seed(1)
    project.train('--resume')
    assert_same(project.checkpoints(), undisturbed(features))


def test_every_process_and_every_step_draws_its_own():
    def drawn(rank, iteration):
        trainer.Trainer.seed_step(SimpleNamespace(
            config=SimpleNamespace(seed=0), epoch=0, iteration=iteration, parallel=SimpleNamespace(rank=rank)))
        return torch.rand(()).item()

    assert len({drawn(rank, iteration) for rank in range(3) for iteration in range(3)}) == 9
    assert drawn(1, 2) == drawn(1, 2)


@pytest.mark.parametrize('features', FEATURES.values(), ids=FEATURES)
def test_stopping_three_times_changes_nothing(tmp_path, undisturbed, features):
    project = Project(tmp_path, features)
    for step in (2, 1, 3):
        stop(project, step, '--resume')
    project.train('--resume')
    assert_same(project.checkpoints(), undisturbed(features))


@pytest.mark.parametrize('step', [1, 3, 5, 9])  # at the start, at the end of an epoch, in one, in the last
def test_stopping_in_any_iteration_changes_nothing(project, undisturbed, step):
    stop(project, step)
    project.train('--resume')
    assert_same(project.checkpoints(), undisturbed({}))


def test_stopping_with_workers_changes_nothing(tmp_path, undisturbed):
    project = Project(tmp_path, {'train_dataset.num_workers': 2})
    stop(project, 4)
    project.train('--resume')
    assert_same(project.checkpoints(), undisturbed({}))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run_after_its_iteration_with_a_line_that_says_how_to_go_on(project, capsys, number):
    assert stop(project, 5, number=number) == 128 + number
    assert (project.checkpoint()['epoch'], project.checkpoint()['iteration']) == (1, 2)
    line = 'stopped after epoch 2/3, iteration 2: continue with the same command and --resume'
    assert project.log()[-1] == capsys.readouterr().out.splitlines()[-1] == line
    project.train('--resume')
    continued, epoch, *_ = project.log()[project.log().index(line) + 1:]
    assert continued.startswith('save/_tiny: continues with epoch 2/3, iteration 3; ')
    assert epoch.startswith('epoch 2/3, train: ')


@pytest.mark.parametrize('first', [signal.SIGTERM, signal.SIGINT])
def test_after_a_first_signal_ctrl_c_ends_the_process_at_once(project, first):
    handlers = []

    def interrupt(trainer):
        signal.raise_signal(first)
        handlers.append(signal.getsignal(signal.SIGINT))

    with before_step(1, interrupt), pytest.raises(SystemExit):
        project.train()
    assert handlers == [signal.SIG_DFL]


@pytest.mark.parametrize('second', [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_or_a_scheduler_that_sends_two_signals_loses_nothing(project, second):
    def interrupt(trainer):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(second)

    with before_step(5, interrupt), pytest.raises(SystemExit):
        project.train()
    assert (project.checkpoint()['epoch'], project.checkpoint()['iteration']) == (1, 2)


def test_a_signal_during_validation_is_not_kept_waiting(project, undisturbed):
    scored, score = [], trainer.eval_images

    def images(*args, **kwargs):
        for image in score(*args, **kwargs):
            scored.append(image)
            signal.raise_signal(signal.SIGTERM)
            yield image

    with mock.patch.object(trainer, 'eval_images', images), pytest.raises(SystemExit):
        project.train()
    assert len(scored) == 1
    assert (project.checkpoint()['epoch'], project.checkpoint()['iteration']) == (0, 3)
    project.train('--resume')
    assert any(line.startswith('save/_tiny: continues with epoch 1/3, validation; ') for line in project.log())
    assert_same(project.checkpoints(), undisturbed({}))
    assert sorted(project.events()['psnr']) == [1, 2, 3]


@pytest.mark.parametrize('step', [1, 4, 6])  # in the first epoch, in the first and the last step of another
def test_a_kill_in_an_iteration_changes_nothing(project, undisturbed, step):
    with before_step(step, kill), pytest.raises(Killed):
        project.train()
    project.train('--resume')
    assert_same(project.checkpoints(), undisturbed({}))


@pytest.mark.parametrize('rename, when', [  # of config.yaml and, in two epochs, of five checkpoints
    *((rename, 'before') for rename in range(1, 7)), (5, 'after')])
def test_a_kill_as_a_file_is_saved_changes_nothing(tmp_path, undisturbed, rename, when):
    project = Project(tmp_path, {'epoch_save': 2, 'epoch_max': 2})
    replace, count = os.replace, iter(range(1, 100))

    def killing(*args):
        fatal = next(count) == rename
        if not fatal or when == 'after':
            replace(*args)
        if fatal:
            raise Killed

    with mock.patch.object(os, 'replace', killing), pytest.raises(Killed):
        project.train()
    project.train('--resume')
    assert_same(project.checkpoints(), undisturbed({'epoch_save': 2, 'epoch_max': 2}))


def test_a_run_whose_last_checkpoint_was_deleted_goes_on_from_the_newest(tmp_path, undisturbed):
    project = Project(tmp_path, {'epoch_save': 2})
    project.train()
    (project.run / 'epoch-last.pth').unlink()
    (project.run / 'epoch-best.pth').write_bytes((project.run / 'epoch-2.pth').read_bytes())
    first = project.checkpoint(2)
    torch.save({**first, 'epoch': 1}, project.run / 'epoch-best.pth')  # written later, but not as far
    project.train('--resume')
    assert [line for line in project.log() if 'continues with epoch 3/3, iteration 1' in line]
    expected = undisturbed({'epoch_save': 2})
    assert_same({'epoch-last.pth': project.checkpoint()}, {'epoch-last.pth': expected['epoch-last.pth']})


def test_what_a_killed_process_left_half_written_is_removed(project):
    stop(project, 1)
    for name in ('.0123456789abcdef.tmp', 'notes.tmp'):
        (project.run / name).write_bytes(b'half')
    project.train('--resume')
    assert [path.name for path in project.run.glob('*.tmp')] == ['notes.tmp']


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path, undisturbed):
    project = Project(tmp_path, {'epoch_max': 1})
    project.train()
    project.change({})
    project.train('--resume')
    assert_same(project.checkpoints(), undisturbed({}))


def test_resume_knows_a_number_written_another_way_and_data_that_moved(project, undisturbed):
    project.change({'epoch_max': 1, 'optimizer.args.lr': '1e-3'})
    project.train()
    (project.folder / 'photos').rename(project.folder / 'moved')
    project.change({'train_dataset.dataset.args.root_path': 'moved', 'val_dataset.dataset.args.root_path': './moved'})
    project.train('--resume')
    weights = project.checkpoint()['model']['sd']
    assert_same(dict(weights), dict(undisturbed({})['epoch-last.pth']['model']['sd']))


@pytest.mark.parametrize('function, error', [
    ('training.trainer.Trainer.validate', UserError), ('train_liif.log_previews', RuntimeError)])
def test_an_epoch_whose_validation_fails_is_not_lost(project, undisturbed, function, error):
    with mock.patch(function, side_effect=error('no')), pytest.raises(error):
        project.train()
    with mock.patch.object(trainer.Trainer, 'step', side_effect=AssertionError('trains again')), \
            pytest.raises(AssertionError):
        project.train('--resume')
    assert project.checkpoint()['epoch'] == 1
    project.train('--resume')
    assert_same(project.checkpoint(), undisturbed({})['epoch-last.pth'])


def test_resume_starts_a_run_where_there_is_none(project, undisturbed):
    project.train('--resume')
    assert_same(project.checkpoints(), undisturbed({}))


def test_resume_keeps_the_options_of_the_run(project):
    stop(project, 1, '--seed', '3', '--amp', 'bf16')
    with before_step(1, lambda trainer: stopped.append(trainer.config)):
        stopped = []
        project.train('--resume')
    assert (stopped[0].seed, stopped[0].amp) == (3, 'bf16')


def test_resume_allows_changes_that_the_weights_do_not_see(project, undisturbed):
    stop(project, 2)
    project.change({'epoch_max': 4, 'epoch_val': 3, 'epoch_save': 1, 'seed': 0, 'cuda_graphs': True,
                    'optimizer.args.lr': 0.001, 'train_dataset.num_workers': 1,
                    'train_dataset.dataset.args.cache': 'in_memory'})
    project.train('--resume')
    assert_same(project.checkpoint()['model']['sd'], undisturbed({'epoch_max': 4})['epoch-last.pth']['model']['sd'])


# --- overwritten -----------------------------------------------------------------------------------


def test_overwrite_leaves_nothing_of_the_run_before(tmp_path, undisturbed):
    project = Project(tmp_path, {'epoch_save': 1, 'seed': 1})
    project.train()
    project.change({})
    project.train('--overwrite')
    assert_same(project.checkpoints(), undisturbed({}))
    assert len(project.log()) == 4
    assert len(list((project.run / 'tensorboard').iterdir())) == 1


def test_a_new_run_keeps_the_log_of_one_whose_checkpoints_are_gone_but_not_its_curves(project, undisturbed):
    project.change({'epoch_max': 4})
    project.train()
    log = project.log()
    for path in project.run.glob('epoch-*.pth'):
        path.unlink()
    project.change({})
    project.train('--resume')
    assert_same(project.checkpoints(), undisturbed({}))
    assert len(log) == 5 and project.log()[:5] == log and len(project.log()) == 9
    assert project.events()['loss'].keys() == {1, 2, 3}


@pytest.mark.parametrize('iteration', [0, 1])
def test_a_run_is_not_resumed_with_other_images(project, iteration):
    stop(project, 3 + iteration)
    (project.folder / 'photos/4.png').unlink()
    with pytest.raises(UserError, match='has 5 samples in an epoch, but train_dataset now has 4: restore the images'):
        project.train('--resume')


@pytest.mark.parametrize('mistake', [{'model.name': 'b-liif'}, {'val_dataset.dataset.args.root_path': 'nowhere'}])
def test_overwrite_leaves_the_run_alone_if_the_new_one_cannot_start(project, undisturbed, mistake):
    project.train()
    project.change(mistake)
    with pytest.raises(UserError):
        project.train('--overwrite')
    assert_same(project.checkpoints(), undisturbed({}))
    assert len(project.log()) == 4


def test_adam_goes_on_as_this_config_has_it_from_another_memory_format(tmp_path, monkeypatch):
    def trainer_with(**options):
        config = run.Config({}, specs.pixel(), {'name': 'adam', 'args': {'lr': 1e-3}}, 1, **options)
        return trainer.Trainer(config, Parallel('cpu'), tmp_path)

    batch = {'inp': torch.rand(2, 3, 6, 6), 'gt': torch.rand(2, 3, 12, 12)}
    first = trainer_with()
    first.step(batch, 2, 2, None)
    first.save('last')
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, 'Adam', lambda *args, **options: adam(*args, **{**options, 'fused': True}))
    second = trainer_with(channels_last=True)
    restore(second, checkpoint.read(tmp_path / 'epoch-last.pth'), same_run=True)
    assert second.optimizer.param_groups[0]['fused']
    for parameter, state in second.optimizer.state.items():
        assert state['exp_avg'].stride() == parameter.stride()
    torch.testing.assert_close(second.step(batch, 2, 2, None), first.step(batch, 2, 2, None))
    for ours, expected in zip(second.model.parameters(), first.model.parameters(), strict=True):
        torch.testing.assert_close(ours, expected)

"""A user's mistake ends in one line on stderr and exit code 2: what is wrong, where, and what is allowed."""

import json
import os
import re

import pytest
import torch
from PIL import Image
from projects import Project, before_step, error, forked, only_line, write_photos

from cli import run_cli
from errors import UserError

PAIR = {'train_dataset.dataset': {'name': 'paired-image-folders', 'args': {'root_path_1': 'LR', 'root_path_2': 'HR'}},
        'train_dataset.wrapper': {'name': 'sr-implicit-paired', 'args': {'inp_size': 8, 'sample_q': 16}}}


# --- configs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('changes, message', [
    # unknown keys, with the nearest known one
    ({'epoch_mx': 3}, "tiny.yaml: unknown key 'epoch_mx', did you mean 'epoch_max'? (known: amp, channels_last, comp"),
    ({'train_dataset.batchsize': 3}, "tiny.yaml: train_dataset: unknown key 'batchsize', did you mean 'batch_size'?"),
    ({'train_dataset.wrapper.args.sample': 3}, "implicit-downsampled: unknown key 'sample', did you mean 'sample_q'?"),
    ({'train_dataset.wrapper.arg': {}}, "dataset sr-implicit-downsampled: unknown key 'arg', did you mean 'args'?"),
    ({'model.args.imnet': {}}, "tiny.yaml: model a-liif: unknown key 'imnet', did you mean 'imnet_spec'?"),
    ({'model.args.imnet_spec.args.k': 2}, "model mlp-mixture: unknown key 'k'"),
    ({'optimizer.args.learning_rate': 1}, "tiny.yaml: optimizer adam: unknown key 'learning_rate'"),
    ({'data_norm.input': {}}, "tiny.yaml: unknown key 'data_norm.input', did you mean 'data_norm.inp'?"),
    ({'data_norm.gt.std': [1]}, "tiny.yaml: data_norm.gt: unknown key 'std' (known: div, sub)"),
    ({'multi_step_lr': {'steps': [1]}}, "tiny.yaml: multi_step_lr: unknown key 'steps' (known: gamma, milestones)"),
    # missing keys
    ({'optimizer': None}, "tiny.yaml: missing key 'optimizer'"),
    ({'train_dataset.wrapper': None}, "tiny.yaml: train_dataset: missing key 'wrapper'"),
    ({'train_dataset.dataset.args.root_path': None}, "dataset image-folder: missing key 'root_path'"),
    ({'model.args.encoder_spec': None}, "tiny.yaml: model a-liif: missing key 'encoder_spec'"),
    ({'optimizer.args.lr': None}, "tiny.yaml: optimizer adam: missing key 'lr'"),
    ({'data_norm.inp.div': None}, "tiny.yaml: data_norm.inp: missing key 'div'"),
    ({'model.name': None}, 'tiny.yaml: a model must be given as name and args, not {'),
    ({'val_dataset': None}, 'tiny.yaml: epoch_val needs a val_dataset'),
    # wrong types
    ({'epoch_max': 'many'}, "tiny.yaml: epoch_max must be int, not 'many'"),
    ({'epoch_max': 2.5}, 'tiny.yaml: epoch_max must be int, not 2.5'),
    ({'train_dataset': 'photos'}, "tiny.yaml: train_dataset must be dict, not 'photos'"),
    ({'train_dataset.batch_size': [2]}, 'tiny.yaml: train_dataset: batch_size must be int, not [2]'),
    ({'train_dataset.wrapper.args.augment': 'often'}, "augment must be bool, not 'often'"),
    ({'train_dataset.dataset.args.cache': 'ram'}, "cache must be 'none' | 'bin' | 'in_memory', not 'ram'"),
    ({'train_dataset.dataset.args.root_path': [1]}, 'root_path must be a folder or a list of folders, not [1]'),
    ({'train_dataset.dataset.args': 'photos'}, 'train_dataset: a dataset must be given as name and args, not {'),
    ({'model.args': 'large'}, 'tiny.yaml: a model must be given as name and args, not {'),
    ({'model.args.imnet_spec.args.K': 'ten'}, "model mlp-mixture: K must be int, not 'ten'"),
    ({'optimizer.args.lr': 'high'}, "tiny.yaml: optimizer adam: lr must be float, not 'high'"),
    ({'optimizer.args.betas': [0.9, 'x']}, "tiny.yaml: optimizer adam: betas[1] must be float, not 'x'"),
    ({'optimizer.args.betas': [0.9]}, 'tiny.yaml: optimizer adam: betas must be two numbers, not [0.9]'),
    ({'multi_step_lr': {'milestones': 200}}, 'tiny.yaml: multi_step_lr: milestones must be list, not 200'),
    ({'amp': 'fp16'}, "tiny.yaml: amp must be 'bf16' or nothing, not 'fp16'"),
    # unknown names, with the list
    ({'model.name': 'aliif'}, "tiny.yaml: unknown model 'aliif', did you mean 'a-liif'? (known: a-liif, "),
    ({'model.args.encoder_spec.name': 'edsr-base'}, "unknown model 'edsr-base', did you mean 'edsr-baseline'?"),
    ({'train_dataset.dataset.name': 'folder'}, "unknown dataset 'folder', did you mean 'image-folder'? (known: im"),
    ({'optimizer.name': 'adamw'}, "tiny.yaml: unknown optimizer 'adamw', did you mean 'adam'? (known: adam, sgd)"),
    # values that cannot be
    ({'model.args.imnet_spec.args.K': 3}, 'a-liif: expansion_spec gives 2 weights (out_dim), imnet_spec has K = 3'),
    ({'train_dataset.wrapper.args.sample_q': 65}, 'sample_q must be at most 64, the pixels of a target of 8x8, not 65'),
    ({'train_dataset.wrapper.args.scale_min': 4}, 'scales must be 1 <= scale_min <= scale_max, not 4 and 3'),
    ({'train_dataset.wrapper.args.scale_min': 0.5}, 'scales must be 1 <= scale_min <= scale_max, not 0.5 and 3'),
    ({'train_dataset.wrapper.args.inp_size': 48}, 'photos/0.png: 50x40 pixels, but a crop takes 144x144 (5 of 5 '),
    ({'train_dataset.batch_size': 0}, 'tiny.yaml: train_dataset: batch_size must be at least 1, not 0'),
    ({'train_dataset.wrapper.args.inp_size': None}, 'samples of different sizes cannot form a batch: set inp_size'),
    ({'epoch_val': -1}, 'tiny.yaml: epoch_val must be at least 1, not -1'),
    ({'optimizer.args.lr': -1}, 'tiny.yaml: optimizer adam: Invalid learning rate: -1.0'),
    ({'data_norm.gt.div': [0]}, 'tiny.yaml: data_norm.gt: sub and div must hold a number or one for each channel'),
    ({'ema': 1}, 'tiny.yaml: ema must be between 0 and 1, not 1'),
    ({'grad_clip': -1}, 'tiny.yaml: grad_clip must be above 0, not -1'),
    ({'eval_type': 'set5-2'}, "tiny.yaml: eval_type must be div2k-SCALE or benchmark-SCALE, not 'set5-2'"),
    ({'cosine_lr': {}, 'multi_step_lr': {'milestones': []}}, 'multi_step_lr and cosine_lr exclude each other'),
    ({'cosine_lr': {'warmup': float('nan')}}, 'tiny.yaml: cosine_lr: warmup must be float, not nan'),
    ({'cosine_lr': {'warmup': -1}}, 'tiny.yaml: cosine_lr: warmup and hold must be 0 or more, not -1'),
    ({'optimizer.args.lr': float('nan')}, 'tiny.yaml: optimizer adam: lr must be float, not nan'),
    ({'data_norm.inp.sub': [float('inf')]}, 'tiny.yaml: data_norm.inp: sub and div must hold a number or one for each'),
    ({'data_norm': [1]}, 'tiny.yaml: data_norm must be dict or nothing, not [1]'),
    ({'cosine_lr': {'hold': 3}}, 'tiny.yaml: cosine_lr: hold must be below epoch_max, 3, not 3'),
])
def test_a_mistake_in_the_config(project, changes, message):
    project.change(changes)
    assert message in error(project)


ENCODER = {'name': 'edsr-baseline', 'args': {'n_resblocks': 1, 'no_upsampling': True}}
LIIF = {'name': 'mlp', 'args': {'out_dim': 3, 'hidden_list': [8]}}
MIXTURE = {'name': 'mlp-mixture', 'args': {'out_dim': 3, 'hidden_list': [8]}}


@pytest.mark.parametrize('changes, message', [
    ({'model.args.imnet_spec.args.hidden_list': ['a']}, "hidden_list[0] must be int, not 'a'"),
    ({'model.args.imnet_spec.args.hidden_list': [8.5]}, 'hidden_list[0] must be int, not 8.5'),
    ({'model.args.imnet_spec.args.hidden_list': [8, 0]}, 'model mlp-mixture: hidden_list[1] must be at least 1, not 0'),
    ({'model.args.expansion_spec.args.hidden_list': [-3]}, 'hidden_list[0] must be at least 1, not -3'),
    ({'model.args.imnet_spec.args.out_dim': 1}, 'imnet_spec: out_dim must be 3, for the colours, not 1'),
    ({'model.args.imnet_spec.args.K': 0}, 'model mlp-mixture: K must be at least 1, not 0'),
    ({'model.args.imnet_spec': LIIF}, 'imnet_spec: mlp does not fit here, where it must be a kind of MLPMixture'),
    ({'model.args.expansion_spec.name': 'mlp'}, 'expansion_spec: mlp does not fit here, where it must be a kind of Ex'),
    ({'model': {'name': 'liif', 'args': {'encoder_spec': ENCODER, 'imnet_spec': MIXTURE}}},
     'imnet_spec: mlp-mixture does not fit here, where it must be a kind of MLP'),
    ({'model.args.encoder_spec.args.n_feats': 0}, 'model edsr-baseline: n_feats must be at least 1, not 0'),
    ({'model.args.encoder_spec.args.n_resblocks': -1}, 'n_resblocks must be at least 1, not -1'),
    ({'model.args.encoder_spec': {'name': 'rcan', 'args': {'n_feats': 4}}}, 'reduction must be at most n_feats, 4'),
    ({'model.args.encoder_spec': {'name': 'rdn', 'args': {'RDNkSize': 4}}}, 'model rdn: RDNkSize must be odd, not 4'),
    ({'model.args.encoder_spec': {'name': 'liif', 'args': {'encoder_spec': ENCODER, 'imnet_spec': LIIF}}},
     'encoder_spec: liif is not an encoder'),
    ({'model': ENCODER}, 'model edsr-baseline is only a part of a model: give a decoder with an encoder_spec'),
    ({'model': {'name': 'liif', 'args': {'encoder_spec': ENCODER}}}, 'without an imnet_spec the encoder must make the'),
    ({'resume': 'a.pth', 'encoder_from': 'b.pth'}, 'tiny.yaml: resume, weights_from and encoder_from exclude'),
    ({'seed': 2 ** 70}, 'tiny.yaml: seed must be 0 or more, and below 2^63'),
    ({'eval_type': 'div2k-2'}, 'tiny.yaml: eval_type div2k-2 needs whole images: take it out, or sample_q'),
])
def test_a_mistake_in_the_model_or_in_how_it_is_measured(project, changes, message):
    project.change(changes)
    assert message in error(project)


@pytest.mark.parametrize('text, message', [
    ('', 'tiny.yaml: holds no keys'),
    ('- epoch_max', 'tiny.yaml: holds no keys'),
    ('epoch_max: [1', 'tiny.yaml: is not valid YAML ('),
    ('epoch_max: 1\nmodel: {}\nepoch_max: 2', "tiny.yaml: key 'epoch_max' is given twice, the second time in line 3"),
    ('model: {name: a, name: b}', "tiny.yaml: key 'name' is given twice, the second time in line 1"),
    ('model: !!python/object/apply:os.mkdir [run]', 'tiny.yaml: is not valid YAML ('),
])
def test_a_config_that_is_no_config(project, text, message):
    (project.folder / 'tiny.yaml').write_text(text)
    assert message in error(project)
    assert not (project.folder / 'run').exists()


def test_a_config_that_is_not_there(project):
    assert error(project, config='large.yaml') == 'large.yaml: cannot be read (No such file or directory)'


def test_an_error_quotes_a_long_value_in_short(project):
    values = ['x' * 100] * 1000
    project.change({'model.args.imnet_spec.args.hidden_list': {'a': [values] * 50}})
    assert len(error(project)) < 700


# --- images ----------------------------------------------------------------------------------------


def test_a_missing_folder(project):
    project.change({'train_dataset.dataset.args.root_path': 'load/nowhere'})
    assert 'train_dataset: dataset image-folder: load/nowhere: no such folder; put or link' in error(project)


def test_an_empty_folder(project):
    (project.folder / 'empty').mkdir()
    project.change({'val_dataset.dataset.args.root_path': 'empty'})
    assert 'val_dataset: dataset image-folder: empty: holds no images (.png, ' in error(project)


@pytest.mark.parametrize('cache, workers', [('none', 0), ('none', 1), ('none', 2), ('in_memory', 0), ('bin', 0)])
def test_a_corrupt_image(project, cache, workers):
    photo = project.folder / 'photos/4.png'
    photo.write_bytes(photo.read_bytes()[:-500])
    project.change({'train_dataset.dataset.args.cache': cache, 'train_dataset.num_workers': workers})
    assert 'photos/4.png: cannot be read as an image (' in error(project)


def test_a_mistake_that_shows_in_a_worker(project):
    project.change({'train_dataset.wrapper.args': {'sample_q': 2001}, 'train_dataset.num_workers': 1})
    assert re.fullmatch(r'photos/\d.png: sample_q must be at most 2000, the pixels of a target of 50x40, not 2001',
                        error(project))


def test_a_split_file_without_the_key(project):
    (project.folder / 'split.json').write_text(json.dumps({'train': ['0.png']}))
    project.change({'train_dataset.dataset.args.split_file': 'split.json',
                    'train_dataset.dataset.args.split_key': 'valid'})
    assert "split_file split.json: no split_key 'valid' (known: train)" in error(project)


def paired(project):
    """Makes the project's training images pairs: two photos of 20x25 and of 40x50."""
    project.change(PAIR)
    write_photos(project.folder / 'LR', 2, 20, 25)
    write_photos(project.folder / 'HR', 2, 40, 50)


def test_paired_folders_of_different_length(project):
    paired(project)
    (project.folder / 'HR/1.png').unlink()
    assert 'LR has 2 images, but HR has 1' in error(project)


def test_paired_folders_whose_names_do_not_match(project):
    paired(project)
    (project.folder / 'LR/0.png').rename(project.folder / 'LR/0x2.png')  # this one does
    (project.folder / 'LR/1.png').rename(project.folder / 'LR/2.png')
    assert 'LR/2.png and HR/1.png: names of a pair must agree' in error(project)


def test_pairs_whose_sizes_do_not_fit(project):
    paired(project)
    Image.new('RGB', (75, 40)).save(project.folder / 'HR/1.png')
    assert 'LR/1.png and HR/1.png: LR is 25x20, HR 75x40: HR must be 1, 2, 3, ... times LR' in error(project)


# --- devices ---------------------------------------------------------------------------------------


def with_two_gpus(project, monkeypatch, capsys, gpu):
    """The error that a machine with two GPUs would give."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: project.train('--gpu', gpu))
    assert end.value.code == 2
    return only_line(capsys.readouterr().err)


@pytest.mark.parametrize('gpu, index', [('2', 2), ('0,5', 5), ('-1', -1)])
def test_a_gpu_that_is_not_there(project, monkeypatch, capsys, gpu, index):
    assert with_two_gpus(project, monkeypatch, capsys, gpu) == f'error: --gpu: there is no GPU {index} (known: 0, 1)'


def test_a_gpu_that_is_named_twice(project, monkeypatch, capsys):
    assert with_two_gpus(project, monkeypatch, capsys, '0,0') == 'error: --gpu 0,0 names a GPU twice'


@pytest.mark.parametrize('gpu', ['all', '0;1', ''])
def test_a_gpu_that_is_no_index(project, monkeypatch, capsys, gpu):
    line = with_two_gpus(project, monkeypatch, capsys, gpu)
    assert line == f"error: --gpu must be 'cpu' or indices such as 0 or 0,1, not {gpu!r}"


def test_a_gpu_without_memory_left(project, capsys):
    def exhaust(trainer):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ...')
    with before_step(2, exhaust), pytest.raises(SystemExit) as end:
        run_cli(project.train)
    assert end.value.code == 2
    assert only_line(capsys.readouterr().err).startswith('error: out of GPU memory: lower batch_size or sample_q')


@pytest.mark.skipif(torch.cuda.is_available(), reason='CUDA is available')
@pytest.mark.parametrize('gpu', ['0', '0,1', '7'])
def test_without_cuda_training_runs_on_the_cpu_and_says_so_in_one_line(project, gpu):
    project.change({'epoch_max': 1})
    done = forked(project.folder, 'train_liif.py', '--config', 'tiny.yaml', '--gpu', gpu)
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if 'CPU' in line] == [
        'running on the CPU (CUDA is not available)']


# --- runs ------------------------------------------------------------------------------------------


def test_a_wrong_path_to_the_config_is_told_before_the_state_of_the_runs_folder(project):
    project.train()
    for flags in ([], ['--resume'], ['--overwrite']):
        assert error(project, '--name', '_tiny', *flags, config='large.yaml') == (
            'large.yaml: cannot be read (No such file or directory)')


@pytest.mark.parametrize('link', ['save', 'save/_tiny'])
def test_a_save_folder_on_a_disk_that_is_not_mounted(project, link):
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
def test_several_processes_that_torchrun_did_not_start(project, monkeypatch, rank, world):
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


def test_a_run_that_is_there_already(project):
    project.train()
    assert error(project) == 'save/_tiny holds a run: continue it with --resume, or replace it with --overwrite'


def test_epoch_max_already_reached(project):
    project.train()
    assert error(project, '--resume') == 'tiny.yaml: epoch_max 3 is already reached (epoch 3)'


@pytest.mark.parametrize('changes, flags, key', [
    ({'train_dataset.batch_size': 4}, [], 'train_dataset.batch_size'),
    ({'train_dataset.wrapper.args.inp_size': 9}, [], 'train_dataset.wrapper.args.inp_size'),
    ({'optimizer.args.lr': 1}, [], 'optimizer.args.lr'),
    ({'model.args.imnet_spec.args.hidden_list': [9]}, [], 'model.args.imnet_spec.args.hidden_list'),
    ({'data_norm': None}, [], 'data_norm'), ({'ema': 0.9}, [], 'ema'), ({'seed': 1}, [], 'seed'),
    ({}, ['--seed', '1'], 'seed'), ({}, ['--amp', 'bf16'], 'amp'), ({}, ['--tf32'], 'tf32')])
def test_resuming_with_another_config(project, changes, flags, key):
    project.train()
    project.change({**changes, 'epoch_max': 4})
    assert error(project, '--resume', *flags).startswith(
        f"tiny.yaml: {key} differs from the run's own (save/_tiny/config.yaml); restore it")


def test_resuming_a_cosine_schedule_with_another_epoch_max(tmp_path):
    project = Project(tmp_path, {'cosine_lr': {}})
    project.train()
    project.change({'cosine_lr': {}, 'epoch_max': 4})
    assert error(project, '--resume').startswith("tiny.yaml: epoch_max differs from the run's own")


@pytest.mark.parametrize('obstacle', ['save', 'save/_tiny', 'save/_tiny/tensorboard'])
def test_a_save_folder_that_cannot_be_written(project, obstacle):
    (project.folder / obstacle).parent.mkdir(parents=True, exist_ok=True)
    (project.folder / obstacle).write_text('in the way')
    assert re.fullmatch(r'save(/_tiny(/tensorboard)?)?: cannot be written \(.*\); .* write elsewhere', error(project))


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_save_folder_without_permission(project):
    (project.folder / 'save').mkdir(mode=0o500)
    assert error(project) == 'save/_tiny: cannot be written (Permission denied); free space, or write elsewhere'


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    changes = {'epoch_val': None, 'model.args.imnet_spec.args.hidden_list': [64]}  # the checkpoint is the largest file
    project = Project(tmp_path, {**changes, 'epoch_max': 1})
    project.train()
    before = (project.run / 'epoch-last.pth').read_bytes()
    project.change(changes)
    assert error(project, '--resume', largest_file=len(before) // 2) == (
        'save/_tiny/epoch-last.pth: cannot be written (File too large); free space, or write elsewhere')
    assert (project.run / 'epoch-last.pth').read_bytes() == before
    assert sorted(path.name for path in project.run.iterdir()) == [
        'config.yaml', 'epoch-last.pth', 'lock', 'log.txt', 'tensorboard']


def test_a_loss_that_is_not_finite(project):
    project.change({'optimizer': {'name': 'sgd', 'args': {'lr': 1e30}}})
    assert re.fullmatch('the loss is (inf|nan) in epoch 1/3, iteration [23]: lower lr or set grad_clip; save/_tiny '
                        'keeps what was saved before', error(project))


# --- the programs themselves -----------------------------------------------------------------------


def test_a_program_of_its_own_ends_the_same(project):
    project.change({'epoch_mx': 1})
    assert project.start().wait() == 2
    assert project.output().splitlines()[-1].startswith("error: tiny.yaml: unknown key 'epoch_mx', did you mean")
    assert 'Traceback' not in project.output()

"""Every config of the repository works, and says what was published."""

import copy
import functools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import readme
import torch
from paths import CONFIGS, ROOT, SHARED
from PIL import Image
from projects import train_two_steps

import config as configuration
import datasets
import models
import train_liif
from cli import DEFAULT
from config import check_args
from errors import UserError
from evaluation import EvalConfig
from training.run import Config, read_config

TRAIN = sorted(CONFIGS.glob('train-div2k/*.yaml'))
ABLATION = sorted(CONFIGS.glob('train-div2k/ablation/*.yaml'))
TEST = sorted({*CONFIGS.glob('test/*.yaml')} - {*CONFIGS.glob('test/test-celebAHQ-*.yaml')})
CONVOLUTIONAL = ['A-liif', 'A-liif-pixel', 'liif', 'metasr', 'x2', 'lte', 'lmliif', 'lmlte']
DECODERS = {'edsr-baseline': [*CONVOLUTIONAL, 'lte-fast'], 'rdn': CONVOLUTIONAL,
            'swinir': ['A-liif', 'liif', 'metasr', 'lte', 'lmliif', 'lmlte']}
FAMILY = SHARED / 'golden/family/family_keys.json'
OF_FAMILY = [path for path in TRAIN if re.search('-l(te|te-fast|mliif|mlte)$|swinir-(liif|metasr)$', path.stem)]
SETS = {'div2k': 'div2k/DIV2K_valid_HR', 'set5': 'benchmark/Set5/HR', 'set14': 'benchmark/Set14/HR',
        'b100': 'benchmark/B100/HR', 'urban100': 'benchmark/Urban100/HR', 'photos2k': 'photos2k/valid_HR'}
SCALES = {'div2k': ('2', '3', '4', '6', '12', '18', '24', '30'), 'photos2k': ('6', '12', '18', '24', '30')}
BENCHMARK_SCALES = '2', '2.5', '3', '3.7', '4', '6', '8'


def each(paths):
    return pytest.mark.parametrize('path', paths, ids=lambda path: path.stem)


@functools.cache
def content(path):
    """What the config at `path` holds, read once."""
    return configuration.load_yaml(path)


def load_yaml(path):
    """What the config at `path` holds, to be changed at will."""
    return copy.deepcopy(content(path))


@functools.cache
def shapes(path):
    """The shapes of the tensors of the model in the config at `path`, by name."""
    config = Config(**check_args(Config, load_yaml(path)))
    with torch.device('meta'):
        return {name: tuple(tensor.shape) for name, tensor in models.make(config.model).state_dict().items()}


def decoder(path):
    return re.sub('^train_(edsr-baseline|rdn|swinir)-', '', path.stem)


@pytest.fixture(scope='module')
def family():
    """What the authors of LTE and LM-LTE published: {config: its spec, training and tensors}."""
    if not FAMILY.is_file():
        pytest.skip(f'{FAMILY} is absent')
    return json.loads(FAMILY.read_text())


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """A folder with one image of 200x250 (and X2: of 100x125) in each of the configs' folders in load/."""
    root = tmp_path_factory.mktemp('load')
    image = np.random.default_rng(0).integers(0, 256, (200, 250, 3), np.uint8)
    folders = [*SETS.values(), 'div2k/DIV2K_train_HR', 'sample/train', 'sample/valid']
    for folder, pixels, suffix in [*((folder, image, '') for folder in folders),
                                   *((f'div2k/DIV2K_{part}_LR_bicubic/X2', image[::2, ::2], 'x2')
                                     for part in ('train', 'valid'))]:
        (root / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(root / folder / f'0001{suffix}.png')
    return root


@pytest.fixture
def load(images, tmp_path, monkeypatch):
    """A working directory whose load/ is `images`."""
    (tmp_path / 'load').symlink_to(images)
    monkeypatch.chdir(tmp_path)


def first_batch(spec):
    loader = datasets.make_loader({**spec, 'num_workers': 0}, seed=0)
    return next(iter(loader)), loader


def test_every_encoder_decoder_set_and_scale_has_its_config():
    assert {path.stem for path in TRAIN} == {f'train_{e}-{d}' for e, decoders in DECODERS.items() for d in decoders}
    assert {path.name for path in TEST} == {
        f'test-{name}-{scale}.yaml' for name in SETS for scale in SCALES.get(name, BENCHMARK_SCALES)}


def test_sets_with_low_resolution_files_have_configs_that_read_them():
    names = {f'test-{name}-{scale}.yaml' for name in SETS if name != 'photos2k' for scale in (2, 3, 4)}
    assert {path.name for path in CONFIGS.glob('test/supplied-lr/*')} == names


@each(sorted(CONFIGS.glob('test/supplied-lr/*.yaml')))
def test_a_config_of_supplied_files_measures_as_that_of_reduced_ones(path, tmp_path, monkeypatch):
    config, other = load_yaml(path), load_yaml(path.parents[1] / path.name)
    assert {k: v for k, v in config.items() if k != 'test_dataset'} == {
        k: v for k, v in other.items() if k != 'test_dataset'}
    scale, args = int(path.stem.split('-')[-1]), config['test_dataset']['dataset']['args']
    assert args['root_path_2'] == other['test_dataset']['dataset']['args']['root_path']
    assert args['root_path_1'].endswith(f'LR_bicubic/X{scale}')
    monkeypatch.chdir(tmp_path)
    for root, side in ((args['root_path_1'], 20), (args['root_path_2'], 20 * scale)):
        Path(root).mkdir(parents=True)
        name = '1.png' if root == args['root_path_2'] else f'1x{scale}.png'
        Image.new('RGB', (side, side)).save(Path(root) / name)
    batch, _ = first_batch(config['test_dataset'])
    assert batch['gt'].shape[-1] == scale * batch['inp'].shape[-1] == 20 * scale


@each([*sorted(CONFIGS.glob('**/train*.yaml')), CONFIGS / 'finetune.yaml'])
def test_train_config_has_known_keys_and_makes_its_model(path):
    assert shapes(path)


@each([CONFIGS / 'finetune.yaml', CONFIGS / 'train-photos/train_edsr-baseline-A-liif-pixel-web.yaml'])
def test_finetuning_goes_on_from_the_demos_weights(path):
    config = load_yaml(path)
    assert config['weights_from'] == f'pretrained/{DEFAULT}.pth'
    weights = models.checkpoint.read(ROOT / config['weights_from'])['model']
    assert (weights['name'], weights['args']) == (config['model']['name'], config['model']['args'])


def test_decoders_are_compared_after_equal_training():
    names = [f'train_edsr-baseline-{decoder}.yaml' for decoder in ('A-liif', 'liif', 'lte', 'lmlte')]
    ours, published = ([load_yaml(CONFIGS / folder / name) for name in names]
                       for folder in ('train-photos', 'train-div2k'))
    ours[0]['model']['args']['imnet_spec']['args'].pop('init')
    for config in ours[:2]:  # LTE and LM-LTE have it by default
        assert config['model']['args'].pop('residual') == 'bilinear'
    assert [config.pop('model') for config in ours] == [config['model'] for config in published]
    assert all(config == ours[0] for config in ours)


@pytest.mark.parametrize('count', [2, 9, 10, 30])
def test_finetuning_validates_on_every_tenth_photo_and_trains_on_the_others(tmp_path, monkeypatch, count):
    (tmp_path / 'load/own').mkdir(parents=True)
    for i in range(count):
        Image.new('RGB', (60, 60)).save(tmp_path / f'load/own/{i:02}.png')
    monkeypatch.chdir(tmp_path)
    config = load_yaml(CONFIGS / 'finetune.yaml')
    train, valid = ({Path(file).name for file in datasets.make(config[key]['dataset']).files}
                    for key in ('train_dataset', 'val_dataset'))
    assert not train & valid and len(train | valid) == count and len(valid) == max(1, count // 10)
    assert config['epoch_val'] == 1  # which makes epoch-best.pth


def test_one_photo_is_too_few_for_finetuning(tmp_path, monkeypatch):
    (tmp_path / 'load/own').mkdir(parents=True)
    Image.new('RGB', (60, 60)).save(tmp_path / 'load/own/1.png')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='part: train needs at least 2 images, for training and validation, not 1'):
        datasets.make(load_yaml(CONFIGS / 'finetune.yaml')['train_dataset']['dataset'])


@each([path for path in TRAIN if path not in OF_FAMILY])
def test_optimizer_and_schedule_are_the_published_ones(path):
    config = load_yaml(path)
    assert config['train_dataset']['batch_size'] == (8 if decoder(path).startswith('A-liif') else 16)
    assert config['optimizer'] == {'name': 'adam', 'args': {'lr': 1e-4}}
    assert config['epoch_max'] == 1000
    assert config['multi_step_lr'] == {'milestones': [200, 400, 600, 800], 'gamma': 0.5}
    assert (config['epoch_val'], config['epoch_save']) == (1, 100)
    assert config['data_norm'] == {k: {'sub': [0.5], 'div': [0.5]} for k in ('inp', 'gt')}


@each(OF_FAMILY)
def test_training_of_the_family_is_the_published_one(path, family):
    config, published = load_yaml(path), family[path.stem.removeprefix('train_')]['training']
    for key in 'optimizer', 'epoch_max', 'multi_step_lr', 'epoch_val', 'epoch_save', 'data_norm':
        assert config[key] == published[key], key
    assert config['train_dataset']['batch_size'] == published['batch_size']


@each(TRAIN)
def test_batches_are_of_the_published_shape(path, load):
    config = load_yaml(path)
    batch_size = config['train_dataset']['batch_size']
    batch, loader = first_batch(config['train_dataset'])
    assert len(loader.dataset) == 20 and loader.batch_sampler.batch_size == batch_size
    samples, target = min(batch_size, 20), (3, 96, 96) if decoder(path) == 'x2' else (2304, 3)
    assert batch['inp'].shape == (samples, 3, 48, 48)
    assert batch['gt'].shape == (samples, *target)
    batch, loader = first_batch(config['val_dataset'])
    assert len(loader.dataset) == 160
    assert batch['inp'].shape == (batch_size, 3, 48, 48)
    assert batch['gt'].shape == (batch_size, *target)


@each(TRAIN)
def test_scales_and_augmentation_are_the_published_ones(path):
    config = load_yaml(path)
    for key, augmented in ('train_dataset', True), ('val_dataset', False):
        args = config[key]['wrapper']['args']
        if decoder(path) == 'x2':
            assert config[key]['dataset']['args']['root_path_1'].endswith('_LR_bicubic/X2')
            assert 'sample_q' not in args  # the loss is on every pixel of a crop
        else:
            assert args['sample_q'] == 2304
            assert (args.get('scale_min', 1), args['scale_max']) == (1, 4)
        assert args.get('augment', False) == augmented
    assert config['val_dataset']['dataset']['args']['first_k'] == 10


@each(TRAIN)
def test_the_decoder_is_the_published_one(path):
    model = load_yaml(path)['model']
    names = {'A-liif': 'a-liif', 'A-liif-pixel': 'a-liif', 'x2': 'liif'}
    assert model['name'] == names.get(decoder(path), decoder(path))
    if decoder(path) == 'A-liif':
        hidden = [(256, 580), (256, 256), (256, 256), (256, 256), (10, 256)]
        assert [s for k, s in shapes(path).items() if k.startswith('expansion.') and k.endswith('weight')] == hidden
        mixed = [(10, 16 * 580), (10, 256), (10, 256), (10, 256), (10, 48)]
        assert [s for k, s in shapes(path).items() if k.startswith('imnet.weights')] == mixed
    elif decoder(path) == 'liif':
        hidden = [(256, 580), (256, 256), (256, 256), (256, 256), (3, 256)]
        assert [s for k, s in shapes(path).items() if k.startswith('imnet.') and k.endswith('weight')] == hidden


def test_liif_and_a_liif_have_the_published_ablations():
    fixed = {'x2', 'x3', 'x4'}
    expected = {'liif': {'c', 'd', 'e', 'u', *fixed}, 'A-liif': {'c', 'e', 'u', *fixed}}
    assert {path.stem for path in ABLATION} == {
        f'train_edsr-baseline-{model}-{key}' for model, keys in expected.items() for key in keys}


@each(ABLATION)
def test_an_ablation_changes_one_thing(path):
    whole, key = path.stem.rsplit('-', 1)
    config, expected = load_yaml(path), load_yaml(path.parents[1] / f'{whole}.yaml')
    args = expected['model']['args']
    if key == 'd':
        args['imnet_spec']['args']['hidden_list'] = [256, 256]
    elif key in ('x2', 'x3', 'x4'):
        for part in 'train_dataset', 'val_dataset':
            wrapper = expected[part]['wrapper']['args']
            wrapper['scale_min'] = wrapper.pop('scale_max') and int(key[1])
    else:
        args[{'c': 'cell_decode', 'e': 'local_ensemble', 'u': 'feat_unfold'}[key]] = False
    assert config == expected


@each([path for path in ABLATION if path.stem.endswith(('A-liif-e', 'baseline-liif-x4'))])
def test_an_ablation_trains(path, load, tmp_path):
    train_two_steps(tmp_path, path, train_dataset__batch_size=10, val_dataset__batch_size=10)


def test_every_published_network_of_the_family_has_its_config(family):
    assert {path.stem.removeprefix('train_') for path in OF_FAMILY} == family.keys()


@each(OF_FAMILY)
def test_tensors_of_the_family_are_the_published_ones(path, family):
    computed = 'sub_mean|add_mean|attn_mask|relative_position_index'
    published = family[path.stem.removeprefix('train_')]['tensors']
    assert {name: list(shape) for name, shape in shapes(path).items()} == {
        name: shape for name, shape in published.items() if not re.search(computed, name)}


@each([path for path in TRAIN if path.stem.endswith('-pixel')])
def test_pixel_config_differs_from_the_published_one_in_three_keys(path):
    config, published = load_yaml(path), load_yaml(path.with_name(path.name.replace('-pixel', '')))
    args = config['model']['args']
    assert (args['expansion_spec']['args'].pop('space'), args['imnet_spec']['args'].pop('init'), args.pop('residual')) \
        == ('pixel', 'layer', 'bilinear')
    assert config == published


@each(TEST + sorted(CONFIGS.glob('quickstart/test-*.yaml')))
def test_test_config_measures_whole_images_at_its_scale(path, load):
    _, name, scale = path.stem.split('-')
    scale = float(scale)
    config = EvalConfig.read(path)
    assert config.eval_type == f'{"div2k" if name in SCALES else "benchmark"}-{scale:g}' and config.scale == scale
    assert config.test_dataset['batch_size'] == 1
    assert config.data_norm == {k: {'sub': [0.5], 'div': [0.5]} for k in ('inp', 'gt')}
    assert config.test_dataset['dataset']['args']['root_path'] == f'./load/{SETS.get(name, "sample/valid")}'
    batch, _ = first_batch(config.test_dataset)
    h, w = int(200 // scale), int(250 // scale)
    height, width = round(h * scale), round(w * scale)
    assert batch['inp'].shape == (1, 3, h, w)
    assert batch['gt'].shape == (1, 3, height, width)


@pytest.mark.parametrize('command', readme.commands('train_liif.py', [ROOT / 'pretrained/README.md']))
def test_recipe_of_the_pretrained_weights_is_a_command_that_train_liif_takes(command, monkeypatch):
    monkeypatch.setattr(sys, 'argv', command[1:])
    monkeypatch.chdir(ROOT)
    args = train_liif.parse_args()
    assert args.gpu == 'cpu' or args.minutes
    read_config(args.config, assignments=args.set)

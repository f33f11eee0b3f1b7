"""CelebA-HQ as LIIF has it, on made-up photos: scripts/resize.py, the configs for training and for testing."""

import json
import sys

import numpy as np
import pytest
from paths import CONFIGS
from photos import write_images
from PIL import Image
from projects import train_two_steps

import models
from config import load_yaml
from errors import UserError
from evaluation import evaluate
from scripts import resize

TASKS = {'32-256': (32, 256), '64-128': (64, 128)}
each_task = pytest.mark.parametrize('task', TASKS)


def run_resize(monkeypatch, folder):
    monkeypatch.setattr(sys, 'argv', ['resize.py', str(folder)])
    resize.main()


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """A working directory with five photos of 1024x1024 in load/celebAHQ/data1024x1024, as JPEGs, and a split."""
    folder = tmp_path_factory.mktemp('celeba') / 'load/celebAHQ/data1024x1024'
    write_images(folder, [f'0000{i}.jpg' for i in range(5)], (1024, 1024))
    names = [f'0000{i}.png' for i in range(5)]
    (folder.parent / 'split.json').write_text(json.dumps({'train': names[:4], 'val': names[4:]}))
    with pytest.MonkeyPatch.context() as patch:
        run_resize(patch, folder)
    return folder


def test_photos_are_reduced_to_256_and_from_there_to_the_smaller_sizes(photos):
    for path in photos.iterdir():
        image = Image.open(path).resize((256, 256), Image.BICUBIC)
        for side in (256, 128, 64, 32):
            made = Image.open(photos.parent / str(side) / f'{path.stem}.png')
            assert np.array_equal(made, image.resize((side, side), Image.BICUBIC))


def test_what_is_there_stays(photos, monkeypatch):
    kept, lost = (photos.parent / '64' / f'0000{i}.png' for i in (0, 1))
    before, expected = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    run_resize(monkeypatch, photos)
    assert kept.stat().st_mtime_ns == before and lost.read_bytes() == expected


def test_two_photos_of_one_name_are_an_error(tmp_path, monkeypatch):
    (tmp_path / 'data').mkdir()
    for suffix in 'png', 'jpg':
        Image.new('RGB', (8, 8)).save(tmp_path / f'data/a.{suffix}')
    with pytest.raises(UserError, match='two of its photos have the same name'):
        run_resize(monkeypatch, tmp_path / 'data')


@each_task
@pytest.mark.parametrize('kind', ['liif', 'upsample'])
def test_a_config_trains_and_its_model_is_measured(photos, task, kind, monkeypatch):
    monkeypatch.chdir(photos.parents[2])
    path = CONFIGS / f'train-celebAHQ/train_celebAHQ-{task}_{kind}.yaml'
    small = {'train_dataset__batch_size': 2, 'val_dataset__batch_size': 1}
    if kind == 'liif':
        small['model__args__imnet_spec__args__hidden_list'] = [8]
    checkpoint = train_two_steps(photos.parents[2], path, **small)
    result = evaluate(CONFIGS / f'test/test-celebAHQ-{task}.yaml', models.load(checkpoint))
    image, = result['images']
    assert image['image'].startswith('00004') and 5 < image['psnr'] < 60


@each_task
def test_published_settings(task):
    small, large = TASKS[task]
    configs = {kind: load_yaml(CONFIGS / f'train-celebAHQ/train_celebAHQ-{task}_{kind}.yaml')
               for kind in ('liif', 'upsample')}
    for kind, config in configs.items():
        for part, key in ('train_dataset', 'train'), ('val_dataset', 'val'):
            spec = config[part]
            assert spec['batch_size'] == 16 and spec['wrapper']['args']['sample_q'] == 1024
            args = spec['dataset']['args']
            assert (args['root_path_1'], args['root_path_2']) == (
                f'./load/celebAHQ/{small}', f'./load/celebAHQ/{large}')
            assert (args['split_key'], args['cache']) == (key, 'bin')
            assert args.get('first_k') == (100 if key == 'val' else None)
        wrapper = config['train_dataset']['wrapper']
        assert wrapper['name'] == 'sr-implicit-uniform-varied' and wrapper['args']['augment']
        assert (wrapper['args']['size_min'], wrapper['args']['size_max']) == (small, large)
        assert wrapper['args'].get('gt_resize') == (large if kind == 'upsample' else None)
        assert float(config['optimizer']['args']['lr']) == 1e-4 and config['epoch_max'] == 200
        assert config['multi_step_lr'] == {'milestones': [100], 'gamma': 0.1}
    assert configs['upsample']['model']['args'] == {
        'encoder_spec': {'name': 'edsr-baseline', 'args': {'scale': large // small}}}
    assert configs['liif']['model'] == load_yaml(CONFIGS / 'train-div2k/train_edsr-baseline-liif.yaml')['model']

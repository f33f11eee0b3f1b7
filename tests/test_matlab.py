"""MATLAB's imresize: what it gave for the benchmarks; and where low resolution comes from, `--lr` and `--jpeg`."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from paths import SHARED
from photos import photo, save_photos
from PIL import Image

import test
from datasets.image_folder import ImageFolder
from datasets.matlab import imresize
from datasets.wrappers import SRImplicitDownsampled
from errors import UserError

SET5 = SHARED / 'data/benchmark/Set5'


def by_hand(row, length):
    """A row of numbers reduced to `length`, tap by tap."""
    scale, out = length / len(row), []
    for i in range(length):
        centre, total, norm = (i + 0.5) / scale - 0.5, 0, 0
        for j in range(-len(row), 2 * len(row)):
            x = abs(centre - j) * scale
            weight = (1.5 * x ** 3 - 2.5 * x ** 2 + 1 if x <= 1 else
                      -0.5 * x ** 3 + 2.5 * x ** 2 - 4 * x + 2 if x <= 2 else 0)
            mirrored = -1 - j if j < 0 else 2 * len(row) - 1 - j if j >= len(row) else j
            total, norm = total + weight * row[mirrored], norm + weight
        out.append(min(255, max(0, int(np.floor(total / norm + 0.5)))))
    return out


@pytest.mark.parametrize('length', [20, 13, 8, 40])
def test_a_row_is_reduced_by_the_cubic_kernel_widened_and_mirrored(length):
    row = photo(1, 40)[0, :, 0]
    image = np.repeat(np.repeat(row[None, :, None], 3, axis=2), 4, axis=0)
    assert imresize(image, (4, length))[2, :, 1].tolist() == by_hand(row.astype(float), length)


@pytest.mark.skipif(not SET5.is_dir(), reason=f'{SET5} is absent')
@pytest.mark.parametrize('scale, levels', [(2, 0), (3, 0), (4, 0)])
def test_set5_is_reduced_to_the_files_that_come_with_it(scale, levels):
    paths = sorted((SET5 / f'LR_bicubic/X{scale}').glob('*.png'))
    assert len(paths) == 5
    for path in paths:
        lr = np.asarray(Image.open(path).convert('RGB')).astype(int)
        hr = np.asarray(Image.open(SET5 / 'HR' / path.name.replace(f'x{scale}', '')).convert('RGB'))
        h, w = lr.shape[:2]
        assert np.abs(imresize(hr[:h * scale, :w * scale], (h, w)).astype(int) - lr).max() <= levels, path.name


def test_a_wrapper_reduces_as_it_is_told(tmp_path):
    save_photos(tmp_path, a=(40, 60))
    hr = np.asarray(Image.open(tmp_path / 'a.png'))
    wrapper = SRImplicitDownsampled(ImageFolder(str(tmp_path)), scale_min=2, reduction='matlab')
    assert np.array_equal(wrapper[0]['inp'].permute(1, 2, 0).numpy(), imresize(hr, (20, 30)))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A set of one image with its own low-resolution file, which is black, and the configs of both."""
    monkeypatch.chdir(tmp_path)
    save_photos(tmp_path / 'HR', a=(48, 60))
    (tmp_path / 'LR').mkdir()
    Image.new('RGB', (30, 24)).save(tmp_path / 'LR/ax2.png')
    reduced = {'dataset': {'name': 'image-folder', 'args': {'root_path': 'HR'}},
               'wrapper': {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 2}}, 'batch_size': 1}
    own = {'dataset': {'name': 'paired-image-folders', 'args': {'root_path_1': 'LR', 'root_path_2': 'HR'}},
           'wrapper': {'name': 'sr-implicit-paired'}, 'batch_size': 1}
    (tmp_path / 'supplied-lr').mkdir()
    for path, dataset in (('t-2.yaml', reduced), ('t-6.yaml', reduced), ('supplied-lr/t-2.yaml', own)):
        Path(path).write_text(yaml.safe_dump({'test_dataset': dataset, 'eval_type': 'benchmark-2'}))

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['test.py', '--model', 'bicubic', '--gpu', 'cpu', '--config', *args])
        test.main()
    return run


def psnr(text):
    return float(text.split('result: ')[1].split()[0])


def test_low_resolution_comes_from_where_lr_says(project, capsys):
    found = []
    for lr in ('pillow', 'matlab', 'supplied'):
        project('t-2.yaml', '--lr', lr)
        found.append(psnr(capsys.readouterr().out))
    assert len({*found}) == 3 and found[2] < 15 < min(found[:2])


def test_sets_without_files_of_their_own_are_left_out_by_name(project, capsys):
    project('t-2.yaml', 't-6.yaml', '--lr', 'supplied')
    assert 't-6.yaml is left out: there is no supplied-lr/t-6.yaml' in capsys.readouterr().err
    with pytest.raises(UserError, match='none of these sets supplies low-resolution files'):
        project('t-6.yaml', '--lr', 'supplied')


@pytest.mark.parametrize('quality', [40, 95])
def test_what_is_reduced_is_compressed_as_jpeg_says(project, capsys, quality):
    hr = Image.open('HR/a.png')
    hr.resize((30, 24), Image.BICUBIC).save('LR/ax2.jpg', quality=quality)
    Path('LR/ax2.png').unlink()
    project('t-2.yaml', '--lr', 'supplied')
    expected = psnr(capsys.readouterr().out)
    project('t-2.yaml', '--jpeg', str(quality))
    assert psnr(capsys.readouterr().out) == expected


def test_jpeg_does_not_compress_supplied_files(project):
    with pytest.raises(UserError, match='--jpeg compresses images that are downsampled here, not the files of'):
        project('t-2.yaml', '--jpeg', '60', '--lr', 'supplied')


def test_keys_of_test_configs_are_set_on_the_command_line(project, capsys):
    project('t-2.yaml')
    before = psnr(capsys.readouterr().out)
    project('t-2.yaml', '--set', 'test_dataset.wrapper.args.scale_min=4', '--set', 'eval_type=benchmark-4')
    assert psnr(capsys.readouterr().out) < before
    with pytest.raises(UserError, match="unknown key 'scale'"):
        project('t-2.yaml', '--set', 'test_dataset.wrapper.args.scale=4')

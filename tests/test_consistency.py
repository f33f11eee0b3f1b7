"""scripts/consistency.py: what it measures, of models whose consistency is known."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from photos import photo
from PIL import Image
from specs import make_checkpoint
from upscaling import RANDOM, silence

from errors import UserError
from models import load_pretrained
from scripts import consistency


@pytest.fixture(scope='module')
def small():
    return torch.from_numpy(photo(24, 24)).permute(2, 0, 1) / 255


@pytest.fixture
def random(weights):
    return load_pretrained(weights / 'random.pth')


def test_bilinear_interpolation_is_the_same_flipped_and_in_tiles_but_not_in_two_steps(bilinear, small, monkeypatch):
    monkeypatch.setattr(consistency, 'TILE', 8)
    agreement = consistency.agreements(bilinear, small)
    assert agreement.keys() == {'x2 of x2', 'flipped left to right', 'flipped upside down', 'tiles of 8'}
    assert 20 < agreement.pop('x2 of x2') < 60
    assert min(agreement.values()) > 100


def test_a_network_with_directions_is_not_the_same_flipped(random, small, monkeypatch):
    monkeypatch.setattr(consistency, 'TILE', 8)
    agreement = consistency.agreements(random, small)
    assert agreement['flipped left to right'] < 60 < 100 < agreement['tiles of 8']


@pytest.mark.parametrize('scale', [2, 2.7])
def test_psnr_is_that_of_the_restored_photo(bilinear, scale):
    picture = photo(48, 48)
    ours, bicubic = consistency.psnr_at(bilinear, picture, scale)
    low = math.floor(48 / scale)
    side, border = round(low * scale), math.ceil(scale)
    target = Image.fromarray(picture[:side, :side])
    again = np.array(target.resize((low, low), Image.BICUBIC).resize((side, side), Image.BICUBIC))
    luma = np.array([65.738, 129.057, 25.064]) / 256
    error = ((again.astype(float) - np.array(target)) @ luma)[border:-border, border:-border] / 255
    assert bicubic == pytest.approx(-10 * np.log10((error ** 2).mean()), abs=1e-3)
    assert ours != bicubic and abs(ours - bicubic) < 3


def test_a_photo_that_is_too_small_is_an_error_with_its_width_and_height(tmp_path):
    Image.new('RGB', (60, 40)).save(tmp_path / 'a.png')
    with pytest.raises(UserError, match='a.png: has 60x40 pixels, and 48x48 are needed'):
        consistency.middle(tmp_path / 'a.png', 48)


def test_a_dent_lies_below_both_neighbours():
    assert consistency.dents([9, 5, 3, 4, 1, 2.5]).tolist() == [0, 1, 0, 1.5]


def test_the_script_writes_a_curve_for_each_photo(tmp_path, monkeypatch, capsys):
    make_checkpoint(tmp_path / 'bilinear.pth', RANDOM, silence)
    for i, name in enumerate(('a', 'b')):
        Image.fromarray(photo(60, 80, i)).save(tmp_path / f'{name}.png')
    monkeypatch.chdir(tmp_path)
    for name, value in {'SCALES': [1., 1.5, 2., 2.5], 'SIDE': 48, 'SMALL': 16, 'TILE': 8}.items():
        monkeypatch.setattr(consistency, name, value)
    monkeypatch.setattr(sys, 'argv', ['', '--gpu', 'cpu', '--model', 'bilinear.pth', '--photos', 'a.png', 'b.png'])
    consistency.main()
    a, b = json.loads(consistency.RESULTS.read_text())
    assert (a['photo'], b['photo'], len(a['psnr'])) == ('a', 'b', 4) and a['psnr'] != b['psnr']
    assert consistency.FIGURE.stat().st_size > 10_000
    assert 'a.png: x2 of x2: ' in capsys.readouterr().out

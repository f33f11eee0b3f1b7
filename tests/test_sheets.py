"""The pictures in which demo.py shows something: comparisons, and maps of the mixing weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from paths import ROOT
from PIL import Image, ImageFilter
from specs import make_checkpoint
from upscaling import RANDOM, assert_close, picture, set_weights

from cli import DEFAULT
from demos import compare
from models.pretrained import load_pretrained
from pictures import sheets

# Panels are 640 pixels long, above a caption of 28, 8 apart.


def panel(sheet, column, row, height):
    left, top = 648 * column, (height + 36) * row
    return np.asarray(sheet, dtype=float)[top:top + height, left:left + 640]


def test_comparison_shows_bicubic_ours_and_the_most_detailed_crop(cli):
    values = np.full((160, 200, 3), 100, np.uint8)
    values[144::2, :20:2] = 140
    values[145::2, 1:20:2] = 60
    Image.fromarray(values).save('small.png')
    code, *_ = cli('--input', 'small.png', '--scale', 4, '--output', 'big.png', '--compare', model='brighter.pth')
    assert code == 0
    sheet = Image.open('big-compare.png')
    assert sheet.size == (2 * 640 + 8, 2 * (512 + 28) + 8)

    bicubic, ours, bicubic_crop, ours_crop = (panel(sheet, column, row, 512) for row in (0, 1) for column in (0, 1))
    assert np.median(bicubic) == 100 and np.median(ours) == 100 + 0.2 * 255
    red = (bicubic == (255, 0, 0)).all(axis=-1)
    assert red.any() and (red == (ours == (255, 0, 0)).all(axis=-1)).all()
    rows, columns = np.nonzero(red)
    # a crop as large as a third of the panel: the lower left 171x214 of the output's 640x800 pixels, shown at 0.8
    np.testing.assert_allclose((rows.min(), columns.min(), rows.max(), columns.max()), (375, 0, 511, 171), atol=2)
    assert bicubic_crop.std() > 2 and ours_crop.std() > 2 and panel(sheet, 0, 0, 512)[:300].std() == 0
    assert ours_crop.mean() - bicubic_crop.mean() == pytest.approx(51, abs=2)


def test_pictures_of_one_name_in_a_folder_have_a_comparison_each(cli):
    Path('in').mkdir()
    picture().save('in/a.png')
    picture().save('in/a.bmp')
    assert cli('--input', 'in', '--scale', 2, '--output', 'out', '--compare')[0] == 0
    assert {path.name for path in Path('out').iterdir()} == {
        'a.png', 'a.bmp', 'a.png-compare.png', 'a.bmp-compare.png'}


def test_zoomed_crop_is_that_of_the_whole_bicubic_picture():
    image = picture(width=100, height=80)
    big = image.resize((370, 296), Image.BICUBIC)  # so both sides of the sheet must be the same
    sheet = compare.compare(image, big, 'ours')
    assert_close(panel(sheet, 0, 1, 512), panel(sheet, 1, 1, 512), 2)  # Pillow rounds its weights


@pytest.mark.parametrize('mode', ['LA', 'RGBA'])
def test_transparent_parts_are_on_a_checkerboard(cli, mode):
    image = Image.new(mode, (40, 32))  # black where it is transparent
    image.paste('white', (20, 0, 40, 32))
    image.save('small.png')
    assert cli('--input', 'small.png', '--scale', 4, '--output', 'big.png', '--compare', '--weights-map')[0] == 0
    comparison, weights = Image.open('big-compare.png'), Image.open('big-weights.png')
    panels = [panel(comparison, column, 0, 512) for column in (0, 1)] + [panel(weights, 0, 0, 512)]
    for values in panels:
        assert set(np.unique(values[4:360, 4:180])) == {204, 255}  # left of the rim, above the frame of the crop


def test_what_is_hidden_is_no_detail():
    values = np.full((160, 200, 4), 100, np.uint8)
    values[..., 3] = 255
    values[:20:2, :20:2, :3] = 140
    values[140:, 180:, :3] = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    values[140:, 180:, 3] = 0
    assert compare.most_detailed(Image.fromarray(values), (2, 2)) == (0, 0)


def test_weights_map_of_constant_weights_is_white(cli, weights, tmp_path):
    picture().save('small.png')
    constant = tmp_path / 'constant.pth'
    make_checkpoint(constant, RANDOM, lambda model: set_weights(model, torch.tensor([0.1, -1, 0.1])))
    assert cli('--input', 'small.png', '--scale', 2, '--output', 'a.png', '--weights-map', model=constant)[0] == 0
    sheet = Image.open('a-weights.png')
    assert sheet.size == (4 * 640 + 3 * 8, 2 * (533 + 28) + 8)
    for column, row in ((1, 0), (2, 0), (3, 0), (0, 1)):
        assert panel(sheet, column, row, 533).min() > 240


def test_weights_map_shows_which_weight_is_furthest_from_its_mean_where(monkeypatch):
    weights = torch.full((3, 640, 640), 0.01)
    weights[0] += 7  # the largest everywhere, but always the same
    weights[1, :, :160], weights[2, :, 400:] = 0.5, -0.2
    monkeypatch.setattr(compare, 'mixing_weights', lambda *_: weights)
    captions = []
    monkeypatch.setattr(compare, 'sheet', lambda panels, columns: captions.extend(p[0] for p in panels)
                        or sheets.sheet(panels, columns))
    sheet = compare.weights_map(None, Image.new('L', (5, 5)), (10, 10))

    furthest, *heat = (panel(sheet, column, row, 640) for column, row in ((1, 0), (2, 0), (3, 0), (0, 1)))
    left, middle, right = furthest[:, :160], furthest[:, 160:400], furthest[:, 400:]
    for part in left, middle, right:
        assert (part == part[0, 0]).all()
    # the hues of 1 (green) and 2 (blue) of three; paler where the weight is nearer to its mean
    assert left[0, 0].argmax() == middle[0, 0].argmax() == 1 and right[0, 0].argmax() == 2
    assert left[0, 0].min() < middle[0, 0].min() < 250
    assert captions[2:] == [
        '0: furthest 0%, 7.01 ± 0.00', '1: furthest 62%, 0.13 ± 0.21', '2: furthest 38%, -0.07 ± 0.10']
    assert heat[0].min() > 240
    blue, red = heat[1][:, 160:].mean(axis=(0, 1)), heat[1][:, :160].mean(axis=(0, 1))
    assert blue[2] > blue[0] + 10 and red[0] > red[2] + 30


def test_weights_map_of_the_shipped_model_has_structure(monkeypatch):
    photo = Image.open(ROOT / 'examples/lighthouse.png').crop((100, 60, 200, 160))
    panels = []
    monkeypatch.setattr(compare, 'sheet', lambda shown, columns: panels.extend(shown))
    compare.weights_map(load_pretrained(DEFAULT), photo, (200, 200), (100, 100))
    first = np.asarray(panels[1][2], dtype=float)
    assert first.std(axis=(0, 1)).min() > 20
    detail = [np.asarray(image.convert('L').filter(ImageFilter.FIND_EDGES), float).mean() for _, _, image in panels[:2]]
    assert min(detail) > 5

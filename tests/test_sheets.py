"""The pictures in which demo.py shows something: comparisons, and maps of the mixing weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from upscaling import RANDOM, assert_close, make_checkpoint, picture, set_weights

from demos import compare

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


def test_weights_map_of_known_weights(cli, weights, tmp_path):
    picture().save('small.png')
    colours = []
    for k in range(3):
        weights = torch.tensor([0.1, 0.1, 0.1])
        weights[k] = -1
        make_checkpoint(tmp_path / f'{k}.pth', RANDOM, lambda model, weights=weights: set_weights(model, weights))
        assert cli('--input', 'small.png', '--scale', 2, '--output', f'{k}.png', '--weights-map',
                   model=tmp_path / f'{k}.pth')[0] == 0
        sheet = Image.open(f'{k}-weights.png')
        assert sheet.size == (4 * 640 + 3 * 8, 2 * (533 + 28) + 8)
        ruler = panel(sheet, 1, 0, 533)
        assert (ruler == ruler[0, 0]).all()
        colours.append(tuple(ruler[0, 0]))
        assert np.ptp(panel(sheet, 2, 0, 533).mean(axis=(0, 1))) < 2  # what is constant is white
    assert len(set(colours)) == 3


def test_weights_map_shows_where_which_function_rules(monkeypatch):
    weights = torch.zeros(2, 640, 640)
    weights[0, :, :320], weights[1, :, 320:] = -0.9, 0.8
    monkeypatch.setattr(compare, 'mixing_weights', lambda *_: weights)
    sheet = compare.weights_map(None, Image.new('L', (5, 5)), (10, 10))

    ruler, first, second = (panel(sheet, column, 0, 640) for column in (1, 2, 3))
    left, right = ruler[:, :320], ruler[:, 320:]
    assert (left == left[0, 0]).all() and (right == right[0, 0]).all() and (left[0, 0] != right[0, 0]).any()
    for heat in first, second:
        blue, red = heat[:, :320].mean(axis=(0, 1)), heat[:, 320:].mean(axis=(0, 1))
        assert blue[2] > blue[0] + 30 and red[0] > red[2] + 30

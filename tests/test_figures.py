"""scripts/figures.py: what its pictures of the weights show."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scripts import figures


def panel(sheet, column, row):
    """The crop in a sheet whose panels are 20 pixels long, 8 apart, above a caption of 28."""
    left, top = 28 * column, 56 * row
    return np.asarray(sheet, dtype=float)[top:top + 20, left:left + 20]


def parts(photos):
    return [figures.Part(str(photos), 2, 24, 16, 10, scale) for scale in (4, 3.7)]


def test_crops_show_reduced_photo_models_and_truth_at_each_scale(work):
    photos = work / 'load/benchmark/Set5/HR'
    sheet = figures.crops(['bicubic', 'small'], parts(photos), 20, torch.device('cpu'))
    photo = Image.open(photos / '2.png')
    for row, (width, height, scale) in enumerate(((15, 12, 4), (16, 13, 3.7))):
        size = round(width * scale), round(height * scale)
        low = photo.crop((0, 0, *size)).resize((width, height), Image.BICUBIC)
        bicubic = low.resize(size, Image.BICUBIC)
        for column, image in ((1, bicubic), (3, photo)):
            expected = image.crop((24, 16, 34, 26)).resize((20, 20), Image.NEAREST)
            np.testing.assert_allclose(panel(sheet, column, row), np.asarray(expected), atol=1)
        shown = panel(sheet, 0, row)
        assert np.array_equal(shown[6, 6], np.asarray(low)[int(19.5 / scale), int(27.5 / scale)])
        assert np.ptp(panel(sheet, 2, row)) < 255 and not np.array_equal(panel(sheet, 2, row), shown)


def test_a_compressed_part_shows_the_jpeg_that_the_models_saw(work):
    photos = work / 'load/benchmark/Set5/HR'
    part = figures.Part(str(photos), 2, 24, 16, 10, 4, quality=20)
    sheet = figures.crops(['bicubic'], [part], 20, torch.device('cpu'))
    file = io.BytesIO()
    Image.open(photos / '2.png').crop((0, 0, 60, 48)).resize((15, 12), Image.BICUBIC).save(
        file, 'JPEG', quality=20, subsampling='4:2:0')
    expected = Image.open(file).resize((20, 20), Image.NEAREST, (6, 4, 8.5, 6.5))
    np.testing.assert_allclose(panel(sheet, 0, 0), np.asarray(expected), atol=1)


def test_a_part_that_is_larger_than_it_is_shown_is_reduced(work):
    photos = work / 'load/benchmark/Set5/HR'
    part = figures.Part(str(photos), 2, 0, 0, 40, 4)
    sheet = figures.crops(['bicubic'], [part], 20, torch.device('cpu'))
    truth = Image.open(photos / '2.png').crop((0, 0, 40, 40)).resize((20, 20), Image.LANCZOS)
    np.testing.assert_allclose(panel(sheet, 2, 0), np.asarray(truth), atol=1)


def test_psnr_below_a_crop_is_that_of_its_luma(work, monkeypatch):
    captions = []
    monkeypatch.setattr(figures, 'sheet', lambda panels, columns: captions.extend(c for c, *_ in panels))
    photos = work / 'load/benchmark/Set5/HR'
    figures.crops(['bicubic', 'small'], parts(photos), 20, torch.device('cpu'))
    photo = Image.open(photos / '2.png').crop((0, 0, 60, 48))
    images = photo, photo.resize((15, 12), Image.BICUBIC).resize((60, 48), Image.BICUBIC)
    y = [np.asarray(image, float)[16:26, 24:34] @ [65.738, 129.057, 25.064] / 256 for image in images]
    psnr = 20 * np.log10(255) - 10 * np.log10(np.mean((y[0] - y[1]) ** 2))
    assert captions[0] == 'reduced by x4' and captions[3] == 'truth' and captions[4] == 'reduced by x3.7'
    assert captions[1] == f'bicubic {psnr:.2f} dB' and captions[2].startswith('small ')


def test_mixing_weights_are_shown_at_the_size_of_the_reduced_photo(work, monkeypatch):
    monkeypatch.setattr(figures, 'MIXED', (str(work / 'load/benchmark/Set5/HR'), 0, 2))
    monkeypatch.setattr(figures, 'DEFAULT', 'pretrained/small.pth')
    sheet = figures.weights(torch.device('cpu'))
    assert sheet.size == (4 * 30 + 3 * 8, 2 * (25 + 28) + 8)  # input, which rules, and three functions
    reduced = Image.open(work / 'load/benchmark/Set5/HR/0.png').resize((30, 25), Image.BICUBIC)
    assert np.array_equal(np.asarray(sheet)[:25, :30], np.asarray(reduced))


def test_pictures_of_photos_that_are_absent_are_told_and_not_made(work, monkeypatch, capsys):
    shutil.rmtree('load')
    monkeypatch.setattr(sys, 'argv', ['figures.py', '--gpu', 'cpu'])
    figures.main()
    assert [line.split(':')[0] for line in capsys.readouterr().err.splitlines()] == [
        f'results/{name}.png is not made' for name in ('photos', 'jpeg', 'crops', 'weights')]
    assert not Path('results').exists()

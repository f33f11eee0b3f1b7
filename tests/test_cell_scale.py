"""Beyond the scales of training: the cell that the network sees; and the mean over flips and transposes."""

import contextlib
import re

import pytest
import torch
from PIL import Image
from projects import CONFIG, Project
from specs import a_liif, build, lmliif, lte, metasr, pixel

import models
from evaluation import EvalConfig, evaluate
from models.pictures import upscale_pil
from models.predict import upscale_ensemble, upscale_whole
from test import scale_or_none
from utils import make_coord

NORM = {'inp': {'sub': [0], 'div': [1]}, 'gt': {'sub': [0.5], 'div': [1 / 1024]}}  # no colour is clamped


def whole(model, image, size, factor):
    """The model at all pixels, its cells times `factor`."""
    coord = make_coord(size).double().unsqueeze(0)
    cell = coord.new_tensor([2 / n for n in size]).expand_as(coord) * factor
    with torch.no_grad():
        return model(image[None], coord, cell)[0].t().view(3, *size) / 1024 + 0.5


def photo():
    torch.manual_seed(0)
    return torch.rand(3, 7, 6, dtype=torch.float64) * 0.1


@pytest.mark.parametrize('make', [lte, lmliif])
@pytest.mark.parametrize('scale, factor', [(2, 1), (4, 1), (6, 1.5), (10, 2.5)])
def test_lte_and_lm_liif_see_no_cell_smaller_than_at_x4(make, scale, factor):
    model, image = build(make()).eval(), photo()
    size = 7 * scale, 6 * scale
    torch.testing.assert_close(upscale_whole(model, image, size, NORM), whole(model, image, size, factor))


@pytest.mark.parametrize('scale_max, factor', [(2, 4), (8, 1)])
def test_lte_trained_to_another_scale_sees_cells_down_to_those_of_that_one(scale_max, factor):
    model, image = build(lte()).eval(), photo()
    model.scale_max = scale_max
    torch.testing.assert_close(upscale_whole(model, image, (56, 48), NORM), whole(model, image, (56, 48), factor))


@pytest.mark.parametrize('make', [a_liif, pixel])
def test_liif_and_a_liif_see_every_cell_unless_it_is_clipped(make):
    model, image, size = build(make()).eval(), photo(), (42, 36)
    torch.testing.assert_close(upscale_whole(model, image, size, NORM), whole(model, image, size, 1))
    torch.testing.assert_close(upscale_whole(model, image, size, NORM, clip=True), whole(model, image, size, 1.5))
    model.scale_max = 3.
    torch.testing.assert_close(upscale_whole(model, image, size, NORM, clip=True), whole(model, image, size, 2))
    model.clip_cell, model.scale_max = True, 2.
    torch.testing.assert_close(upscale_whole(model, image, size, NORM), whole(model, image, size, 3))


def test_metasr_whose_cells_are_places_is_never_clipped_by_the_demos():
    model, image, size = build(metasr()).eval(), photo(), (42, 36)
    torch.testing.assert_close(upscale_whole(model, image, size, NORM, clip=True), whole(model, image, size, 1))


def test_the_demos_clip():
    model = models.make(pixel()).eval()
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.4)
    image = Image.effect_mandelbrot((6, 7), (-2, -1, 1, 1), 50).convert('RGB')
    clipped, model.scale_max = upscale_pil(model, image, scale=6), None
    assert clipped.tobytes() != upscale_pil(model, image, scale=6).tobytes()


@pytest.mark.parametrize('text, scale', [('4', 4), ('2.5', 2.5), ('none', None)])
def test_max_cell_scale_is_a_scale_or_none(text, scale):
    assert scale_or_none(text) == scale


def test_the_self_ensemble_is_the_mean_of_eight_predictions_brought_back():
    model, image, size = build(a_liif()).eval(), photo(), (15, 20)
    expected = 0
    for turns in range(4):
        for mirrored in (False, True):
            turned = torch.rot90(image, turns, (1, 2))
            turned = turned.flip(2) if mirrored else turned
            out = whole(model, turned, size if turns % 2 == 0 else size[::-1], 1)
            out = out.flip(2) if mirrored else out
            expected = expected + torch.rot90(out, -turns, (1, 2)) / 8
    torch.testing.assert_close(upscale_ensemble(model, image, size, NORM), expected)
    deep = (image * 65535).round().to(torch.uint16)
    torch.testing.assert_close(upscale_ensemble(model, deep, size, NORM), expected, rtol=0, atol=1e-4)


def test_a_picture_by_the_self_ensemble_does_not_depend_on_how_it_is_turned():
    model = models.make(pixel()).eval()
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.4)
    image = Image.effect_mandelbrot((9, 7), (-2, -1, 1, 1), 50).convert('RGB')
    one = upscale_pil(model, image, scale=2, self_ensemble=True)
    other = upscale_pil(model, image.transpose(Image.ROTATE_90), scale=2, self_ensemble=True)
    difference = (torch.frombuffer(bytearray(one.tobytes()), dtype=torch.uint8).int()
                  - torch.frombuffer(bytearray(other.transpose(Image.ROTATE_270).tobytes()), dtype=torch.uint8).int())
    assert difference.abs().max() <= 1


def test_validation_bounds_cells_by_the_scale_of_training_as_evaluation_does(tmp_path):
    whole = {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 6}}
    project = Project(tmp_path, {'epoch_max': 1, 'model': lte(), 'train_dataset.wrapper.args.scale_max': 3,
                                 'val_dataset.wrapper': whole})
    project.train()
    told = float(re.search(r'val: psnr=([\d.]+)', (project.run / 'log.txt').read_text())[1])
    config = EvalConfig({'dataset': CONFIG['val_dataset']['dataset'], 'wrapper': whole, 'batch_size': 1})
    with contextlib.chdir(tmp_path):
        assert evaluate(config, models.load(project.run / 'epoch-last.pth'))['psnr'] == pytest.approx(told, abs=1e-4)


def test_a_checkpoint_records_the_largest_scale_of_its_training(tmp_path):
    project = Project(tmp_path, {'epoch_max': 1, 'train_dataset.wrapper.args.scale_max': 3})
    project.train()
    assert models.load(project.run / 'epoch-last.pth').scale_max == 3

"""From picture to larger picture by the three-line API: every mode, size and profile."""

import io

import numpy as np
import pytest
import reference
import skimage.data
import specs
import torch
from PIL import Image
from upscaling import RANDOM, SRGB, assert_close, interpolated, picture

import models
from errors import UserError
from models import load_pretrained, predict, pretrained, upscale_pil
from models.mixing import mixing_weights

# --- three lines in a notebook --------------------------------------------------------------------------------------


def test_upscaled_picture_is_the_models_equations(weights):
    image = picture(width=7, height=6)
    big = upscale_pil(load_pretrained(weights / 'random.pth'), image, scale=2.5)

    inp = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double() / 255
    state = {k: v.double() for k, v in torch.load(weights / 'random.pth')['model']['sd'].items()}
    colours = reference.forward(RANDOM, state, inp * 2 - 1, *specs.grid(15, 18, batch=1))
    assert big.size == (18, 15)
    assert_close(big, ((colours * 0.5 + 0.5).clamp(0, 1) * 255).view(15, 18, 3).numpy(), 0.51)


def test_pretrained_models_are_found_by_name(weights, monkeypatch):
    monkeypatch.setattr(pretrained, 'FOLDER', weights)
    assert load_pretrained('liif').state_dict().keys() == models.load(weights / 'liif.pth').state_dict().keys()


def test_unknown_name_lists_the_known_ones(weights, monkeypatch):
    monkeypatch.setattr(pretrained, 'FOLDER', weights)
    with pytest.raises(UserError, match=r"'liff', did you mean 'liif'\? \(known: bilinear, brighter, liif, random\)"):
        load_pretrained('liff')


def test_model_in_the_box_beats_bicubic_by_half_a_decibel():
    truth = Image.fromarray(skimage.data.astronaut()[50:178, 160:288])
    small = truth.resize((64, 64), Image.BICUBIC)
    ours = upscale_pil(load_pretrained('edsr-baseline-A-liif-pixel'), small, scale=2)
    errors = [np.square(np.asarray(image, dtype=float) - np.asarray(truth)).mean()
              for image in (small.resize((128, 128), Image.BICUBIC), ours)]
    assert 10 * np.log10(errors[0] / errors[1]) > 0.5


@pytest.mark.parametrize('arguments, size', [
    ({'size': np.int64(24)}, (20, 24)), ({'size': (np.int32(20), 30)}, (20, 30)), ({'size': [20, 30]}, (20, 30)),
    ({'scale': np.float32(2)}, (20, 24)), ({'scale': np.int64(2)}, (20, 24))], ids=str)
def test_numbers_of_any_type_are_scales_and_whole_ones_sizes(bilinear, arguments, size):
    assert upscale_pil(bilinear, picture(), **arguments).size == size[::-1]


@pytest.mark.parametrize('arguments, told', [
    ({'size': 20.}, 'size must be .* whole numbers, not 20.0'), ({'size': (20., 30.)}, 'whole numbers'),
    ({'size': (20,)}, 'two whole numbers'), ({'size': (20, 30, 3)}, 'two whole numbers'), ({'size': '20'}, 'whole'),
    ({'scale': '2'}, "scale must be a number, .* not '2'"), ({'scale': float('nan')}, 'not nan'),
    ({'scale': 0.5}, 'at least 1')], ids=str)
def test_what_is_no_scale_or_size_is_an_error(bilinear, arguments, told):
    with pytest.raises(UserError, match=told):
        upscale_pil(bilinear, picture(), **arguments)


@pytest.mark.parametrize('arguments', [{'scale': 2}, {'size': 20}, {'size': (20, 20)}], ids=str)
def test_a_picture_without_pixels_is_an_error(bilinear, arguments):
    with pytest.raises(UserError, match='at least one pixel'):
        upscale_pil(bilinear, Image.new('RGB', (0, 10)), **arguments)


@pytest.mark.parametrize('arguments, size', [
    ({'scale': 1}, (10, 12)), ({'scale': 3.7}, (37, 44)), ({'scale': 10}, (100, 120)),
    ({'size': (10, 60)}, (10, 60)), ({'size': (45, 12)}, (45, 12))])
def test_any_scale_and_any_aspect_ratio(bilinear, arguments, size):
    image = picture()
    big = upscale_pil(bilinear, image, **arguments)
    assert big.size == size[::-1]
    assert_close(big, interpolated(image, size))


@pytest.mark.parametrize('arguments, told', [
    ({}, 'either a scale or a size is needed'), ({'scale': 2, 'size': (20, 24)}, 'either a scale or a size'),
    ({'scale': 0.99}, 'at least 1 .*, not 0.99'), ({'scale': float('inf')}, 'at most .*, not inf'),
    ({'size': (0, 24)}, 'size must be at least 1x1, not 24x0'),
    ({'size': (9, 24)}, 'size 24x9 is smaller than the picture, 12x10'),
    ({'size': (20, 11)}, 'size 11x20 is smaller than the picture, 12x10')], ids=str)
def test_size_must_be_given_once_and_not_below_the_pictures(bilinear, arguments, told):
    with pytest.raises(UserError, match=told):
        upscale_pil(bilinear, picture(), **arguments)


@pytest.mark.parametrize('mode, result', [
    ('L', 'L'), ('LA', 'LA'), ('RGB', 'RGB'), ('RGBA', 'RGBA'), ('1', 'L'), ('P', 'RGB'), ('CMYK', 'RGB'),
    ('YCbCr', 'RGB')])
def test_colours_of_every_mode(bilinear, mode, result):
    image = picture(mode)
    big = upscale_pil(bilinear, image, scale=2.5)
    assert big.mode == result
    colours = result.rstrip('A')
    assert_close(big.convert(colours), interpolated(image.convert(colours), (25, 30)))


def test_palette_with_a_transparent_colour_becomes_rgba(bilinear):
    image = picture('P')
    image.info['transparency'] = image.getpixel((0, 0))
    assert upscale_pil(bilinear, image, scale=2).mode == 'RGBA'


def test_picture_of_several_bands_is_put_together(bilinear, monkeypatch):
    monkeypatch.setattr(predict, 'TILE', 4)
    image = picture('RGBA')
    big = upscale_pil(bilinear, image, scale=2)
    assert_close(big.convert('RGB'), interpolated(image.convert('RGB'), (20, 24)))
    assert_close(big.getchannel('A'), image.getchannel('A').resize((24, 20), Image.BICUBIC), 0)


@pytest.mark.parametrize('mode, dtype', [('I;16', '<u2'), ('I;16B', '>u2'), ('I', '<i4')])
def test_grey_of_16_bits_keeps_them(bilinear, mode, dtype):
    values = np.arange(120, dtype=np.uint16).reshape(10, 12) * 540 + 7
    big = upscale_pil(bilinear, Image.frombytes(mode, (12, 10), values.astype(dtype).tobytes()), scale=3)
    assert big.mode == 'I;16'
    assert_close(big, interpolated(values, (30, 36)), 2)


def test_grey_stays_grey_where_the_model_answers_in_colour(weights):
    model = load_pretrained(weights / 'bilinear.pth')
    with torch.no_grad():
        model.imnet.biases[-1][:] = torch.tensor([0.3, 0, 0])
    big = upscale_pil(model, Image.new('L', (6, 5), 100), scale=2)
    offset = 0.3 * 3 ** 0.5 / 2 / 3 * 255  # of three functions of weight 1 / sqrt(3), in one of three channels
    assert_close(big, np.full((10, 12), 100 + offset))


@pytest.mark.parametrize('value', [-1, 65536])
def test_grey_of_more_than_16_bits_is_an_error(bilinear, value):
    with pytest.raises(UserError, match='more than 16 bits'):
        upscale_pil(bilinear, Image.new('I', (4, 4), value), scale=2)


@pytest.mark.parametrize('image', [np.zeros((4, 4, 3), np.uint8), torch.zeros(3, 4, 4), 'photo.jpg'],
                         ids=['array', 'tensor', 'path'])
def test_what_is_no_picture_is_an_error(bilinear, image):
    with pytest.raises(UserError, match='must be a picture, not .*: models.upscale takes arrays'):
        upscale_pil(bilinear, image, scale=2)


@pytest.mark.parametrize('mode', ['F', 'LAB'])
def test_other_modes_are_named_in_the_error(bilinear, mode):
    with pytest.raises(UserError, match=f'mode {mode} '):
        upscale_pil(bilinear, Image.new(mode, (4, 4)), scale=2)


@pytest.mark.parametrize('orientation, turn', [
    (1, None), (2, Image.FLIP_LEFT_RIGHT), (3, Image.ROTATE_180), (4, Image.FLIP_TOP_BOTTOM), (5, Image.TRANSPOSE),
    (6, Image.ROTATE_270), (7, Image.TRANSVERSE), (8, Image.ROTATE_90)])
def test_orientation_is_applied_and_its_tag_dropped(bilinear, orientation, turn):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, 'the maker'
    file = io.BytesIO()
    picture().save(file, 'PNG', exif=exif)

    big = upscale_pil(bilinear, Image.open(file), scale=2)
    upright = picture() if turn is None else picture().transpose(turn)
    assert_close(big, interpolated(upright, (2 * upright.height, 2 * upright.width)))
    exif = Image.Exif()
    exif.load(big.info['exif'])
    assert exif.get(0x0112, 1) == 1
    assert exif[0x010F] == 'the maker'


@pytest.mark.parametrize('mode, space, kept', [
    ('RGB', b'RGB ', True), ('RGBA', b'RGB ', True), ('P', b'RGB ', True), ('L', b'GRAY', True), ('LA', b'GRAY', True),
    ('CMYK', b'CMYK', False), ('L', b'RGB ', False)])
def test_icc_profile_is_kept_where_it_is_of_the_results_colour_space(bilinear, mode, space, kept):
    image = picture(mode)
    image.info['icc_profile'] = profile = SRGB[:16] + space + SRGB[20:]
    assert upscale_pil(bilinear, image, scale=2).info.get('icc_profile') == (profile if kept else None)


@pytest.mark.parametrize('make', [specs.a_liif, specs.pixel])
def test_mixing_weights_are_those_at_the_centres_of_input_pixels_across_tiles(make, monkeypatch):
    monkeypatch.setattr(predict, 'TILE', 20)
    spec = make(residual='bilinear')
    model = specs.build(spec).float().eval()
    image = torch.rand(3, 4, 50)
    weights = mixing_weights(model, image, size=(9, 600), view=(3, 40))  # above x4 in width, with the cell of x4

    state = {k: v.double() for k, v in model.state_dict().items()}
    encoder = {k.removeprefix('encoder.'): v for k, v in state.items() if k.startswith('encoder.')}
    feat = reference.unfold(reference.edsr(encoder, image[None].double() * 2 - 1, no_upsampling=True)[0])
    cell = torch.tensor([2 / 9, 2 / 200], dtype=torch.float64)
    centres = [(reference.centre(int((y + 1) / 2 * 4), 4), reference.centre(int((x + 1) / 2 * 50), 50))
               for y, x in specs.grid(3, 40, batch=1)[0][0].tolist()]
    expected = torch.stack([
        reference.query(feat, y, x, cell, lambda *code: reference.mixing_weights(
            state, spec['args']['expansion_spec']['args'], *code), local_ensemble=True, cell_decode=True)
        for y, x in centres])
    torch.testing.assert_close(weights, expected.t().view(-1, 3, 40).float(), rtol=1e-4, atol=1e-5)


def test_an_encoder_with_an_upsampler_has_no_mixing_weights_to_show():
    spec = specs.a_liif(encoder_spec={'name': 'edsr-baseline', 'args': {'scale': 2, 'n_resblocks': 1, 'n_feats': 4}})
    with pytest.raises(UserError, match='without an upsampler only'):
        mixing_weights(specs.build(spec).float(), torch.rand(3, 5, 6), size=(10, 12), view=(5, 6))

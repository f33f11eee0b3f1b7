"""Parts of a picture: equal to the same part of the whole, and nothing encoded that they do not need."""

import functools

import numpy as np
import pytest
import specs
import torch
from PIL import Image
from specs import RCAN, RDN, SWINIR, a_liif, fixed_scale, liif, lte, metasr, pixel
from upscaling import picture

import models
from errors import UserError
from models import predict, regions, upscale_pil, upscale_region
from models.predict import upscale_whole
from models.regions import Encoded
from pictures.deep import Deep

MODELS = {'pixel': pixel(residual='bilinear'), 'a-liif': a_liif(), 'liif': liif(), 'metasr': metasr(), 'lte': lte(),
          'pixel-rdn': pixel(encoder_spec=RDN), 'pixel-rcan': pixel(encoder_spec=RCAN),
          'pixel-swinir': pixel(encoder_spec=SWINIR), 'fixed-scale': fixed_scale(residual='bilinear')}
SHAPE = 23, 19  # h, w
# a part of the output, (top, bottom, left, right), of the whole of that size (H, W): its edges in the input are
# between pixels; they are at the picture's own; the part is one pixel; it is less than a pixel of the input
PARTS = [((70, 57), (10, 31, 7, 44)), ((46, 38), (0, 46, 0, 38)), ((33, 27), (20, 21, 26, 27)),
         ((138, 114), (61, 64, 40, 42)), ((11, 38), (3, 9, 4, 33))]

each_model = pytest.mark.parametrize('name', MODELS)


@pytest.fixture(autouse=True)
def few(small_tiles, small_rdn, seeded, monkeypatch):
    """Few pixels encoded at once, and few kept."""
    for module, name, value in (predict, 'TILE', 7), (regions, 'KEPT', 4), (regions, 'AT_ONCE', 6):
        monkeypatch.setattr(module, name, value)


def photo():
    return torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def image():
    return photo()


def make(spec):
    torch.manual_seed(0)
    return models.make(spec).eval()


def box_of(size, part):
    """The box in the input of the `part` of an output of `size`."""
    top, bottom, left, right = part
    return left * SHAPE[1] / size[1], top * SHAPE[0] / size[0], right * SHAPE[1] / size[1], bottom * SHAPE[0] / size[0]


def expected(model, image, size, part):
    """That part of the whole, which is made without tiles and in few bands: many would take seconds."""
    top, bottom, left, right = part
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, 'TILE', 512)
        patch.setattr(predict, 'QUERIES', 1 << 18)
        return upscale_whole(model, image, size, model.data_norm, clip=True)[:, top:bottom, left:right]


@pytest.fixture(scope='module')
def wholes():
    """`expected` for the names of models, each computed once."""
    return functools.cache(lambda name, size, part: expected(make(MODELS[name]), photo(), size, part))


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def seen(model, ask):
    """How many pixels the encoder of `model` is shown while `ask` runs."""
    counts = []
    handle = model.encoder.register_forward_pre_hook(lambda module, args: counts.append(args[0][0, 0].numel()))
    ask()
    handle.remove()
    return sum(counts)


@each_model
@pytest.mark.parametrize('size, part', PARTS)
def test_a_region_equals_that_part_of_the_whole(name, image, size, part, wholes):
    top, bottom, left, right = part
    region = upscale_region(make(MODELS[name]), image, box_of(size, part), (bottom - top, right - left))
    assert_close(region, wholes(name, size, part))


@each_model
def test_regions_that_share_features_equal_those_parts_of_the_whole(name, image, wholes):
    encoded = Encoded(make(MODELS[name]), image)
    for size, part in PARTS:
        top, bottom, left, right = part
        assert_close(encoded.region(box_of(size, part), (bottom - top, right - left)), wholes(name, size, part))


def test_the_encoder_sees_the_box_and_its_receptive_field_alone(image):
    """3 and 2 pixels wide and high; around them one code for the local ensemble, one for the 3x3 codes, one since the
    corner may belong to the next; and the encoder's radius."""
    model = make(pixel())
    margin = 3 + model.receptive_radius
    count = seen(model, lambda: upscale_region(model, image, (9, 11, 12, 13), (20, 30)))
    assert (3 + 2 * 2 + 2 * model.receptive_radius) * 2 < count <= (3 + 2 * margin) * (2 + 2 * margin)


@pytest.mark.parametrize('spec', [pixel(), pixel(encoder_spec=RCAN), fixed_scale()], ids=['tiles', 'whole', 'larger'])
def test_what_is_encoded_is_not_encoded_again(spec, image):
    model = make(spec)
    encoded = Encoded(model, image)
    assert seen(model, lambda: encoded.region((5, 5, 15, 17), (50, 50))) > 0
    assert seen(model, lambda: encoded.region((6.5, 5.25, 14, 16), (90, 80))) == 0


def test_of_a_view_beside_another_the_new_tiles_alone_are_encoded(monkeypatch):
    monkeypatch.setattr(predict, 'TILE', 512)
    monkeypatch.setattr(regions, 'AT_ONCE', 512)
    model, image = make(pixel()), torch.rand(3, 100, 100)
    encoded = Encoded(model, image)
    first = seen(model, lambda: encoded.region((10, 10, 70, 90), (80, 60)))
    assert 0 < seen(model, lambda: encoded.region((14, 10, 74, 90), (80, 60))) < first / 3


def test_features_that_were_lost_are_computed_again(image):
    class Forgetful(dict):
        def get(self, key):
            return None

    model = make(pixel())
    encoded = Encoded(model, image, Forgetful())
    for _ in range(2):
        assert seen(model, lambda: assert_close(encoded.region((0, 0, 19, 23), (46, 38)),
                                                expected(model, image, (46, 38), (0, 46, 0, 38)))) > 0


def test_a_region_of_16_bit_colour_is_that_part_of_it_upscaled():
    model = make(pixel(residual='bilinear'))
    image = Deep(np.random.default_rng(0).integers(0, 65536, (16, 20, 3), dtype=np.uint16))
    region = upscale_region(model, image, (4, 2, 11, 15), (39, 21))
    whole = upscale_pil(model, image, scale=3)
    assert region.mode == 'RGB;16' and (np.asarray(whole) % 257 > 0).any()
    assert np.abs(np.asarray(region).astype(int) - np.asarray(whole)[6:45, 12:33]).max() <= 2


@pytest.mark.parametrize('mode', ['RGB', 'L', 'I;16', 'LA', 'RGBA'])
def test_a_region_of_a_picture_is_that_part_of_the_picture_upscaled(mode):
    model = make(pixel(residual='bilinear'))
    image = picture('I' if mode == 'I;16' else mode, 20, 16)
    if mode == 'I;16':
        image = Image.fromarray((np.asarray(image) * 257).astype(np.uint16))
    if mode.endswith('A'):
        image.putalpha(Image.linear_gradient('L').resize((20, 16)))
    whole = np.asarray(upscale_pil(model, image, scale=3)).astype(int)
    region = upscale_region(model, image, (4, 2, 11, 15), (39, 21))
    assert region.mode == mode
    tolerance = 2 if mode == 'I;16' else 1
    assert np.abs(np.asarray(region).astype(int) - whole[6:45, 12:33]).max() <= tolerance


def test_the_box_of_a_turned_photo_is_in_the_photo_as_it_is_seen():
    model, image = make(pixel(residual='bilinear')), picture('RGB', 20, 16)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = image.transpose(Image.ROTATE_270)
    image.info['exif'] = exif.tobytes()
    image.getexif()[0x0112] = 6
    region = upscale_region(model, image, (2, 3, 16, 20), (34, 28))
    assert np.array_equal(np.asarray(region), np.asarray(upscale_region(model, upright, (2, 3, 16, 20), (34, 28))))


@pytest.mark.parametrize('box', [(-0.1, 0, 5, 5), (0, 0, 19.01, 5), (5, 5, 5, 9), (6, 5, 5, 9), (0, 0, 5, float('nan')),
                                 (0, float('-inf'), 5, 5)])
def test_a_box_that_is_not_inside_the_image_is_an_error(image, box):
    with pytest.raises(UserError, match=r'box must be \(left, top, right, bottom\) inside the image, 19x23'):
        upscale_region(make(pixel()), image, box, (10, 10))


def test_a_size_without_pixels_is_an_error(image):
    with pytest.raises(UserError, match='size must be at least 1x1, not 10x0'):
        upscale_region(make(pixel()), image, (0, 0, 5, 5), (0, 10))


def test_a_size_may_be_of_any_whole_numbers_and_a_box_of_any_numbers(image):
    model, args = make(pixel()), ((0, 0, np.float32(5), np.int64(6)), (np.int64(12), torch.tensor(10)))
    assert_close(upscale_region(model, image, *args), upscale_region(model, image, (0, 0, 5, 6), (12, 10)))


def test_the_size_of_a_pictures_region_may_be_an_array():
    assert upscale_region(make(pixel()), Image.new('RGB', (9, 9)), (1, 1, 9, 9), np.array([12, 10])).size == (10, 12)


@pytest.mark.parametrize('box', [(0, 0, 5), 'abcd', None], ids=str)
def test_a_box_of_other_than_four_numbers_is_an_error(image, box):
    with pytest.raises(UserError, match='box must be four numbers'):
        upscale_region(make(pixel()), image, box, (10, 10))


@pytest.mark.parametrize('size', [20, (20,), (20., 30.), (20, 30, 3), None], ids=str)
def test_a_size_that_is_not_two_whole_numbers_is_an_error(image, size):
    with pytest.raises(UserError, match='size must be .H, W., two whole numbers, not '):
        upscale_region(make(pixel()), image, (0, 0, 5, 5), size)


@pytest.mark.parametrize('wrong, told', [
    (np.zeros((8, 8, 3), np.uint8), 'must be a picture or a tensor .C, h, w., not ndarray'),
    (torch.zeros(3, 0, 8), 'at least one pixel, not .3, 0, 8.'), (torch.zeros(8, 8), 'C, h, w'),
    (torch.zeros(3, 8, 8, dtype=torch.int32), 'must be uint8, uint16 or float, not int32'),
    (torch.full((3, 8, 8), 200.), 'floats must have values from 0 to 1, not from 200 to 200'),
    (torch.full((3, 8, 8), torch.nan), 'from nan to nan')], ids=['array', 'empty', 'plane', 'int32', 'range', 'nan'])
def test_what_is_no_image_is_an_error(wrong, told):
    with pytest.raises(UserError, match=told):
        upscale_region(make(pixel()), wrong, (0, 0, 5, 5), (10, 10))


def test_at_any_depth_a_region_is_finite_and_near_the_colour_there():
    model = make(specs.pixel(residual='bilinear'))
    image = torch.rand(3, 40, 4000)
    deep = upscale_region(model, image, (3000.2, 20.2, 3000.2001, 20.2001), (8, 8))
    point = upscale_region(model, image, (3000.2, 20.2, 3000.21, 20.21), (1, 1))
    assert (deep - point).abs().max() < 0.02

"""Images of any size: `upscale` in tiles and bands equals the model on the whole image."""

import pytest
import torch
from specs import (
    RCAN,
    RDN,
    SWINIR,
    a_liif,
    assert_equal,
    build,
    fixed_scale,
    liif,
    lmliif,
    lmlte,
    lte,
    lte_fast,
    metasr,
    pixel,
)

import models
from errors import UserError
from models import predict
from models.predict import upscale_blocks, upscale_whole
from scripts.benchmark import peak_bytes
from utils import make_coord

CPU = torch.device('cpu')
DATA_NORM = {'inp': {'sub': [0.5, 0.25, 0.375], 'div': [0.5, 0.25, 0.75]},
             'gt': {'sub': [0.5, 0.375, 0.625], 'div': [1 / 256, 1 / 512, 1 / 128]}}  # keeps colours clear of 0, 1
MODELS = {'a-liif': a_liif(), 'pixel': pixel(), 'pixel-residual': pixel(residual='bilinear'), 'liif': liif(),
          'liif-residual': liif(residual='bilinear'), 'metasr': metasr(), 'pixel-rdn': pixel(encoder_spec=RDN),
          'lte': lte(), 'lte-fast': lte_fast(), 'lmliif': lmliif(), 'lmlte': lmlte(),
          'lmliif-plain': lmliif(mod_input=False), 'pixel-rcan': pixel(encoder_spec=RCAN),
          'a-liif-rcan': a_liif(encoder_spec=RCAN), 'pixel-swinir': pixel(encoder_spec=SWINIR),
          'lte-swinir': lte(encoder_spec=SWINIR), 'fixed-scale': fixed_scale(), 'fixed-scale-1': fixed_scale(1),
          'fixed-scale-residual': fixed_scale(residual='bilinear')}
SIZES = {'x2': (46, 38), 'x3': (69, 57), 'x1': (23, 19), 'x1.3': (30, 25), 'x3.04x2.05': (70, 39), 'x1.1x3.7': (25, 70),
         'x0.4x2': (9, 38), 'x3x0.3': (69, 6), 'x0.2': (5, 4), '1x1': (1, 1), '1x40': (1, 40)}  # of a 23x19 input
THOROUGH = 'a-liif', 'pixel-residual', 'lte', 'fixed-scale-residual'  # these are tried with all sizes
TILED = 'liif', 'pixel-rdn'  # encoded in tiles, by encoders of two reaches: the decoder does not matter
each_space = pytest.mark.parametrize('make', [a_liif, pixel], ids=['query', 'pixel'])


pytestmark = pytest.mark.usefixtures('small_tiles', 'small_rdn', 'seeded')


def each(names):
    return pytest.mark.parametrize('spec', [MODELS[name] for name in names], ids=names)


def photo(h, w):
    return torch.rand(3, h, w, dtype=torch.float64)


def grid(height, width, batch=1):
    """Coordinates and cells of all pixels of a height x width image, rounded to float32 as `upscale` has them."""
    coord = make_coord((height, width)).double().expand(batch, -1, -1)
    return coord, coord.new_tensor([2 / height, 2 / width]).expand_as(coord)


def whole(model, image, size, data_norm=DATA_NORM):
    """The image (3, H, W) that one call of the model for all of its pixels gives."""
    (sub, div), (gt_sub, gt_div) = ([torch.tensor(data_norm[of][k]).to(image).view(-1, 1, 1) for k in ('sub', 'div')]
                                    for of in ('inp', 'gt'))
    with torch.enable_grad():  # where training goes, not the fast paths
        coord, cell = (x.to(image) for x in grid(*size))
        pred = model(((image - sub) / div).unsqueeze(0), coord, cell).detach()
    return (pred[0].t().view(3, *size) * gt_div + gt_sub).clamp(0, 1)


def upscaled(model, image, size, data_norm=DATA_NORM):
    return upscale_whole(model, image, size, data_norm)


def assert_equals_the_whole(spec, image, size):
    model = build(spec)
    expected = whole(model, image, size)
    assert ((expected > 0) & (expected < 1)).double().mean() > 0.5  # not clamped
    assert_equal(upscaled(model, image, size), expected)


# --- tiles and bands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('model, size', [(model, size) for model in MODELS for size in SIZES
                                         if model in THOROUGH or size in ('x1.1x3.7', 'x0.4x2')])
def test_upscaled_image_equals_the_whole(model, size):
    assert_equals_the_whole(MODELS[model], photo(23, 19), SIZES[size])


@pytest.mark.parametrize('spec, scale, shape', [
    pytest.param(spec, scale, shape, id=f'{name}-x{scale}-{shape}') for name, spec in MODELS.items()
    for scale in ((3, 1.7) if name in THOROUGH else (3,))
    for shape in ((1, 1), (1, 20), (20, 1), (2, 9), (6, 6), (7, 13)) if name in THOROUGH or shape in ((1, 1), (7, 13))])
def test_input_of_any_size_is_upscaled_as_a_whole(spec, shape, scale):
    assert_equals_the_whole(spec, photo(*shape), [round(n * scale) for n in shape])


@pytest.mark.parametrize('args', [
    {'local_ensemble': False}, {'feat_unfold': False}, {'cell_decode': False},
    {'local_ensemble': False, 'feat_unfold': False, 'cell_decode': False}, {'residual': 'bilinear'}], ids='-'.join)
@each_space
def test_upscaled_image_equals_the_whole_with_each_switch(make, args):
    assert_equals_the_whole(make(**args), photo(23, 19), (50, 38))


@pytest.mark.parametrize('tile, queries', [(1, 1), (3, 40), (11, 10 ** 9), (10 ** 9, 60)])
def test_how_the_image_is_cut_does_not_matter(monkeypatch, tile, queries):
    monkeypatch.setattr(predict, 'TILE', tile)
    monkeypatch.setattr(predict, 'QUERIES', queries)
    monkeypatch.setattr(predict, 'ROWS', 1)
    assert_equals_the_whole(pixel(residual='bilinear'), photo(13, 11), (30, 40))


@each(MODELS)
def test_in_float32_the_difference_stays_below_1e_5(spec):
    model, image = models.make(spec).eval(), photo(23, 19).float()  # the size of weights that one has
    half = {'sub': [0.5], 'div': [0.5]}
    args = model, image, (40, 30), {'inp': half, 'gt': half}
    torch.testing.assert_close(upscaled(*args), whole(*args), rtol=0, atol=1e-5)


@each_space
def test_bytes_count_as_255ths(make):
    model, image = build(make()), torch.randint(256, (3, 23, 19), dtype=torch.uint8)
    assert_equal(upscaled(model, image, (40, 30)), whole(model, image.double() / 255, (40, 30)))


@each_space
def test_without_data_norm_the_model_sees_and_paints_colours_as_they_are(make):
    model, image, identity = build(make()), photo(9, 8), {'sub': [0.0], 'div': [1.0]}
    expected = whole(model, image, (20, 20), {'inp': identity, 'gt': identity})
    assert expected.min() == 0 and ((expected > 0) & (expected < 1)).any()  # what is out of range is clamped
    assert_equal(upscaled(model, image, (20, 20), None), expected)


@each(TILED)
def test_blocks_cover_each_output_pixel_once(spec):
    blocks, covered = list(upscale_blocks(build(spec), photo(23, 19), (50, 44))), torch.zeros(50, 44)
    for top, left, block in blocks:
        assert block.shape[0] == 3
        covered[top:top + block.shape[1], left:left + block.shape[2]] += 1
    assert len(blocks) > 16 and (covered == 1).all()


class Halved(torch.nn.Conv2d):
    """An encoder of one feature for 2x2 pixels."""

    def __init__(self):
        super().__init__(3, 4, 3, stride=2, padding=1)
        self.out_dim = 4


def test_an_encoder_with_a_receptive_radius_that_gives_no_feature_for_each_pixel_is_told_so():
    model = build(liif())
    model.encoder, image = Halved().double(), photo(23, 19)
    assert_equal(upscaled(model, image, (46, 38)), whole(model, image, (46, 38)))
    model.encoder.receptive_radius = 1
    with pytest.raises(UserError, match='it must give one feature for each pixel'):
        upscaled(model, image, (46, 38))


# --- memory ----------------------------------------------------------------------------------------------------------


def shapes_seen(model):
    """The inputs' (height, width) that the model's encoder gets, appended as it does."""
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[-2:]))
    return seen


@each(TILED)
def test_encoder_sees_a_tile_and_its_receptive_field(spec):
    model = build(spec)
    seen = shapes_seen(model)
    upscaled(model, photo(50, 43), (60, 50))
    assert len(seen) == 9 * 8
    assert max(max(shape) for shape in seen) <= 6 + 2 * (model.receptive_radius + 2)  # 2: ensemble and unfolding


@each(TILED)
def test_a_block_is_made_when_it_is_asked_for(spec):
    model = build(spec)
    seen = shapes_seen(model)
    blocks = upscale_blocks(model, photo(23, 19), (46, 38))
    assert len(seen) == 0
    next(blocks)
    assert len(seen) == 1


@each(TILED)
@pytest.mark.parametrize('shape, size', [((23, 19), (69, 57)), ((2, 3), (90, 120))], ids=['x3', 'x40'])
def test_at_most_queries_pixels_are_decoded_at_a_time(spec, shape, size, monkeypatch):
    model, seen = build(spec), []
    query_grid = model.query_grid
    monkeypatch.setattr(model, 'query_grid', lambda features, y, x, cell: (
        seen.append(len(y) * len(x)), query_grid(features, y, x, cell))[1])
    upscaled(model, photo(*shape), size)
    assert sum(seen) == size[0] * size[1] and 100 < max(seen) <= 150


@each([*TILED, 'a-liif-rcan', 'lmliif-plain'])
def test_features_of_a_band_are_prepared_at_a_time(spec, monkeypatch):
    model, seen = build(spec), []
    hoist = model.hoist
    monkeypatch.setattr(model, 'hoist', lambda feat: seen.append(feat.shape[-2]) or hoist(feat))
    upscaled(model, photo(23, 19), (69, 57))
    assert max(seen) <= 150 // (4 * 3 * 3) + 2 * 2  # rows of 4 pixels' queries, and on both sides 2 rows of neighbours


def test_a_band_has_enough_rows_that_what_bands_share_costs_little(monkeypatch):
    monkeypatch.undo()
    model, seen = build(pixel()), []
    hoist = model.hoist
    monkeypatch.setattr(predict, 'QUERIES', 4096)
    monkeypatch.setattr(model, 'hoist', lambda feat: seen.append(feat.shape[-2]) or hoist(feat))
    upscaled(model, photo(64, 8), (64 * 30, 8 * 30))
    assert len(seen) == 4 and sum(seen) < 1.4 * 64


@pytest.mark.parametrize('encoder', [RCAN, fixed_scale()['args']['encoder_spec']], ids=['rcan', 'with-upsampler'])
def test_encoder_without_a_receptive_radius_sees_the_whole_image(encoder):
    model = build(liif(encoder_spec=encoder))
    seen = shapes_seen(model)
    upscaled(model, photo(23, 19), (46, 38))
    assert model.receptive_radius is None and seen == [(23, 19)]


@each_space
def test_peak_memory_does_not_grow_with_the_image(make, monkeypatch):
    encoder = {'name': 'edsr-baseline', 'args': {'no_upsampling': True, 'n_resblocks': 1, 'n_feats': 48}}
    model = models.make(make(encoder_spec=encoder, hidden=[4])).eval()

    def peak(h, w, tile):
        monkeypatch.setattr(predict, 'TILE', tile)
        monkeypatch.setattr(predict, 'QUERIES', 4096)
        image = torch.randint(256, (3, h, w), dtype=torch.uint8)
        return peak_bytes(lambda: sum(block.shape[1] for *_, block in upscale_blocks(model, image, (h, w))), CPU)

    untiled = 3 * 576 * 192 * 48 * 4  # bytes: a residual block holds its input, its output and the encoder's skip
    assert max(peak(128, 192, tile=64), peak(576, 192, tile=64)) < untiled <= peak(576, 192, tile=576)

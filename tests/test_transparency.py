"""Pictures with alpha: rims are clean on any background, whatever lies under pixels of little alpha."""

import struct

import numpy as np
import pytest
import skimage.data
import tifffile
from photos import png
from PIL import Image
from upscaling import picture

from models import load_pretrained, predict, upscale_pil
from pictures.io import read
from pictures.modes import plain
from pictures.sheets import flat
from pictures.transparency import filled, rim

BACKGROUNDS = 0, 128, 255


def over(image, background):
    """What is seen of `image` on a grey background: float64 (H, W, 3)."""
    values = np.asarray(image.convert('RGBA'), dtype=float)
    alpha = values[..., 3:] / 255
    return values[..., :3] * alpha + background * (1 - alpha)


def disc(radius=20, edge=1.0, side=64):
    """Alpha (side, side) of a disc, 0 to 255, whose edge is so many pixels wide."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return (np.clip((radius - np.hypot(y, x)) / edge + 0.5, 0, 1) * 255).round()


@pytest.fixture(scope='module')
def model():
    return load_pretrained('edsr-baseline-A-liif-pixel')


def as_palette(image):
    """`image`, RGBA, as palette indices with an alpha for each."""
    palette = image.convert('RGB').convert('P', palette=Image.ADAPTIVE, colors=8)
    indices = np.asarray(image.getchannel('A')) // 32 * 8 + np.asarray(palette) % 8
    result = Image.fromarray(indices.astype(np.uint8), 'P')
    colours = np.resize(palette.getpalette('RGB'), 24)
    result.putpalette(np.tile(colours, 32)[:768].astype(np.uint8).tolist())
    result.info['transparency'] = bytes(min(255, i // 8 * 36) for i in range(256))
    return result


MODES = {'RGBA': lambda image: image, 'LA': lambda image: image.convert('LA'),
         'PA': lambda image: image.convert('PA'), 'palette with tRNS': as_palette}
HARD = disc(12, side=40)
ALPHAS = {'hard': HARD, 'on alpha 1': np.maximum(HARD, 1), 'soft': disc(12, 6, 40), 'wide': disc(12, 20, 40)}


@pytest.mark.parametrize('alpha, convert', [
    pytest.param(alpha, convert, id=f'{name}-{mode}') for mode, convert in MODES.items()
    for name, alpha in ALPHAS.items() if mode == 'RGBA' or name == 'hard'])
def test_black_under_little_alpha_is_not_seen_around_white(model, alpha, convert):
    colours = np.where(alpha[..., None] <= 5, 0, 255).repeat(3, axis=2)
    image = convert(Image.fromarray(np.dstack([colours, alpha]).astype(np.uint8)))
    ours = upscale_pil(model, image, scale=4)
    weighted = plain(image).resize((160, 160), Image.BICUBIC)  # Pillow weights by alpha
    assert over(ours, 255).min() >= over(weighted, 255).min() - 2  # of 255


@pytest.mark.parametrize('alpha', [disc(100, 1, 256), disc(90, 40, 256)], ids=['hard', 'soft'])
def test_rims_of_a_photo_are_nearer_to_the_truth_than_alpha_weighted_bicubic_interpolation(model, alpha):
    truth = Image.fromarray(skimage.data.astronaut()[:256, 100:356])
    truth.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    small = np.array(truth.resize((64, 64), Image.BICUBIC))
    hidden = small[..., 3] <= 5
    small[hidden, :3] = np.random.default_rng(0).integers(0, 256, (hidden.sum(), 3))
    small = Image.fromarray(small)
    rim = small.getchannel('A').point(lambda a: 255 * (0 < a < 255)).resize((256, 256), Image.NEAREST)
    ours, weighted = upscale_pil(model, small, scale=4), small.resize((256, 256), Image.BICUBIC)
    for background in BACKGROUNDS:
        errors = [np.square(over(image, background) - over(truth, background))[np.asarray(rim) > 0].mean()
                  for image in (ours, weighted)]
        assert errors[0] < errors[1]


@pytest.mark.parametrize('mode', ['LA', 'RGBA'])
def test_what_is_hidden_does_not_reach_into_the_visible_edge(bilinear, mode):
    image = Image.new(mode, (12, 10))
    image.paste(Image.new(mode, (4, 10), 'white'), (4, 0))
    big = upscale_pil(bilinear, image, scale=3)
    visible = np.asarray(big.getchannel('A')) > 0
    assert 120 < visible.sum() < 700
    assert np.asarray(big.convert('L'))[visible].min() == 255


def test_what_becomes_invisible_has_the_colours_beside_it(model):
    """So that programs which interpolate without regard to alpha find nothing dark there."""
    image = Image.fromarray(np.dstack([np.where(disc() > 0, 255, 0)] * 3 + [disc()]).astype(np.uint8))
    big = upscale_pil(model, image, scale=4)
    beside = (np.asarray(big.getchannel('A')) == 0) & (disc(86, 1, 256) > 0)
    assert beside.sum() > 500 and np.asarray(big.convert('RGB'))[beside].min() > 200


@pytest.mark.parametrize('alpha', [1, 40, 255])
def test_where_alpha_is_even_colours_are_those_of_the_opaque_picture(model, alpha):
    image = picture(width=40, height=30)
    opaque = upscale_pil(model, image, scale=2)
    image.putalpha(alpha)
    assert np.array_equal(upscale_pil(model, image, scale=2).convert('RGB'), opaque)


def test_tiles_leave_no_seams(model, monkeypatch):
    image = picture(width=50, height=40)
    image.putalpha(Image.fromarray(disc(22, 12, 50)[:40].astype(np.uint8)))
    whole = upscale_pil(model, image, scale=2.5)
    monkeypatch.setattr(predict, 'TILE', 20)
    tiled = upscale_pil(model, image, scale=2.5)
    for background in BACKGROUNDS:
        assert abs(over(tiled, background) - over(whole, background)).max() <= 2  # roundings


@pytest.mark.parametrize('mode', ['LA', 'RGBA'])
def test_alpha_is_resized_by_bicubic_interpolation(bilinear, mode):
    image = picture(mode)
    image.putalpha(picture('L', seed=1))
    big = upscale_pil(bilinear, image, size=(33, 20))
    assert np.array_equal(big.getchannel('A'), image.getchannel('A').resize((20, 33), Image.BICUBIC))


# --- transparency as files have it -----------------------------------------------------------------------------------


@pytest.mark.parametrize('depth', [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_has_the_depth_of_its_pixels(tmp_path, depth):
    values = [0, 1, 0, 1, 0, 1, 1, 0]
    row = int(''.join(f'{value:0{depth}b}' for value in values), 2).to_bytes(depth, 'big')
    (tmp_path / 'a.png').write_bytes(png((8, 1), depth, 0, b'\0' + row, struct.pack('>H', 1)))
    image = read(tmp_path / 'a.png')
    assert image.mode == ('LA;16' if depth == 16 else 'LA')
    assert (np.asarray(image)[0, :, 1] > 0).tolist() == [not value for value in values]


@pytest.mark.parametrize('depth, dtype', [(8, '>u1'), (16, '>u2')])
def test_the_transparent_colour_of_a_png_has_the_depth_of_its_pixels(tmp_path, depth, dtype):
    colours = np.array([[10, 200, 30], [250, 20, 9]] * 4)
    colours = colours * 256 + 77 if depth == 16 else colours
    row = b'\0' + colours.astype(dtype).tobytes()
    (tmp_path / 'a.png').write_bytes(png((8, 1), depth, 2, row, struct.pack('>3H', *colours[0])))
    image = np.asarray(read(tmp_path / 'a.png'))
    assert np.array_equal(image[0, :, :3], colours) and image[0, :, 3].tolist() == [0, np.iinfo(image.dtype).max] * 4


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_a_tiff_of_8_or_16_bits_keeps_its_alpha(tmp_path, dtype):
    values = np.asarray(picture('RGBA')).astype(dtype) * (257 if dtype == np.uint16 else 1)
    tifffile.imwrite(tmp_path / 'a.tif', values, photometric='rgb', extrasamples=['unassalpha'])
    assert np.array_equal(read(tmp_path / 'a.tif'), values)


# --- formats without it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('mode', ['LA', 'RGBA', '16 bits'])
@pytest.mark.parametrize('suffix', ['.jpg', '.bmp'])
def test_in_formats_without_alpha_the_background_is_white(cli, tmp_path, suffix, mode):
    values = np.asarray(Image.fromarray(np.dstack([0 * disc()] * 3 + [disc()]).astype(np.uint8)))
    if mode == '16 bits':
        tifffile.imwrite(tmp_path / 'a.tif', values.astype(np.uint16) * 257, photometric='rgb',
                         extrasamples=['unassalpha'])
    else:
        Image.fromarray(values).convert(mode).save(tmp_path / 'a.tif')
    code, out, _ = cli('a.tif', '--scale', 2, '--output', f'b{suffix}')
    assert code == 0 and any('background becomes white' in line for line in out)
    shown = np.asarray(Image.open(f'b{suffix}').convert('L')).astype(float)
    expected = 255.0 - np.asarray(Image.fromarray(disc().astype(np.uint8)).resize((128, 128), Image.BICUBIC))
    assert np.abs(shown - expected).max() < 20 and shown[0, 0] > 252


@pytest.mark.parametrize('alpha, told', [(disc(), False), (disc(edge=6), True)], ids=['hard', 'soft'])
def test_that_a_gif_holds_no_half_transparent_pixels_is_said(cli, alpha, told):
    hard = np.where(alpha > 127, 255, 0) if not told else alpha
    Image.fromarray(np.dstack([0 * alpha] * 3 + [hard]).astype(np.uint8)).save('a.png')
    code, out, _ = cli('a.png', '--scale', 1, '--output', 'b.gif')
    assert code == 0 and any('half-transparent' in line for line in out) == told


def test_in_a_gif_pixels_of_half_alpha_or_more_are_the_visible_ones(cli, tmp_path):
    alpha = disc(edge=8)
    Image.fromarray(np.dstack([0 * alpha + 90] * 3 + [alpha]).astype(np.uint8)).save('a.png')
    for source, target in ('a.png', 'b.gif'), ('b.gif', 'c.gif'):
        assert cli(source, '--scale', 1, '--output', target)[0] == 0
        big = np.asarray(Image.open(target).convert('RGBA'))
        assert np.array_equal(big[..., 3], np.where(alpha.astype(np.uint8) < 128, 0, 255))
        assert (big[big[..., 3] > 0, :3] == 90).all()


def test_a_gif_with_transparency_has_the_colours_of_one_without(cli):
    photo = Image.fromarray(skimage.data.astronaut()[:64, 200:264])
    photo.save('opaque.png')
    photo.putalpha(Image.fromarray(disc(radius=30).astype(np.uint8)))
    photo.save('disc.png')
    errors = []
    for name in 'opaque', 'disc':
        assert cli(f'{name}.png', '--scale', 1, '--output', f'{name}.gif')[0] == 0
        inside = disc(radius=26) == 255
        big = np.asarray(Image.open(f'{name}.gif').convert('RGB'), dtype=float)
        errors.append(np.abs(big - skimage.data.astronaut()[:64, 200:264])[inside].mean())
    assert errors[1] < 1.2 * errors[0]


# --- to look at ------------------------------------------------------------------------------------------------------


def test_transparent_parts_are_shown_on_a_checkerboard():
    image = Image.new('RGBA', (32, 32))
    image.paste('red', (16, 0, 32, 32))
    values = np.asarray(flat(image))
    assert (values[:, 16:] == (255, 0, 0)).all()
    assert {tuple(colour) for colour in values[:, :16].reshape(-1, 3)} == {(255,) * 3, (204,) * 3}
    assert (values[0, 0] != values[0, 8]).all() and (values[0, 0] == values[8, 8]).all()


def test_an_opaque_picture_is_shown_as_it_is():
    assert np.array_equal(flat(picture()), picture())


def test_colours_that_are_hidden_do_not_bleed_into_what_is_shown():
    image = Image.fromarray(np.dstack([np.where(disc() > 0, 255, 0)] * 3 + [disc()]).astype(np.uint8))
    assert np.asarray(flat(image, (256, 256))).min() >= 203


@pytest.mark.parametrize('scale', [4, 0.5], ids=['enlarged', 'reduced'])
def test_a_part_of_the_rim_is_that_part_of_the_whole(scale):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 4), np.uint8)
    colours = filled(pixels)
    whole = rim(pixels, colours, (int(20 * scale), int(24 * scale)), (0, 0, 20, 24))
    part = rim(pixels, colours, (int(8 * scale), int(10 * scale)), (6, 8, 14, 18))
    inside = whole[:, int(8 * scale):int(18 * scale), int(6 * scale):int(14 * scale)]
    np.testing.assert_allclose(part, inside, atol=1e-5)

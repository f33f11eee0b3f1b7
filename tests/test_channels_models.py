"""Models of any number of channels: made, trained from grey and 5-channel data, tested, used on arrays and pictures."""

import io
import json

import numpy as np
import pytest
import readme
import specs
import torch
import yaml
from photos import TOPS, noise, photo
from PIL import Image
from projects import changed, command_line, error
from upscaling import RANDOM, assert_close, interpolated, picture, silence

import models
import test
from errors import UserError
from evaluation import score
from models import load_pretrained, upscale, upscale_pil, upscale_region
from models.mixing import mixing_weights
from models.predict import upscale_whole
from models.registry import registry, with_n_colors
from pictures.deep import Deep
from pictures.modes import plain, to_tensor

ENCODERS = {'edsr-baseline': specs.ENCODER['args'], 'rdn': {'G0': 4, 'RDNconfig': 'A', 'no_upsampling': True},
            'rcan': {'n_resgroups': 1, 'n_resblocks': 1, 'n_feats': 4, 'reduction': 2, 'no_upsampling': True},
            'swinir': {'embed_dim': 4, 'depths': [2], 'num_heads': [2]}}


@pytest.fixture(scope='module')
def interpolating(tmp_path_factory):
    """A function that gives, for a number of channels, a model that interpolates bilinearly."""
    folder = tmp_path_factory.mktemp('interpolating')

    def model(n_colors):
        path = folder / f'{n_colors}.pth'
        specs.make_checkpoint(path, with_n_colors(RANDOM, n_colors), silence)
        return load_pretrained(path)
    return model


# --- models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('n_colors', [1, 5])
@pytest.mark.parametrize('spec', specs.PLAIN.values(), ids=specs.PLAIN)
def test_every_decoder_follows_the_encoder(spec, n_colors):
    model = specs.build(with_n_colors(spec, n_colors))
    inp = torch.rand(2, n_colors, 7, 6, dtype=torch.float64)
    coord, cell = specs.grid(9, 11)
    pred = model(inp, coord, cell)
    assert pred.shape == (2, 99, n_colors)
    pred_of_grid = model(inp, size=(9, 11)).flatten(1, 2)  # whose coordinates are float32
    torch.testing.assert_close(pred_of_grid, pred, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', ENCODERS)
def test_every_encoder_takes_any_number_of_channels(name):
    encoder = models.make({'name': name, 'args': {**ENCODERS[name], 'n_colors': 5}})
    assert encoder(torch.rand(1, 5, 8, 8)).shape == (1, encoder.out_dim, 8, 8)


@pytest.mark.parametrize('name', ['edsr-baseline', 'rdn', 'rcan'])
def test_an_encoders_own_upsampler_makes_as_many_channels(name):
    args = {key: value for key, value in ENCODERS[name].items() if key != 'no_upsampling'}
    assert models.make({'name': name, 'args': {**args, 'n_colors': 5}})(torch.rand(1, 5, 8, 8)).shape == (1, 5, 16, 16)


# --- training and testing --------------------------------------------------------------------------


def grey_pictures(root):
    for i in range(3):
        Image.fromarray(photo(40, 50, i)).convert('L').save(root / f'{i}.png')


def five_channels(root):
    for i in range(3):
        smooth = np.dstack([photo(40, 50, seed) for seed in (i, i + 3)])[..., :5]
        np.save(root / f'{i}.npy', smooth.astype(np.uint16) * 150 + noise(40, 50, 5, seed=i) // 300)


KINDS = {'grey': (grey_pictures, {'channels': 'grey'}, 1, 255),
         'five': (five_channels, {'channels': 'all', 'shown': [4, 0, 2]}, 5, 65535)}


def prepare(project, kind, **changes):
    """Replaces the project's photos by images of `kind`, and sets its config to read them."""
    write, args, _, _ = KINDS[kind]
    for path in (project.folder / 'photos').iterdir():
        path.unlink()
    write(project.folder / 'photos')
    keys = {f'{data}.dataset.args': {'root_path': 'photos', **args} for data in ('train_dataset', 'val_dataset')}
    project.change({**keys, **{key.replace('__', '.'): value for key, value in changes.items()}})
    config = {'test_dataset': {'dataset': {'name': 'image-folder', 'args': {'root_path': 'photos', **args}},
                               'wrapper': {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 2}},
                               'batch_size': 1, 'num_workers': 0}}
    (project.folder / 'test.yaml').write_text(yaml.safe_dump(config))


def run_test(project, *flags):
    """What test.py finds of the trained model: each image's PSNR."""
    with command_line(project.folder, '--config', 'test.yaml', '--model', 'save/_tiny/epoch-last.pth', '--gpu', 'cpu',
                      '--json', 'out.json', *flags):
        test.main()
    results, = json.loads((project.folder / 'out.json').read_text())['results']
    return [row['psnr'] for row in results['images']]


def naive_psnr(model, array, top):
    """PSNR of an image (H, W, C) reduced to half by Pillow, in its own type, and enlarged by queries of all pixels."""
    height, width = array.shape[:2]
    planes = [Image.fromarray(plane if top == 255 else plane.astype(np.float32)).resize(
        (width // 2, height // 2), Image.BICUBIC) for plane in np.moveaxis(array, 2, 0)]
    small = np.dstack([np.asarray(plane) for plane in planes]).clip(0, top).round() / top
    coord, cell = (x.float() for x in specs.grid(height, width, 1))
    with torch.no_grad():
        pred = model(torch.from_numpy(small).float().permute(2, 0, 1)[None] * 2 - 1, coord, cell)[0].numpy()
    pred = (pred / 2 + 0.5).clip(0, 1).reshape(array.shape) * top
    return 10 * np.log10(top ** 2 / np.mean((pred - array) ** 2))


@pytest.mark.parametrize('queries', [16, None], ids=['queries', 'whole-targets'])
@pytest.mark.parametrize('kind', KINDS)
def test_a_model_is_trained_saved_loaded_and_tested(project, kind, queries):
    write, args, n_colors, top = KINDS[kind]
    prepare(project, kind, train_dataset__wrapper__args__sample_q=queries)
    project.train()
    assert project.checkpoint()['model']['args']['encoder_spec']['args']['n_colors'] == n_colors
    start = models.make(project.checkpoint()['model']).state_dict()
    model = load_pretrained(project.run / 'epoch-last.pth')
    assert not any(torch.equal(start[name], tensor) for name, tensor in model.state_dict().items())
    psnrs = run_test(project)
    paths = sorted((project.folder / 'photos').iterdir())
    arrays = [np.load(path) if path.suffix == '.npy' else np.asarray(Image.open(path))[..., None] for path in paths]
    assert psnrs == pytest.approx([naive_psnr(model, array.astype(np.uint8 if top == 255 else float), top)
                                   for array in arrays], abs=1e-3)


def test_training_goes_on_and_shows_the_channels_that_the_config_says(project):
    prepare(project, 'five', epoch_max=1)
    project.train()
    prepare(project, 'five', epoch_max=2)
    project.train('--resume')
    assert project.checkpoint()['epoch'] == 2
    shown = project.events()['preview/image1_x2'][2]
    strip = np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)))
    truth = np.load(project.folder / 'photos/0.npy')[:, 5:45, [4, 0, 2]]  # its middle
    assert abs(strip[:, -40:].astype(int) - truth / 257).max() <= 1


def test_test_py_saves_the_channels_that_the_config_says(project):
    prepare(project, 'five', epoch_max=1)
    project.train()
    run_test(project, '--save-dir', 'saved')
    model, array = load_pretrained(project.run / 'epoch-last.pth'), np.load(project.folder / 'photos/1.npy')
    small = np.dstack([np.asarray(Image.fromarray(plane.astype(np.float32)).resize((25, 20), Image.BICUBIC))
                       for plane in np.moveaxis(array, 2, 0)])
    expected = upscale(model, small.clip(0, 65535).round().astype(np.uint16), size=(40, 50))[..., [4, 0, 2]] / 257
    assert_close(Image.open(project.folder / 'saved/test/1.png'), expected)


def test_a_grey_prediction_is_saved_as_grey(project):
    prepare(project, 'grey', epoch_max=1)
    project.train()
    run_test(project, '--save-dir', 'saved')
    assert Image.open(project.folder / 'saved/test/1.png').mode == 'L'


@pytest.mark.parametrize('changes, told', [
    ({'val_dataset__dataset__args__channels': 'grey'},
     'val_dataset: the model is for images of 5 channels, not 1'),
    ({'model__args__encoder_spec__args__n_colors': 4}, 'the model is for images of 4 channels, not 5'),
    ({'model__args__imnet_spec__args__out_dim': 4}, 'imnet_spec: out_dim must be 5, for the colours, not 4'),
    ({'data_norm__gt': {'sub': [0.5] * 3, 'div': [1.] * 3}},
     'data_norm.gt: sub and div must hold a number or one for each channel, in div not 0')])
def test_what_does_not_fit_the_data_is_told(project, changes, told):
    prepare(project, 'five')
    config = changed(yaml.safe_load((project.folder / 'tiny.yaml').read_text()),
                     {key.replace('__', '.'): value for key, value in changes.items()})
    if 'val_dataset__dataset__args__channels' in changes:
        (project.folder / 'grey').mkdir()
        grey_pictures(project.folder / 'grey')
        config['val_dataset']['dataset']['args'] = {'root_path': 'grey', 'channels': 'grey'}
    (project.folder / 'tiny.yaml').write_text(yaml.safe_dump(config))
    assert told in error(project)


def test_an_encoder_of_ones_own_that_takes_no_n_colors_is_told_to_be_for_three(project, monkeypatch):
    encoder = models.make({'name': 'edsr-baseline', 'args': {'n_resblocks': 1, 'n_feats': 4, 'no_upsampling': True}})
    monkeypatch.setitem(registry.classes, 'own', lambda: encoder)
    prepare(project, 'grey', **{'model.args.encoder_spec': {'name': 'own'}})
    with pytest.raises(UserError, match='the model is for images of 3 channels, not 1'):
        project.train()


def test_data_of_other_channels_than_the_models_is_told_by_test_py(project, weights):
    prepare(project, 'grey')
    told = error(project, '--config', 'test.yaml', '--model', str(weights / 'liif.pth'), main=test.main)
    assert told == 'test.yaml: test_dataset: the model is for images of 3 channels, not 1'


# --- PSNR ------------------------------------------------------------------------------------------


def test_the_brightness_of_grey_is_the_grey():
    pred, gt = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    mse = (pred - gt)[:, 2:-2, 2:-2].square().mean()
    assert score(pred, gt, 'benchmark-2').psnr == pytest.approx(-10 * mse.log10().item())


def test_five_channels_have_no_brightness():
    with pytest.raises(UserError, match='images of 5 channels do not have; eval_type: div2k-SCALE'):
        score(*torch.rand(2, 5, 20, 20), 'benchmark-2')


# --- arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('dtype', TOPS)
@pytest.mark.parametrize('shape', [(7, 9), (7, 9, 1), (7, 9, 3), (7, 9, 5)])
def test_arrays_are_upscaled_in_their_own_type(interpolating, shape, dtype):
    array = noise(*shape, dtype=dtype)
    big = upscale(interpolating(shape[2] if len(shape) > 2 else 1), array, scale=2.5)
    assert big.dtype == dtype and big.shape == (18, 22, *shape[2:])
    assert_close(big, interpolated(array, (18, 22)), tolerance=0.6 if dtype != np.float32 else 1e-5)


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_arrays_may_have_a_range_of_their_own(interpolating, dtype):
    array = (noise(7, 9, 2) // 16).astype(dtype)
    big = upscale(interpolating(2), array, size=(14, 18), data_range=4095)
    assert big.dtype == dtype and big.max() > 3000
    assert_close(big, interpolated(array, (14, 18)), tolerance=0.6)


def test_an_array_of_other_channels_than_the_models_is_told(interpolating):
    with pytest.raises(UserError, match='the model is for images of 1 channel, not 5'):
        upscale(interpolating(1), noise(7, 9, 5), scale=2)


def test_a_region_of_an_array_is_that_part_of_the_whole():
    torch.manual_seed(0)
    model = models.make(with_n_colors(specs.pixel(), 5)).eval()
    image = torch.from_numpy(noise(5, 20, 16))
    whole = upscale_whole(model, image, (60, 48), model.data_norm)
    part = upscale_region(model, image, (4, 8, 12, 16), (24, 24))
    torch.testing.assert_close(part, whole[:, 24:48, 12:36])


def test_the_lines_of_the_docs(tmp_path, monkeypatch):
    code, = readme.blocks('np.load(')
    (tmp_path / 'save/_fields').mkdir(parents=True)
    specs.make_checkpoint(tmp_path / 'save/_fields/epoch-last.pth', with_n_colors(RANDOM, 5), silence)
    np.save(tmp_path / 'field.npy', noise(7, 9, 5))
    monkeypatch.chdir(tmp_path)
    lines = {}
    exec(code, lines)
    assert_close(lines['big'], interpolated(np.load('field.npy'), (26, 33)), tolerance=0.6)


# --- pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize('mode', ['L', 'LA', 'I;16'])
def test_a_grey_model_keeps_grey_pictures_grey(interpolating, mode):
    image = Image.fromarray(noise(7, 9)) if mode == 'I;16' else picture('RGBA').convert(mode)
    big = upscale_pil(interpolating(1), image, scale=2)
    expected = upscale_pil(interpolating(3), image, scale=2)  # which sees it as colour
    assert big.mode == mode
    assert_close(big, np.asarray(expected, dtype=float))


@pytest.mark.parametrize('image', [picture(), picture('RGBA'), Deep(noise(7, 9, 3))], ids=['RGB', 'RGBA', 'RGB;16'])
def test_colour_is_an_error_of_a_grey_model(interpolating, image):
    with pytest.raises(UserError, match='the model is for grey pictures, and this one has colour: convert it to grey'):
        upscale_pil(interpolating(1), image, scale=2)


def test_pictures_are_an_error_of_a_model_of_five_channels(interpolating):
    with pytest.raises(UserError, match='5 channels, and pictures have 1 or 3: models.upscale takes arrays'):
        upscale_region(interpolating(5), plain(picture()), (0, 0, 5, 5), (9, 9))


def test_the_mixing_weights_of_a_grey_model_can_be_drawn(interpolating):
    weights = mixing_weights(interpolating(1), to_tensor(picture('L')), (20, 24), (10, 12))
    assert weights.shape == (3, 10, 12)
    torch.testing.assert_close(weights, torch.full_like(weights, 3 ** -0.5))  # by `silence`

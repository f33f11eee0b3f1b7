"""What test.py makes of a model's predictions: per-image PSNR of whole images at any scale, against scikit-image."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import specs
import torch
import yaml
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

import datasets
import models
from errors import UserError
from evaluation import batched_predict, eval_psnr, evaluate, score
from models.predict import upscale_whole
from test import main, short_names
from utils import calc_psnr

BENCHMARK = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'benchmark'
needs_benchmark = pytest.mark.skipif(not BENCHMARK.is_dir(), reason=f'{BENCHMARK} is absent')

HALF = {'sub': [0.5], 'div': [0.5]}
DATA_NORM = {'inp': HALF, 'gt': HALF}


class Painter(torch.nn.Module):
    """Paints by coordinate, brightness and `gain`, and remembers what it was asked."""

    def __init__(self, gain=0.3):
        super().__init__()
        self.gain, self.images, self.chunks = torch.nn.Parameter(torch.tensor(gain)), [], []

    def gen_feat(self, inp):
        self.images.append(inp)

    def query_rgb(self, coord, cell):
        self.chunks.append(coord.shape[1])
        y, x = coord.unbind(-1)
        brightness = self.images[-1].mean(dim=(1, 2, 3)).view(-1, 1, 1)
        return self.gain * torch.stack([y, x * x, x * y], dim=-1) + 0.1 * brightness + cell.sum(dim=-1, keepdim=True)

    def forward(self, inp, coord, cell):
        self.gen_feat(inp)
        return self.query_rgb(coord, cell)


def batch_of(*shape, batch=1, seed=0):
    """A batch as the datasets give it, the whole grid of `shape` being queried; its colours are floats."""
    rng = torch.Generator().manual_seed(seed)
    return {'inp': torch.rand(batch, 3, 5, 7, generator=rng), 'gt': torch.rand(batch, 3, *shape, generator=rng)}


def queries_of(batch):
    """Coordinates and cells (B, H * W, 2) of all pixels of the targets."""
    count, _, height, width = batch['gt'].shape
    y, x = torch.meshgrid(-1 + (2 * torch.arange(height) + 1) / height, -1 + (2 * torch.arange(width) + 1) / width,
                          indexing='ij')
    coord = torch.stack([y, x], dim=-1).view(-1, 2).repeat(count, 1, 1)
    return coord, torch.tensor([2 / height, 2 / width]).expand_as(coord)


def painted(batch, data_norm=False):
    """The images (H, W, 3) that the Painter's prediction and the truth are, in [0, 1]."""
    inp = (batch['inp'] - 0.5) / 0.5 if data_norm else batch['inp']
    with torch.no_grad():
        pred = Painter()(inp, *queries_of(batch))
    pred = (pred * 0.5 + 0.5 if data_norm else pred).clamp(0, 1)
    for a, b in zip(pred, batch['gt'].permute(0, 2, 3, 1), strict=True):
        yield a.view(b.shape).double().numpy(), b.double().numpy()


def psnr(pred, gt, shave=0):
    window = slice(shave, -shave or None), slice(shave, -shave or None)
    return peak_signal_noise_ratio(gt[window], pred[window], data_range=1)


# --- batched_predict -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('bsize', [1, 10, 100, 1000])
def test_batched_predict_equals_one_call(bsize):
    batch = batch_of(9, 11, batch=2)
    args = batch['inp'], *queries_of(batch)
    torch.testing.assert_close(batched_predict(Painter(), *args, bsize), Painter()(*args).detach())


def test_batched_predict_encodes_once_and_asks_for_at_most_bsize_queries():
    model, batch = Painter(), batch_of(9, 11)
    batched_predict(model, batch['inp'], *queries_of(batch), 25)
    assert len(model.images) == 1
    assert max(model.chunks) <= 25 and sum(model.chunks) == 99


def test_batched_predict_keeps_no_graph():
    batch = batch_of(3, 3)
    assert not batched_predict(Painter(), batch['inp'], *queries_of(batch), 4).requires_grad


# --- eval_psnr -----------------------------------------------------------------------------------------------------


def test_the_result_is_the_mean_of_the_images_psnr_whatever_the_batches():
    loader = [batch_of(12, 15, batch=2), batch_of(20, 9, batch=1, seed=1)]
    result = eval_psnr(loader, Painter())
    assert isinstance(result, float)
    assert result == pytest.approx(np.mean([psnr(*images) for batch in loader for images in painted(batch)]), abs=1e-4)


def test_random_samples_are_compared_as_they_are():
    batch = batch_of(12, 15)
    pick = torch.randperm(180)[:50]
    coord, cell = queries_of(batch)
    samples = {'inp': batch['inp'], 'coord': coord[:, pick], 'cell': cell[:, pick],
               'gt': batch['gt'].flatten(2).transpose(1, 2)[:, pick]}
    (pred, gt), = painted(batch)
    expected = psnr(pred.reshape(-1, 3)[pick], gt.reshape(-1, 3)[pick])
    assert eval_psnr([samples], Painter()) == pytest.approx(expected, abs=1e-4)


def test_inputs_are_normalised_and_predictions_brought_back():
    batch, model = batch_of(12, 15), Painter()
    result = eval_psnr([batch], model, data_norm=DATA_NORM)
    torch.testing.assert_close(model.images[0], batch['inp'] * 2 - 1)
    assert result == pytest.approx(psnr(*next(painted(batch, data_norm=True))), abs=1e-4)


@pytest.mark.parametrize('scale, shave', [('2', 2), ('2.5', 3), ('3.7', 4)])
def test_benchmark_convention_compares_luma_without_a_border_of_the_scale(scale, shave):
    batch = batch_of(19, 26)
    pred, gt = (rgb2ycbcr(image)[..., 0] / 255 for image in next(painted(batch)))
    result = eval_psnr([batch], Painter(), eval_type=f'benchmark-{scale}')
    assert result == pytest.approx(psnr(pred, gt, shave), abs=1e-3)


@pytest.mark.parametrize('scale, shave', [('4', 10), ('2.5', 9)])
def test_div2k_convention_compares_rgb_without_a_border_of_the_scale_and_6(scale, shave):
    batch = batch_of(25, 31)
    assert eval_psnr([batch], Painter(), eval_type=f'div2k-{scale}') == pytest.approx(
        psnr(*next(painted(batch)), shave), abs=1e-4)


def test_the_targets_size_comes_with_the_batch():
    # 8 x 70 queries for an input of 5 x 7: its aspect ratio would give 20 x 28, which has as many.
    batch = batch_of(8, 70)
    assert eval_psnr([batch], Painter(), eval_type='benchmark-2') == pytest.approx(
        psnr(*(rgb2ycbcr(image)[..., 0] / 255 for image in next(painted(batch))), 2), abs=1e-3)


def test_predictions_are_clamped_and_not_rounded():
    batch = batch_of(8, 8)
    step = 1 / 255 / 4
    offset = 0.1 * batch['inp'].mean() + 0.5  # what the painter paints everywhere: no whole number of 255ths
    nearly = {**batch, 'gt': (offset + step).expand_as(batch['gt'])}
    assert eval_psnr([nearly], Painter(gain=0.0)) == pytest.approx(-20 * np.log10(step), abs=0.01)
    white = {'inp': torch.full((1, 3, 5, 7), 20.), 'gt': torch.ones(1, 3, 8, 8)}
    assert eval_psnr([white], Painter(gain=0.0)) == float('inf')


def test_whole_images_may_come_as_8_bit():
    batch = {key: (value * 255).byte() for key, value in batch_of(12, 15).items()}
    floats = {key: value / 255 for key, value in batch.items()}
    assert eval_psnr([batch], Painter()) == pytest.approx(psnr(*next(painted(floats))), abs=1e-4)


@pytest.mark.parametrize('eval_type', [None, 'benchmark-2', 'div2k-2'])
def test_psnr_and_ssim_are_the_same_where_models_run_in_bf16(eval_type):
    pred, gt = torch.rand(2, 3, 40, 44, generator=torch.Generator().manual_seed(0))
    expected = score(pred, gt, eval_type, ssim=True)
    with torch.autocast('cpu', torch.bfloat16):
        scored = score(pred, gt, eval_type, ssim=True)
    assert (scored.psnr, scored.ssim) == (expected.psnr, expected.ssim)


@pytest.mark.parametrize('eval_bsize', [1, 37, 30000])
def test_chunks_do_not_change_the_result(eval_bsize):
    batch, model = batch_of(12, 15), Painter()
    result = eval_psnr([batch], model, eval_type='benchmark-2', eval_bsize=eval_bsize)
    assert max(model.chunks) <= eval_bsize
    assert result == pytest.approx(eval_psnr([batch], Painter(), eval_type='benchmark-2'), abs=1e-4)


@pytest.mark.parametrize('eval_type', ['set5-2', 'benchmark', 'div2k-x', 'benchmark-'])
def test_an_unknown_eval_type_is_an_error_that_names_it(eval_type):
    with pytest.raises(UserError, match=eval_type):
        eval_psnr([batch_of(12, 15)], Painter(), eval_type=eval_type)


def test_bicubic_enlarges_each_image_of_a_batch_to_its_own_size():
    inp, sizes = torch.rand(2, 3, 6, 8), [(12, 16), (17, 20)]
    coord, cell = torch.rand(2, 9, 2) * 2 - 1, torch.tensor([[2 / h, 2 / w] for h, w in sizes])[:, None].expand(2, 9, 2)
    alone = [models.Bicubic()(inp[i:i + 1], coord[i:i + 1], cell[i:i + 1]) for i in range(2)]
    assert torch.equal(models.Bicubic()(inp, coord, cell), torch.cat(alone))


# --- bicubic, by this code -----------------------------------------------------------------------------------------


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


def bicubic_psnr(path, scale):
    """Down and up again by Pillow on 8 bits, the image cropped to a multiple of the scale."""
    hr = Image.open(path).convert('RGB')
    small = hr.width // scale, hr.height // scale
    hr = hr.crop((0, 0, small[0] * scale, small[1] * scale))
    sr = hr.resize(small, Image.BICUBIC).resize(hr.size, Image.BICUBIC)
    return calc_psnr(tensor(sr), tensor(hr), dataset='benchmark', scale=scale).item()


@needs_benchmark
@pytest.mark.parametrize('name, scale, expected', [
    ('Set5', 2, 33.67), ('Set5', 3, 30.40), ('Set5', 4, 28.43), ('B100', 2, 29.56), ('B100', 3, 27.21),
    ('B100', 4, 25.96)])
def test_bicubic_scores_what_is_known_of_it(name, scale, expected):
    paths = sorted((BENCHMARK / name / 'HR').glob('*.png'))
    assert len(paths) == {'Set5': 5, 'B100': 100}[name]
    assert np.mean([bicubic_psnr(path, scale) for path in paths]) == pytest.approx(expected, abs=0.0051)


@needs_benchmark
@pytest.mark.parametrize('scale, expected', [(2, 33.67), (3, 30.40), (4, 28.43)])
def test_the_bicubic_model_on_the_test_set_scores_the_same(scale, expected):
    photos = datasets.make({'name': 'image-folder', 'args': {'root_path': str(BENCHMARK / 'Set5' / 'HR')}})
    dataset = datasets.make({'name': 'sr-implicit-downsampled', 'args': {'scale_min': scale}}, {'dataset': photos})
    loader = torch.utils.data.DataLoader(dataset, batch_size=1)
    result = eval_psnr(loader, models.Bicubic(), eval_type=f'benchmark-{scale}', eval_bsize=30000)
    assert result == pytest.approx(expected, abs=0.0051)


# --- test configs --------------------------------------------------------------------------------------------------


def write_config(path, *roots, scale=2, eval_type=None, **args):
    """A test config of the images in the folders `roots`; `args` are the wrapper's."""
    dataset = {'name': 'image-folder', 'args': {'root_path': [str(root) for root in roots]}}
    wrapper = {'name': 'sr-implicit-downsampled', 'args': {'scale_min': scale, **args}}
    path.write_text(yaml.safe_dump({'test_dataset': {
        'dataset': dataset, 'wrapper': wrapper, 'batch_size': 1, 'num_workers': 0}, 'eval_type': eval_type}))
    return path


@pytest.fixture
def roots(tmp_path):
    """Two folders, each with an image of 40x50 called 1.png."""
    for i, name in enumerate(('a', 'b')):
        (tmp_path / name).mkdir()
        small = Image.fromarray(np.random.default_rng(i).integers(0, 256, (4, 5, 3), np.uint8))
        small.resize((50, 40), Image.BICUBIC).save(tmp_path / name / '1.png')
    return tmp_path / 'a', tmp_path / 'b'


def test_a_model_that_knows_its_data_norm_keeps_it_and_another_has_the_configs(roots, tmp_path):
    config = {**yaml.safe_load(write_config(tmp_path / 'own.yaml', roots[0]).read_text()),
              'data_norm': {'inp': {'sub': [0.4], 'div': [0.2]}, 'gt': {'sub': [0.1], 'div': [2]}}}
    (tmp_path / 'other.yaml').write_text(yaml.safe_dump(config))
    model = specs.build(specs.liif()).float()
    psnr = [evaluate(tmp_path / name, model)['psnr'] for name in ('own.yaml', 'other.yaml')]
    model.data_norm = None
    assert [evaluate(tmp_path / name, model)['psnr'] for name in ('own.yaml', 'other.yaml')] == [psnr[0]] * 2
    assert psnr[0] != psnr[1]


def test_images_of_one_name_in_two_folders_stay_apart(roots, tmp_path):
    write_config(tmp_path / 'both.yaml', *roots)
    images = evaluate(tmp_path / 'both.yaml', models.Bicubic(), save_dir=tmp_path / 'out')['images']
    assert [row['image'] for row in images] == ['1-1.png', '2-1.png']
    assert images[0]['psnr'] != images[1]['psnr']
    assert sorted(path.name for path in (tmp_path / 'out/both').iterdir()) == ['1-1.png', '2-1.png']


def test_images_of_one_name_in_two_formats_stay_apart(roots, tmp_path):
    Image.open(roots[1] / '1.png').save(roots[0] / '1.bmp')
    write_config(tmp_path / 'both.yaml', roots[0])
    evaluate(tmp_path / 'both.yaml', models.Bicubic(), save_dir=tmp_path / 'out')
    assert len(list((tmp_path / 'out/both').iterdir())) == 2


def test_where_ssim_has_no_room_psnr_is_measured_all_the_same(roots, tmp_path):
    write_config(tmp_path / 'samples.yaml', roots[0], sample_q=100)
    write_config(tmp_path / 'narrow.yaml', roots[0], eval_type='benchmark-15')
    for name in ('samples', 'narrow'):
        result = evaluate(tmp_path / f'{name}.yaml', models.Bicubic())
        assert 10 < result['psnr'] < 60 and np.isnan(result['ssim'])


def test_pictures_of_samples_are_an_error(roots, tmp_path):
    write_config(tmp_path / 'samples.yaml', roots[0], sample_q=100)
    with pytest.raises(UserError, match='samples.yaml: 1.png: pictures need whole images: remove sample_q'):
        evaluate(tmp_path / 'samples.yaml', models.Bicubic(), save_dir=tmp_path / 'out')


def test_an_image_that_cannot_be_scored_is_named(roots, tmp_path):
    write_config(tmp_path / 'large.yaml', roots[0], eval_type='div2k-18')
    with pytest.raises(UserError, match=r'large.yaml: 1.png: a 50x40 image has nothing left without its border of 24'):
        evaluate(tmp_path / 'large.yaml', models.Bicubic())


def run_main(monkeypatch, tmp_path, *names):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['test.py', '--model', 'bicubic', '--gpu', 'cpu', '--json', 'out.json', '--config',
                                     *names])
    with pytest.raises(UserError) as error:
        main()
    return str(error.value), json.loads(Path('out.json').read_text())['results'] if Path('out.json').exists() else None


def test_a_mistake_in_the_last_config_is_told_before_the_first_is_measured(roots, tmp_path, monkeypatch):
    write_config(tmp_path / 'good.yaml', roots[0])
    error, results = run_main(monkeypatch, tmp_path, 'good.yaml', 'nowhere.yaml')
    assert error == 'nowhere.yaml: cannot be read (No such file or directory)' and results is None


def test_what_was_measured_before_a_failure_is_in_the_json(roots, tmp_path, monkeypatch):
    write_config(tmp_path / 'good.yaml', roots[0])
    write_config(tmp_path / 'bad.yaml', roots[1], eval_type='div2k-18')
    error, results = run_main(monkeypatch, tmp_path, 'good.yaml', 'bad.yaml')
    assert 'bad.yaml: 1.png: ' in error and [result['config'] for result in results] == ['good.yaml']


# --- what is not finite, or too small ------------------------------------------------------------------------------


class Nowhere(Painter):
    """Paints `colour` in one corner, of images that are brighter than `above`."""

    def __init__(self, colour, above):
        super().__init__()
        self.colour, self.above = colour, above

    def query_rgb(self, coord, cell):
        corner = (coord.sum(-1, keepdim=True) > 1.8) & (self.images[-1].mean(dim=(1, 2, 3)) > self.above).view(-1, 1, 1)
        return torch.where(corner, self.colour, super().query_rgb(coord, cell))


@pytest.mark.parametrize('colour', [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_not_finite_is_refused_with_the_images_name(tmp_path, colour):
    (tmp_path / 'photos').mkdir()
    for name, grey in (('1', 40), ('2', 200)):
        Image.new('L', (50, 40), grey).convert('RGB').save(tmp_path / f'photos/{name}.png')
    write_config(tmp_path / 'a.yaml', tmp_path / 'photos')
    pairs = ['test_dataset.batch_size=2']
    with pytest.raises(UserError, match=r'a.yaml: 2.png: the prediction is not finite \(NaN or infinity\)'):
        evaluate(tmp_path / 'a.yaml', Nowhere(colour, above=0.5), assignments=pairs)
    assert evaluate(tmp_path / 'a.yaml', Nowhere(colour, above=1), assignments=pairs)['psnr'] > 0


@pytest.mark.parametrize('colour', [math.nan, math.inf, -math.inf])
def test_a_colour_that_is_not_finite_is_refused_before_it_is_clamped_to_white_or_black(colour):
    model = specs.build(specs.pixel()).float()
    upscale_whole(model, torch.rand(3, 6, 7), (15, 18))
    decode = model.query_grid

    def broken(*args):
        colours = decode(*args)
        colours[..., -1, -1, 0] = colour
        return colours

    model.query_grid = broken
    with pytest.raises(UserError, match='the prediction is not finite'):
        upscale_whole(model, torch.rand(3, 6, 7), (15, 18))


def add_tiny(root, name='0.png'):
    Image.new('RGB', (50, 8), 'red').save(root / name)


def test_an_image_too_small_for_its_border_is_told_and_left_out_of_the_mean(roots, tmp_path, capsys):
    write_config(tmp_path / 'a.yaml', roots[0], eval_type='benchmark-4', scale=4)
    alone = evaluate(tmp_path / 'a.yaml', models.Bicubic())
    add_tiny(roots[0])
    capsys.readouterr()
    result = evaluate(tmp_path / 'a.yaml', models.Bicubic(), save_dir=tmp_path / 'out')
    assert (result['psnr'], result['ssim']) == (alone['psnr'], alone['ssim'])
    assert [row['image'] for row in result['images'] if np.isnan(row['psnr'])] == ['0.png']
    assert capsys.readouterr().err.count('a.yaml: 0.png: a 48x8 image has nothing left without its border of 4 pixels; '
                                         'it is left out of the mean') == 1
    assert len(list((tmp_path / 'out/a').iterdir())) == 2


def evaluate_by_main(monkeypatch, tmp_path, *args):
    """What test.py prints, and its JSON, read by rules that know no NaN."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['test.py', '--model', 'bicubic', '--gpu', 'cpu', '--json', 'out.json', *args])
    main()

    def refuse(word):
        raise AssertionError(word)
    return json.loads(Path('out.json').read_text(), parse_constant=refuse)['results']


def test_in_json_what_is_not_finite_is_null_and_in_the_table_a_word(roots, tmp_path, monkeypatch, capsys):
    for root in roots:
        Image.new('RGB', (50, 10), 'red').save(root / '1.png')  # bicubic is exact, and SSIM has no 11 rows
    write_config(tmp_path / 'a.yaml', roots[0])
    write_config(tmp_path / 'b.yaml', roots[1])
    results = evaluate_by_main(monkeypatch, tmp_path, '--config', 'a.yaml', 'b.yaml')
    assert [(row['psnr'], row['ssim'], row['images'][0]['psnr']) for row in results] == [(None, None, None)] * 2
    assert capsys.readouterr().out.count('PSNR infinite   SSIM none') == 2
    evaluate_by_main(monkeypatch, tmp_path, '--config', 'a.yaml')
    assert 'result: infinite\nSSIM: none\n' in capsys.readouterr().out


def test_configs_of_one_name_write_to_two_folders_and_are_told_apart(roots, tmp_path, monkeypatch, capsys):
    for root in roots:
        write_config(root / 'set.yaml', root)
    args = '--config', 'a/set.yaml', 'b/set.yaml', './a/set.yaml', '--save-dir', 'out'
    results = evaluate_by_main(monkeypatch, tmp_path, *args)
    assert [result['config'] for result in results] == ['./a/set.yaml', 'b/set.yaml']
    assert [result['name'] for result in results] == ['a/set', 'b/set']
    assert results[0]['psnr'] != results[1]['psnr']
    pictures = [np.asarray(Image.open(f'out/{name}/set/1.png')) for name in 'ab']
    assert not np.array_equal(*pictures)
    lines = [line for line in capsys.readouterr().out.splitlines() if 'PSNR' in line]
    assert [line.split()[0] for line in lines] == ['a/set', 'b/set']


@pytest.mark.parametrize('paths, names', [
    (['a/x.yaml', 'a/y.yaml'], ['x', 'y']), (['a/x.yaml', 'b/x.yaml', 'b/y.yaml'], ['a/x', 'b/x', 'b/y']),
    (['x.yaml', 'x.yml'], ['x.yaml', 'x.yml']), (['a/c/x.yaml', 'b/c/x.yaml'], ['a/c/x', 'b/c/x']),
    (['/x.yaml', '/a/x.yaml'], ['x', 'a/x']), (['x.yaml'], ['x'])])
def test_configs_are_called_by_their_stems_after_as_many_folders_as_tell_them_apart(paths, names):
    assert short_names(paths) == names

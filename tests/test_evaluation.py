"""PSNR of predictions, whole images at any scale, against scikit-image."""


import numpy as np
import pytest
import torch
from painter import Painter
from paths import SHARED
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

import datasets
import models
from errors import UserError
from evaluation import batched_predict, eval_psnr, loaded_names, score
from metrics import calc_psnr

BENCHMARK = SHARED / 'data' / 'benchmark'
needs_benchmark = pytest.mark.skipif(not BENCHMARK.is_dir(), reason=f'{BENCHMARK} is absent')
HALF = {'sub': [0.5], 'div': [0.5]}
DATA_NORM = {'inp': HALF, 'gt': HALF}


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


# --- batched_predict -------------------------------------------------------------------------------------------------


def test_samples_of_many_channels_have_no_ssim():
    assert np.isnan(score(torch.rand(20, 16), torch.rand(20, 16), names=('psnr', 'ssim')).values['ssim'])


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


# --- eval_psnr -------------------------------------------------------------------------------------------------------


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
    expected = score(pred, gt, eval_type, ('psnr', 'ssim'))
    with torch.autocast('cpu', torch.bfloat16):
        scored = score(pred, gt, eval_type, ('psnr', 'ssim'))
    assert scored.values == expected.values


@pytest.mark.parametrize('eval_bsize', [1, 37, 30000])
def test_chunks_do_not_change_the_result(eval_bsize):
    batch, model = batch_of(12, 15), Painter()
    result = eval_psnr([batch], model, eval_type='benchmark-2', eval_bsize=eval_bsize)
    assert max(model.chunks) <= eval_bsize
    assert result == pytest.approx(eval_psnr([batch], Painter(), eval_type='benchmark-2'), abs=1e-4)


def test_an_image_too_small_for_its_border_is_left_out_of_the_mean_and_told(capsys):
    small, large = batch_of(4, 15), batch_of(12, 15)
    both, alone = (eval_psnr(batches, Painter(), eval_type='benchmark-2') for batches in ([small, large], [large]))
    assert both == alone
    assert ('image 1: a 15x4 image has nothing left without its border of 2 pixels; it is left out of the mean'
            in capsys.readouterr().err)


def test_images_that_are_all_too_small_for_their_border_are_an_error():
    with pytest.raises(UserError, match='image 2: a 16x4 image has nothing left without its border of 2 pixels'):
        eval_psnr([batch_of(4, 16), batch_of(4, 16)], Painter(), eval_type='benchmark-2')


@pytest.mark.parametrize('rank', [0, 1])
def test_each_of_several_processes_knows_the_names_of_its_images(tmp_path, rank):
    for name in 'abcde':
        Image.new('RGB', (16, 16), (ord(name), 0, 0)).save(tmp_path / f'{name}.png')
    dataset = {'name': 'image-folder', 'args': {'root_path': str(tmp_path), 'repeat': 2}}
    wrapper = {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 2}}
    spec = {'dataset': dataset, 'wrapper': wrapper, 'batch_size': 4, 'num_workers': 0}
    loader = datasets.make_loader(spec, seed=0, rank=rank, world=2)
    reds = [chr(image[0, 0, 0]) for batch in loader for image in batch['gt']]
    assert loaded_names(loader) == [f'{name}.png' for name in reds] and len(reds) == 5


@pytest.mark.parametrize('eval_type', ['set5-2', 'benchmark', 'div2k-x', 'benchmark-'])
def test_an_unknown_eval_type_is_an_error_that_names_it(eval_type):
    with pytest.raises(UserError, match=eval_type):
        eval_psnr([batch_of(12, 15)], Painter(), eval_type=eval_type)


def test_bicubic_enlarges_each_image_of_a_batch_to_its_own_size():
    inp, sizes = torch.rand(2, 3, 6, 8), [(12, 16), (17, 20)]
    coord, cell = torch.rand(2, 9, 2) * 2 - 1, torch.tensor([[2 / h, 2 / w] for h, w in sizes])[:, None].expand(2, 9, 2)
    alone = [models.Bicubic()(inp[i:i + 1], coord[i:i + 1], cell[i:i + 1]) for i in range(2)]
    assert torch.equal(models.Bicubic()(inp, coord, cell), torch.cat(alone))


# --- bicubic, by this code -------------------------------------------------------------------------------------------


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
    ('Set5', 2, 33.67), ('Set5', 3, 30.40), ('Set5', 4, 28.43), ('B100', 4, 25.96)])
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

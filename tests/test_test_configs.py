"""What test.py makes of test configs: names of images, pictures, JSON, and what is not finite or too small."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import specs
import torch
import yaml
from painter import Painter
from photos import smooth
from PIL import Image

import models
from errors import UserError
from evaluation import EvalConfig, evaluate
from models.predict import upscale_whole
from test import main, short_names

# --- test configs ----------------------------------------------------------------------------------------------------


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
        smooth((50, 40), i).save(tmp_path / name / '1.png')
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


def test_a_data_norm_for_other_channels_is_an_error_with_the_config(roots, tmp_path):
    config = {**yaml.safe_load(write_config(tmp_path / 'two.yaml', roots[0]).read_text()),
              'data_norm': {'inp': {'sub': [0.5, 0.5], 'div': [1]}}}
    (tmp_path / 'two.yaml').write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match='two.yaml: data_norm.inp: sub and div must hold a number or one for each chan'):
        evaluate(tmp_path / 'two.yaml', specs.build(specs.liif()).float())


@pytest.mark.parametrize('change', [Path.unlink, lambda path: write_config(path, path.parent / 'b', scale=4)])
def test_a_config_deleted_or_changed_while_it_is_measured_does_not_change_the_result(roots, tmp_path, change):
    path = write_config(tmp_path / 'a.yaml', roots[0])
    keys, undisturbed = yaml.safe_load(path.read_text()), evaluate(path, models.Bicubic())
    result = evaluate(path, models.Bicubic(), keep=lambda scored: change(path))
    assert result == undisturbed and (result['keys'], result['scale']) == (keys, 2)


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
    write_config(tmp_path / 'narrow.yaml', roots[0], scale=9, eval_type='div2k-9')
    for name in ('samples', 'narrow'):
        result = evaluate(tmp_path / f'{name}.yaml', models.Bicubic())
        assert 10 < result['psnr'] < 60 and np.isnan(result['ssim'])


def test_pictures_of_samples_are_an_error(roots, tmp_path):
    write_config(tmp_path / 'samples.yaml', roots[0], sample_q=100)
    with pytest.raises(UserError, match='samples.yaml: pictures need whole images: remove sample_q'):
        evaluate(tmp_path / 'samples.yaml', models.Bicubic(), save_dir=tmp_path / 'out')


def test_an_image_that_cannot_be_scored_is_named(roots, tmp_path):
    write_config(tmp_path / 'large.yaml', roots[0], scale=18, eval_type='div2k-18')
    with pytest.raises(UserError, match=r'large.yaml: 1.png: a 36x36 image has nothing left without its border of 24'):
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


def test_what_cannot_be_measured_by_the_last_config_is_an_error_before_the_first_is_measured(
        roots, tmp_path, monkeypatch):
    write_config(tmp_path / 'good.yaml', roots[0])
    write_config(tmp_path / 'samples.yaml', roots[0], eval_type='div2k-2', sample_q=100)
    error, results = run_main(monkeypatch, tmp_path, 'good.yaml', 'samples.yaml')
    assert error == 'samples.yaml: eval_type div2k-2 needs whole images: remove it, or sample_q' and results is None
    config = yaml.safe_load(write_config(tmp_path / 'grey.yaml', roots[0]).read_text())
    config['test_dataset']['dataset']['args']['channels'] = 'grey'
    (tmp_path / 'grey.yaml').write_text(yaml.safe_dump(config))
    monkeypatch.setattr(models.Bicubic, 'n_colors', 3, raising=False)
    error, results = run_main(monkeypatch, tmp_path, 'good.yaml', 'grey.yaml')
    assert error == 'grey.yaml: test_dataset: the model is for images of 3 channels, not 1' and results is None
    write_config(tmp_path / 'samples.yaml', roots[0], sample_q=100)
    error, results = run_main(monkeypatch, tmp_path, 'good.yaml', 'samples.yaml', '--save-dir', 'out')
    assert error == 'samples.yaml: --save-dir is for whole images: remove sample_q' and results is None


def test_what_was_measured_before_a_failure_is_in_the_json(roots, tmp_path, monkeypatch):
    write_config(tmp_path / 'good.yaml', roots[0])
    write_config(tmp_path / 'bad.yaml', roots[1], scale=18, eval_type='div2k-18')
    error, results = run_main(monkeypatch, tmp_path, 'good.yaml', 'bad.yaml')
    assert 'bad.yaml: 1.png: ' in error and [result['config'] for result in results] == ['good.yaml']


# --- what is not finite, or too small --------------------------------------------------------------------------------


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
        evaluate(EvalConfig.read(tmp_path / 'a.yaml', pairs), Nowhere(colour, above=0.5))
    assert evaluate(EvalConfig.read(tmp_path / 'a.yaml', pairs), Nowhere(colour, above=1))['psnr'] > 0


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


def test_names_of_images_may_be_as_long_as_the_file_system_allows(roots, tmp_path):
    long = 'L' * 251
    for root in roots:
        (root / '1.png').rename(root / f'{long}.png')  # as there are two, they are numbered, which makes them longer
    evaluate(write_config(tmp_path / 'set.yaml', *roots), models.Bicubic(), save_dir=tmp_path / 'out')
    assert len(list((tmp_path / 'out/set').glob('*.png'))) == 2


@pytest.mark.parametrize('paths, names', [
    (['a/x.yaml', 'a/y.yaml'], ['x', 'y']), (['a/x.yaml', 'b/x.yaml', 'b/y.yaml'], ['a/x', 'b/x', 'b/y']),
    (['x.yaml', 'x.yml'], ['x.yaml', 'x.yml']), (['a/c/x.yaml', 'b/c/x.yaml'], ['a/c/x', 'b/c/x']),
    (['/x.yaml', '/a/x.yaml'], ['x', 'a/x']), (['x.yaml'], ['x'])])
def test_configs_are_called_by_their_stems_after_as_many_folders_as_tell_them_apart(paths, names):
    assert short_names(paths) == names

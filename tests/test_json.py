"""The JSON file of test.py tells what its numbers depend on, so that two of them can be told apart; and they do."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from projects import write_photos
from specs import liif, lte, make_checkpoint, metasr
from test_tile import SWINIR

import devices
import test
from errors import UserError
from models import predict

PLAIN = {'lr': 'pillow', 'jpeg': None, 'set': [], 'self_ensemble': False, 'tile': None, 'max_cell_scale': None,
         'precision': 'float32'}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A function: what test.py's JSON tells beside its results, and the PSNR, for a model and more arguments."""
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / 'photos', 1)
    dataset = {'name': 'image-folder', 'args': {'root_path': 'photos'}}
    wrapper = {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 2}}
    Path('two.yaml').write_text(yaml.safe_dump({'test_dataset': {
        'dataset': dataset, 'wrapper': wrapper, 'batch_size': 1, 'num_workers': 0}}))
    make_checkpoint('swinir.pth', liif(encoder_spec=SWINIR))
    make_checkpoint('lte.pth', lte())

    def call(model, *args):
        monkeypatch.setattr(sys, 'argv', ['test.py', '--config', 'two.yaml', '--model', model, '--gpu', 'cpu',
                                          '--json', 'out.json', *args])
        test.main()
        found = json.loads(Path('out.json').read_text())
        result, = found.pop('results')
        assert found.pop('model') == model
        return found, result['psnr']

    return call


def test_a_json_file_that_cannot_be_written_is_told_before_anything_is_measured(measured, monkeypatch):
    monkeypatch.setattr(test, 'evaluate', None)
    Path('out.json').mkdir()
    with pytest.raises(UserError, match='out.json: is a folder'):
        measured('bicubic')


@pytest.mark.parametrize('model, args, told', [
    ('bicubic', (), {}), ('lte.pth', (), {'max_cell_scale': 4}),
    ('lte.pth', ('--max-cell-scale', 'none'), {}), ('lte.pth', ('--max-cell-scale', '1.5'), {'max_cell_scale': 1.5}),
    ('bicubic', ('--lr', 'matlab', '--set', 'eval_type=benchmark-2', '--set', 'eval_bsize=100'),
     {'lr': 'matlab', 'set': ['eval_type=benchmark-2', 'eval_bsize=100']}),
    ('swinir.pth', ('--tile', '16', '--self-ensemble'), {'tile': 16, 'self_ensemble': True})])
def test_the_json_tells_the_options_that_change_the_numbers(measured, model, args, told):
    assert measured(model, *args)[0] == {**PLAIN, **told}


@pytest.mark.parametrize('model, args', [
    ('lte.pth', ('--self-ensemble',)), ('lte.pth', ('--max-cell-scale', '1.5')), ('swinir.pth', ('--tile', '16'))])
def test_an_option_that_the_json_tells_changes_the_number(measured, monkeypatch, model, args):
    monkeypatch.setattr(predict, 'OVERLAP', 0)  # so that tiles are seen in the result
    assert measured(model, *args)[1] != measured(model)[1]


@pytest.mark.parametrize('has, precision', [(True, 'bf16'), (False, 'float32')])
def test_the_precision_is_the_one_that_was_computed_in(measured, monkeypatch, has, precision):
    for module in devices, test:
        monkeypatch.setattr(module, 'has_bf16', lambda device: has)
    told, psnr = measured('lte.pth', '--amp', 'bf16')
    assert told['precision'] == precision
    assert (psnr != measured('lte.pth')[1]) == has


@pytest.mark.parametrize('model, args, message', [
    ('bicubic', ('--self-ensemble',), '--self-ensemble needs a models.decoder.Decoder'),
    ('bicubic', ('--max-cell-scale', '4'), '--max-cell-scale: the cells of bicubic have no bound'),
    ('metasr.pth', ('--max-cell-scale', '4'), '--max-cell-scale: the cells of metasr.pth have no bound')])
def test_an_option_that_a_model_has_no_use_for_is_an_error(measured, model, args, message):
    make_checkpoint('metasr.pth', metasr())
    with pytest.raises(UserError, match=message):
        measured(model, *args)


@pytest.mark.parametrize('model, args', [
    ('lte.pth', ['--self-ensemble']), ('lte.pth', ['--max-cell-scale', '2']), ('swinir.pth', ['--tile', '16'])])
def test_an_option_for_whole_images_is_an_error_for_samples(measured, model, args):
    with pytest.raises(UserError, match=f'two.yaml: {args[0]} is for whole images: remove sample_q'):
        measured(model, *args, '--set', 'test_dataset.wrapper.args.sample_q=4')


@pytest.mark.parametrize('change', ['args.scale_min=4', 'args={scales: [4]}'])
def test_a_border_for_another_scale_than_the_images_have_is_an_error(measured, change):
    changes = f'test_dataset.wrapper.{change}', 'eval_type=benchmark-2'
    with pytest.raises(UserError, match='eval_type benchmark-2 is for x2, but the images are reduced by x4'):
        measured('bicubic', *(word for change in changes for word in ('--set', change)))


def test_a_wrapper_whose_scale_is_not_given_reduces_by_1(measured):
    with pytest.raises(UserError, match='eval_type benchmark-2 is for x2, but the images are reduced by x1'):
        measured('bicubic', '--set', 'test_dataset.wrapper.args={}', '--set', 'eval_type=benchmark-2')

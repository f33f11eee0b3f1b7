"""scripts/move_decoder.py: a trained decoder on another encoder."""

import sys

import pytest
import specs
import torch
from photos import save_photos

import models
from errors import UserError
from models.checkpoint import write
from models.registry import make_model, with_n_colors
from scripts import move_decoder

CONFIG = '''
train_dataset:
  dataset: {{name: image-folder, args: {{root_path: {}}}}}
  wrapper: {{name: sr-implicit-downsampled, args: {{inp_size: 12, scale_max: 3, sample_q: 1}}}}
  batch_size: 2
  num_workers: 0
'''


GREY = with_n_colors(specs.liif(), 1)


def mixed(encoder):
    """Another EDSR whose four features are those of `encoder` in another order, all of its channels being renamed."""
    order, weights = torch.tensor([2, 0, 3, 1]), {}
    for name, value in encoder.state_dict().items():
        value = value[order]
        weights[name] = value[:, order] if value.dim() == 4 and not name.startswith('head') else value
    return weights


@pytest.fixture
def move(tmp_path, monkeypatch):
    """Moves the decoder of one model to the encoder of another, and returns what was written."""
    save_photos(tmp_path / 'photos', **{f'p{i}': (40, 50) for i in range(8)})
    (tmp_path / 'train.yaml').write_text(CONFIG.format(tmp_path / 'photos'))

    def run(model, other):
        for name, spec in (('model', model), ('other', other)):
            if not (tmp_path / f'{name}.pth').exists():
                write({'model': {**spec, 'sd': make_model(spec).state_dict()}}, tmp_path / f'{name}.pth')
        monkeypatch.setattr(sys, 'argv', ['move_decoder.py', str(tmp_path / 'model.pth'),
                                          '--encoder', str(tmp_path / 'other.pth'), '--config',
                                          str(tmp_path / 'train.yaml'), '--output', str(tmp_path / 'new/moved.pth')])
        move_decoder.main()
        return models.load(tmp_path / 'new/moved.pth')
    return run


@pytest.mark.parametrize('spec', [specs.liif(), specs.a_liif(init='layer'), specs.a_liif(expansion=False, K=1),
                                  specs.liif(feat_unfold=False), specs.pixel(init='layer')])
def test_on_an_encoder_with_the_same_features_in_another_order_it_gives_the_same_colours(move, tmp_path, spec):
    torch.manual_seed(1)
    model, other = make_model(spec), make_model(specs.liif())
    other.encoder.load_state_dict(mixed(model.encoder))
    for name, made, its_spec in (('model', model, spec), ('other', other, specs.liif())):
        write({'model': {**its_spec, 'sd': made.state_dict()}}, tmp_path / f'{name}.pth')
    inp, coord = torch.rand(1, 3, 9, 7) * 2 - 1, torch.rand(1, 50, 2) * 2 - 1
    cell = torch.full((1, 50, 2), 0.1)
    with torch.no_grad():
        expected, moved = model(inp, coord, cell), move(spec, specs.liif())
        assert not torch.equal(model.encoder(inp), moved.encoder(inp))
        torch.testing.assert_close(moved(inp, coord, cell), expected, rtol=0, atol=0.02 * float(expected.std()))


@pytest.mark.parametrize('model, other, message', [
    (specs.lte(), specs.liif(), 'only the decoders of LIIF and A-LIIF'),
    (specs.fixed_scale(), specs.liif(), 'only the decoders of LIIF and A-LIIF'),
    (specs.liif(), specs.fixed_scale(), 'has no encoder of 4 features'),
    (specs.liif(), GREY, 'other.pth: the model is for images of 1 channel, not 3'),
    (GREY, GREY, 'train.yaml: train_dataset: the model is for images of 1 channel, not 3'),
])
def test_what_does_not_fit_is_an_error(move, model, other, message):
    with pytest.raises(UserError, match=message):
        move(model, other)


def test_a_config_without_training_samples_is_an_error(move, tmp_path):
    (tmp_path / 'train.yaml').write_text('test_dataset: {}')
    with pytest.raises(UserError, match='train.yaml: has no train_dataset'):
        move(specs.liif(), specs.liif())

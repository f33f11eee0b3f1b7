"""scripts/export_onnx.py: under onnxruntime the files give what the model gives, at any size and scale."""

import numpy as np
import pytest
import readme
import specs
import torch
from photos import smooth
from PIL import Image
from processes import forked

import models
from errors import UserError
from models import load_pretrained, rdn, upscale_pil
from models.registry import with_n_colors
from scripts import export_onnx

MODELS = {'pixel': specs.pixel(encoder_spec=specs.RCAN, residual='bilinear'),
          'a-liif': specs.a_liif(), 'metasr': specs.metasr(encoder_spec=specs.RDN),
          'liif': specs.liif(encoder_spec={
              'name': 'swinir', 'args': {'embed_dim': 6, 'depths': [2, 2], 'num_heads': [2, 3]}}),
          'lmlte': specs.lmlte(),
          'grey-plain': with_n_colors(specs.pixel(local_ensemble=False, feat_unfold=False, cell_decode=False), 1)}
SIZES = [(1, (8, 9), (20, 31)), (3, (16, 13), (17, 40)), (1, (12, 20), (12, 20)), (2, (31, 5), (100, 60)),
         (1, (1, 1), (5, 4)), (1, (40, 30), (20, 30)),
         (1, (3, 2), (9, 2)), (1, (11, 14), (11, 14)), (1, (11, 14), (33, 42))]  # batch, image, target


@pytest.fixture(scope='module')
def onnxruntime():
    for name in ('onnx', 'onnxscript'):
        pytest.importorskip(name, reason=f'{name} is not installed (requirements-onnx.txt)')
    return pytest.importorskip('onnxruntime', reason='onnxruntime is not installed (requirements-onnx.txt)')


@pytest.fixture(scope='module', params=MODELS)
def exported(request, onnxruntime, tmp_path_factory):
    """A model and its two files' sessions."""
    folder = tmp_path_factory.mktemp('onnx')
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(rdn.CONFIGS, 'A', (2, 2, 3))  # of 120 layers the export would take a minute
        model = models.make(MODELS[request.param]).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if not name.startswith('encoder.'):
            torch.nn.init.normal_(parameter, std=0.3)  # large enough to matter in the result
    export_onnx.export_model(model, folder)
    return model, *(onnxruntime.InferenceSession(folder / f'{name}.onnx') for name in ('encoder', 'decoder'))


@pytest.mark.slow
@pytest.mark.parametrize('batch, shape, size', SIZES, ids=lambda value: str(value).replace(' ', ''))
def test_outputs_equal_the_models_at_any_size_and_scale(exported, batch, shape, size):
    model, encoder, decoder = exported
    image = torch.rand(batch, model.n_colors, *shape)
    coord, cell = (t.float() for t in specs.grid(*size, batch))
    expected = model(image * 2 - 1, coord, cell) / 2 + 0.5
    features, = encoder.run(None, {'image': image.numpy()})
    inputs = {'image': image.numpy(), 'features': features, 'coord': coord.numpy(), 'cell': cell.numpy()}
    assert np.abs(decoder.run(None, inputs)[0] - expected.numpy()).max() < 1e-4


@pytest.mark.slow
def test_the_readmes_lines_give_what_the_model_makes_of_a_photo(onnxruntime, tmp_path, monkeypatch):
    smooth((40, 30)).save(tmp_path / 'photo.jpg')
    command, = readme.commands('export_onnx.py')
    assert forked(tmp_path, *command[1:]).returncode == 0
    monkeypatch.chdir(tmp_path)
    code, = readme.blocks('onnxruntime.InferenceSession')
    exec(code, {})
    expected = upscale_pil(load_pretrained('edsr-baseline-A-liif-pixel'), Image.open('photo.jpg'), scale=3.7)
    difference = np.asarray(Image.open('big.png')).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 1  # of 255: rounding


def test_without_the_packages_the_error_says_how_to_install_them(monkeypatch):
    monkeypatch.setattr(export_onnx.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr('sys.argv', ['export_onnx.py', '--output', 'onnx'])
    with pytest.raises(UserError, match='onnx and onnxscript missing: pip install -r requirements-onnx.txt'):
        export_onnx.main()

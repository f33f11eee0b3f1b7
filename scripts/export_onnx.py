"""Writes a model as two ONNX files, encoder.onnx and decoder.onnx, for any image size and any scale.

    pip install -r requirements-onnx.txt
    python scripts/export_onnx.py --model edsr-baseline-A-liif-pixel --output save/onnx

encoder: image (B, C, h, w), float32 in [0, 1] -> features (B, n, h, w).
decoder: image, features, coord (B, Q, 2), cell (B, Q, 2) -> colours (B, Q, C), near [0, 1], to be clamped.
coord is (y, x) of a query, with the image spanning [-1, 1]; cell is the height and width of a pixel of the target,
(2 / H, 2 / W), the same for all queries of an image. Each call of the decoder starts with convolutions of the features,
so give it many queries at a time.
"""

import argparse
import importlib.util
import logging
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import add_import_option, add_model_option, run_cli
from errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser)
    parser.add_argument('--output', type=Path, required=True, help='the folder to write to')
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import torch
from torch import nn

from files import atomic_write
from models import load_pretrained
from models.normalisation import normalisations

AXES = {'image': {0: 'batch', 2: 'height', 3: 'width'}, 'features': {0: 'batch', 2: 'height', 3: 'width'},
        'coord': {0: 'batch', 1: 'queries'}, 'cell': {0: 'batch', 1: 'queries'}}


class OnnxEncoder(nn.Module):
    """The encoder of `model`, a `Decoder`, with the normalisation of its inputs."""

    def __init__(self, model):
        super().__init__()
        self.encoder = model.encoder
        self.norm, _ = normalisations(model.data_norm, 'cpu')

    def forward(self, image):
        return self.encoder(self.norm.apply(image))


class OnnxDecoder(nn.Module):
    """The decoding part of `model`, a `Decoder`, with the normalisation of its outputs undone."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.inp_norm, self.gt_norm = normalisations(model.data_norm, 'cpu')

    def forward(self, image, features, coord, cell):
        features = self.model.make_features(features, self.inp_norm.apply(image))
        return self.gt_norm.undo(self.model.query(features, coord, cell))


def export(module, inputs, output, path):
    """Writes `module` to the file `path`. `inputs`: example tensors by name; `output`: the output's name."""
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)  # it warns that torchvision is missing, which is not needed
    with warnings.catch_warnings(action='ignore'):
        program = torch.onnx.export(
            module, kwargs=inputs, input_names=list(inputs), output_names=[output], dynamo=True, verbose=False,
            dynamic_shapes={name: AXES[name] for name in inputs},
            optimize=False)  # it treats the local ensemble's + 1e-9 as + 0; onnxruntime optimises better
    with atomic_write(path) as file:
        file.write(program.model_proto.SerializeToString())


def export_model(model, folder):
    """Writes encoder.onnx and decoder.onnx of `model`, a `Decoder`, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    image, coord = torch.rand(2, model.n_colors, 10, 12), torch.rand(2, 30, 2)
    cell = torch.full_like(coord, 0.1)
    features = model.encoder(image).contiguous()  # ONNX does not support the strides of views
    export(OnnxEncoder(model), {'image': image}, 'features', folder / 'encoder.onnx')
    export(OnnxDecoder(model), {'image': image, 'features': features, 'coord': coord, 'cell': cell}, 'colours',
           folder / 'decoder.onnx')


def main():
    args = parse_args()
    missing = [name for name in ('onnx', 'onnxscript') if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'{" and ".join(missing)} missing: pip install -r requirements-onnx.txt')
    export_model(load_pretrained(args.model).requires_grad_(False), args.output)
    print(f'{args.output}: encoder.onnx and decoder.onnx')


if __name__ == '__main__':
    run_cli(main)

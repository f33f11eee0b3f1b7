r"""Puts a trained decoder on another encoder, so that training goes on from there instead of from a new decoder.

    python scripts/move_decoder.py edsr-baseline-liif --encoder edsr-baseline-A-liif-pixel \
        --config configs/train-photos/train_edsr-baseline-liif.yaml --output save/moved-liif.pth

The decoder's own features are predicted from those of the other encoder by the linear map that is best in the sense of
least squares on samples of the config's train_dataset. The first layers of LIIF and A-LIIF are linear in the features,
so the map becomes part of them. The file is one for `weights_from`.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import add_import_option, run_cli
from errors import UserError, located


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='checkpoint of LIIF or A-LIIF, or its name in pretrained/')
    parser.add_argument('--encoder', required=True, metavar='MODEL', help='checkpoint whose encoder takes its place')
    parser.add_argument('--config', required=True, help='a training config, for its samples')
    parser.add_argument('--output', type=Path, required=True, help='the file to write')
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from config import load_yaml
from datasets import make_loader
from models.a_liif import ALIIF
from models.checkpoint import model_of, read, write
from models.convert import from_published
from models.decoder import Decoder
from models.liif import LIIF
from models.normalisation import normalisations, same_normalisation
from models.predict import check_channels
from models.pretrained import find
from utils import to_float

BATCHES = 60  # of the config's samples, on which the map is fitted
RIDGE = 1e-4  # of the codes' mean square: keeps the map's weights small where codes are nearly collinear


def first_layers(model: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of the first layers of LIIF or A-LIIF: what sees the codes."""
    if not isinstance(model, LIIF | ALIIF) or model.imnet is None:
        raise UserError('only the decoders of LIIF and A-LIIF can be moved')
    return [net.first for net in (model.imnet, getattr(model, 'expansion', None)) if net is not None]


def codes(decoder: Decoder, encoder: nn.Module, inp: torch.Tensor) -> torch.Tensor:
    """The latent codes that `decoder` makes of the features of `encoder`, with a constant: (B*h*w, feat_dim + 1)."""
    size = 3 if decoder.feat_unfold else 1
    unfolded = F.unfold(encoder(inp), size, padding=size // 2).transpose(1, 2).flatten(0, 1)
    return F.pad(unfolded, (0, 1), value=1).double()


def fit(decoder: Decoder, encoder: nn.Module, inputs: Iterable[torch.Tensor]) -> tuple[torch.Tensor, float]:
    """The map A with which A x is nearest to the decoder's own codes, x being those of `encoder`; and how near.

    A: (feat_dim, features of the encoder's codes + 1). How near: the share of the codes' variance that A x explains.
    """
    squares = products = own = 0
    for inp in inputs:
        x, y = codes(decoder, encoder, inp), codes(decoder, decoder.encoder, inp)
        squares, products, own = squares + x.T @ x, products + x.T @ y, own + y.T @ y
    scale = squares.diagonal()[:-1].mean()
    ridge = torch.full((len(squares),), RIDGE * scale, dtype=torch.double)
    ridge[-1] = 0  # the constant
    solution = torch.linalg.solve(squares + ridge.diag(), products)
    error = own - 2 * solution.T @ products + solution.T @ squares @ solution
    variance = own - own[:, -1:] * own[-1:] / own[-1, -1]
    return solution[:, :-1].T, 1 - float(error.trace() / variance.trace())


def move(model: Decoder, matrix: torch.Tensor) -> None:
    """Puts the map (feat_dim, n + 1) of `fit` into the first layers of `model`, in place."""
    for weight, bias in first_layers(model):
        moved = weight[:, :model.feat_dim].double() @ matrix
        weight[:, :model.feat_dim], bias[:] = moved[:, :-1], bias + moved[:, -1]


def inputs_of(path: str, model: Decoder) -> Iterator[torch.Tensor]:
    """The first BATCHES inputs of the config at `path`, as `model` takes them."""
    norm, _ = normalisations(model.data_norm, 'cpu')
    config = load_yaml(path)
    if 'train_dataset' not in config:
        raise UserError(f'{path}: has no train_dataset')
    with located(f'{path}: train_dataset'):
        loader = make_loader(config['train_dataset'], seed=0, shuffle=True)
        check_channels(model, loader.dataset.n_colors)
    for batch in tqdm(itertools.islice(loader, BATCHES), total=min(BATCHES, len(loader)), leave=False):
        yield norm.apply(to_float(batch['inp']))


def open_both(args: argparse.Namespace) -> tuple[dict, Decoder, dict, nn.Module]:
    """The checkpoint and the model whose decoder is moved, and those with the other encoder; checks that they fit."""
    state, other = (read(find(name)) for name in (args.model, args.encoder))
    with located(args.model):
        model = model_of(state)
        first_layers(model)
    with located(args.encoder):
        donor = model_of(other)
    if getattr(getattr(donor, 'encoder', None), 'out_dim', None) != model.encoder.out_dim:
        raise UserError(f"{args.encoder}: has no encoder of {model.encoder.out_dim} features, which {args.model}'s has")
    with located(args.encoder):
        check_channels(donor, model.n_colors)
    if not same_normalisation(model.data_norm, donor.data_norm, 'inp'):
        raise UserError(f'{args.encoder}: its data_norm.inp is not that of {args.model}')
    return state, model, other, donor


@torch.no_grad()
def main() -> None:
    args = parse_args()
    state, model, other, donor = open_both(args)
    matrix, share = fit(model, donor.encoder, inputs_of(args.config, model))
    move(model, matrix)
    model.encoder = donor.encoder
    specs = [from_published(each['model'])['args'] for each in (state, other)]
    spec = {'name': from_published(state['model'])['name'], 'sd': model.state_dict(),
            'args': {**specs[0], 'encoder_spec': specs[1]['encoder_spec']}}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write({'model': spec, 'data_norm': model.data_norm, 'scale_max': model.scale_max}, args.output)
    print(f"{args.output}: the map explains {share:.1%} of the variance of the decoder's own codes; "
          f'next: python train_liif.py --set weights_from={args.output} --set encoder_from=null --config ...')


if __name__ == '__main__':
    run_cli(main)

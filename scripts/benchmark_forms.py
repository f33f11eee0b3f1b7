"""Naive code for the decoders' equations as published, with which scripts/benchmark.py compares ours.

Codes are sampled for each of a query's four neighbours, and everything after that is computed for each of these; A-LIIF
builds a matrix for each query and layer. The weights are those of our models.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from models.decoder import Decoder
from models.geometry import all_queries, sample
from utils import make_coord

CHUNK = 30_000  # queries decoded at a time, as in the published test configs
Maps = list[torch.Tensor]


class Form(NamedTuple):
    """A published decoder: `maps(model, feat, rel_cell)` and `colours(model, codes, rel_coord, rel_cell)`.

    The first computes maps (B, n, h, w) from the feature map (B, C, h, w) and the images' cells (B, 1, 2); the second
    computes colours (N, 3) from codes sampled from these maps, (N, n) each, and rel_coord and rel_cell, (N, 2).
    """
    maps: Callable[[Decoder, torch.Tensor, torch.Tensor], Maps]
    colours: Callable[[Decoder, Maps, torch.Tensor, torch.Tensor], torch.Tensor]


def layers(net: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """(N, in_dim) -> (N, out_dim), through linear layers, which may be stored as 1x1 convolutions."""
    for layer in net:
        x = F.linear(x, layer.weight.flatten(1), layer.bias) if hasattr(layer, 'weight') else layer(x)
    return x


def on_map(function: Callable, *maps: torch.Tensor) -> torch.Tensor:
    """`function` applied to the rows (N, n) of maps (B, n, h, w); the result is a map again."""
    batch, _, h, w = maps[0].shape
    rows = function(*(some.permute(0, 2, 3, 1).flatten(0, 2) for some in maps))
    return rows.view(batch, h, w, -1).permute(0, 3, 1, 2)


# --- LIIF, A-LIIF ----------------------------------------------------------------------------------------------------


def unfolded(model, feat, rel_cell):
    return [F.unfold(feat, 3, padding=1).view(len(feat), -1, *feat.shape[2:])]


def liif(model, codes, rel_coord, rel_cell):
    return layers(model.imnet.layers, torch.cat((*codes, rel_coord, rel_cell), dim=-1))


def a_liif(model, codes, rel_coord, rel_cell):
    """Each input has its own MLP, W = sum_k c_k W_k and b = sum_k c_k b_k."""
    x = torch.cat((*codes, rel_coord, rel_cell), dim=-1)
    c, imnet = F.normalize(layers(model.expansion.layers, x), dim=-1), model.imnet
    for i, (weights, biases) in enumerate(zip(imnet.weights, imnet.biases, strict=True)):
        matrices = (c @ weights).view(len(x), imnet.dims[i + 1], imnet.dims[i])
        x = torch.bmm(matrices, (x.relu() if i else x).unsqueeze(2)).squeeze(2) + c @ biases
    return x


# --- LTE -------------------------------------------------------------------------------------------------------------


def estimates(model, feat, rel_cell):
    return [model.coef(feat), model.freq(feat)]


def waves(coef, freq, phase, rel_coord):
    """Fourier features (N, D): coef (N, D), freq (N, D / 2, 2), phase (N, D / 2), rel_coord (N, 2)."""
    angle = math.pi * ((freq * rel_coord.unsqueeze(1)).sum(dim=-1) + phase)
    return coef * torch.cat((angle.cos(), angle.sin()), dim=-1)


def lte(model, codes, rel_coord, rel_cell):
    coef, freq = codes
    return layers(model.imnet.layers, waves(coef, freq.unflatten(-1, (-1, 2)), model.phase(rel_cell), rel_coord))


def lte_fast(model, codes, rel_coord, rel_cell):
    coef, freq = codes
    freq = freq.unflatten(-1, (2, -1)).transpose(-1, -2)
    return layers(model.layers, waves(coef, freq, model.phase(rel_cell), rel_coord))


# --- LM-LIIF, LM-LTE -------------------------------------------------------------------------------------------------


def cell_map(feat, rel_cell):
    return rel_cell.transpose(1, 2).unsqueeze(3).expand(-1, -1, *feat.shape[2:])


def modulation_of_features(model, feat, rel_cell):
    code = torch.cat((*unfolded(model, feat, rel_cell), cell_map(feat, rel_cell)), dim=1)
    return [on_map(lambda x: layers(model.hypernet.layers, x), code)]


def modulation_of_waves(model, feat, rel_cell):
    def made(coef, freq, cell):
        start = waves(coef, freq.unflatten(-1, (-1, 2)), model.phase(cell), torch.ones_like(cell))
        return layers(model.hypernet.layers, start)
    return [on_map(made, *estimates(model, feat, rel_cell), cell_map(feat, rel_cell))]


def modulated(imnet, x, modulation):
    """The render net: hidden layers are scaled and shifted before ReLU."""
    width = imnet.hidden_dim
    scales, shifts = modulation.chunk(2, dim=-1)
    for i, layer in enumerate(imnet.layers[:-1:2]):
        part = slice(i * width, (i + 1) * width)
        x = F.relu(F.linear(x, layer.weight, layer.bias) * (1 + scales[:, part]) + shifts[:, part])
    return F.linear(x, imnet.layers[-1].weight, imnet.layers[-1].bias)


def lm_liif(model, codes, rel_coord, rel_cell):
    """With `mod_input`."""
    modulation, code = codes[0].tensor_split([model.imnet.modulations], dim=-1)
    return modulated(model.imnet, torch.cat((code, rel_coord, rel_cell), dim=-1), modulation)


def lm_lte(model, codes, rel_coord, rel_cell):
    """With `mod_input`."""
    modulation, code = codes[0].tensor_split([model.imnet.modulations], dim=-1)
    coef, freq = code.chunk(2, dim=-1)
    x = waves(coef, freq.unflatten(-1, (-1, 2)), model.imphase(rel_cell), rel_coord)
    return modulated(model.imnet, x, modulation)


FORMS = {  # by the name of the config in configs/train-div2k
    'A-liif': Form(unfolded, a_liif), 'liif': Form(unfolded, liif), 'lte': Form(estimates, lte),
    'lte-fast': Form(estimates, lte_fast), 'lmliif': Form(modulation_of_features, lm_liif),
    'lmlte': Form(modulation_of_waves, lm_lte)}


# --- querying --------------------------------------------------------------------------------------------------------


def query(model: Decoder, form: Form, maps: Maps, inp: torch.Tensor, coord: torch.Tensor,
          cell: torch.Tensor) -> torch.Tensor:
    """Colours (B, Q, 3) that `form` computes from the four nearest codes in `maps`, weighted by area.

    inp: (B, 3, h, w).
    """
    batch, _, h, w = maps[0].shape
    centres = make_coord((h, w), flatten=False).to(coord).permute(2, 0, 1).expand(batch, -1, -1, -1)
    size = coord.new_tensor((h, w))
    rel_cell = (cell * size).flatten(0, 1)
    preds, areas = [], []
    for signs in itertools.product((-1, 1), (-1, 1)):
        near = (coord + coord.new_tensor(signs) / size + 1e-6).clamp(-1 + 1e-6, 1 - 1e-6)
        rel_coord = (coord - sample(centres, near, 'nearest')) * size
        codes = [sample(some, near, 'nearest').flatten(0, 1) for some in maps]
        preds.append(form.colours(model, codes, rel_coord.flatten(0, 1), rel_cell).view(batch, -1, 3))
        areas.append(rel_coord.prod(dim=-1, keepdim=True).abs() + 1e-9)
    pred = sum(pred * area for pred, area in zip(preds, reversed(areas), strict=True)) / sum(areas)
    return pred + sample(inp, coord, 'bilinear') if model.residual else pred


def forward(model: Decoder, form: Form, inp: torch.Tensor, coord: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """The result of `model(inp, coord, cell)`, computed with the published form."""
    feat = model.encoder(inp)
    maps = form.maps(model, feat, cell[:, :1] * cell.new_tensor(feat.shape[2:]))
    return query(model, form, maps, inp, coord, cell)


@torch.no_grad()
def decode(model: Decoder, form: Form, feat: torch.Tensor, inp: torch.Tensor, size: tuple[int, int],
           queries: int) -> torch.Tensor:
    """The first `queries` colours (1, Q, 3), on the CPU, of the image of `size` decoded from `feat` and `inp`."""
    coord, cell = (values[:, :queries] for values in all_queries(size, 1, feat))
    maps = form.maps(model, feat, cell[:, :1] * cell.new_tensor(feat.shape[2:]))
    chunks = zip(coord.split(CHUNK, dim=1), cell.split(CHUNK, dim=1), strict=True)
    return torch.cat([query(model, form, maps, inp, *chunk) for chunk in chunks], dim=1).cpu()

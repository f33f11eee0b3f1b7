"""What the decoders share: encode once, then colour any coordinate from its nearest latent codes.

The input of every decoder's network is x = [3x3-unfolded feature, rel_coord, rel_cell] (LIIF, section 3). A network's
first layer is linear in x, so the feature's part of it is a convolution of the feature map: it is computed once per
latent pixel ("hoisted"), and a query gathers it and adds the part of its coordinates. This is exact.
"""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from models.geometry import neighbours, relative_cell
from models.registry import make
from utils import UserError, axis_coords

Residual = Literal['bilinear'] | None
USUAL_NORM = {'inp': {'sub': [0.5], 'div': [0.5]}, 'gt': {'sub': [0.5], 'div': [0.5]}}  # of the authors' checkpoints


def chunk_size(device: torch.device) -> int:
    """Queries decoded at a time where no gradient is wanted: on a CPU their activations stay in the cores' caches."""
    if device.type == 'cuda':
        return 1 << 16
    return torch.get_num_threads() * (1024 if torch.is_autocast_enabled(device.type) else 768)


class Decoder(nn.Module):
    """Base of the decoders: a subclass gives `prepare` and `decode`.

    `encoder_spec`: the encoder. `local_ensemble`: decode from 4 codes rather than 1. `feat_unfold`: a code is its 3x3
    neighbourhood. `cell_decode`: the network sees the size of the target's pixel. `residual: bilinear` adds the
    bilinearly sampled input to the prediction (as LTE does, Lee and Jin, CVPR 2022; not in the published A-LIIF).
    """

    data_norm = USUAL_NORM  # the normalisation it was trained with: `models.load` sets what the checkpoint records

    # how many features beyond the 3x3 around a code `prepare` and `decode` look at (math.inf: at all): large images are
    # decoded in bands, and each band needs them
    reach = 0

    def __init__(self, encoder_spec: dict, local_ensemble: bool, feat_unfold: bool, cell_decode: bool,
                 residual: Residual):
        super().__init__()
        self.encoder = make(encoder_spec)
        if not hasattr(self.encoder, 'out_dim'):
            raise UserError(f"encoder_spec: {encoder_spec['name']} is no encoder")
        self.local_ensemble, self.feat_unfold, self.cell_decode = local_ensemble, feat_unfold, cell_decode
        self.residual = residual
        self.feat_dim = self.encoder.out_dim * (9 if feat_unfold else 1)
        self.in_dim = self.feat_dim + 2 + (2 if cell_decode else 0)

    @property
    def receptive_radius(self) -> int | None:
        """The encoder's, in pixels; None where a feature depends on the whole image, or has been upsampled."""
        return getattr(self.encoder, 'receptive_radius', None)

    def gen_feat(self, inp: torch.Tensor) -> torch.Tensor:
        """Encodes `inp` (B, 3, h, w) for the queries to come; returns the feature map (B, C, h, w)."""
        feat = self.encoder(inp)
        self.use_features(feat, inp, (0, 0, *feat.shape[-2:]))
        return feat

    def use_features(self, feat: torch.Tensor, inp: torch.Tensor, window: tuple[int, int, int, int]) -> None:
        """Takes `feat` (B, C, h, w), the features of `inp`, for the queries to come.

        `window`: (top, left, height, width), where they lie in the latent map of the whole image, and its size.
        """
        self.feat, self.inp, self.window, self.prepared = feat, inp, window, False
        if not torch.is_grad_enabled():
            self.prepare_once()

    def query_rgb(self, coord: torch.Tensor, cell: torch.Tensor | None = None) -> torch.Tensor:
        """Colours (B, Q, 3) at `coord` (B, Q, 2) for target pixels of size `cell` (B, Q, 2), both in [-1, 1] units."""
        pred = (self.decode_with_gradients if torch.is_grad_enabled() else self.decode_in_chunks)(coord, cell)
        return pred + self.sample_input(coord) if self.residual else pred

    def decode_in_chunks(self, coord: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        """`decode` without gradients, a chunk of the queries at a time."""
        self.prepare_once()
        self.begin(cell)
        step = max(1, chunk_size(coord.device) // coord.shape[0])
        coords = coord.split(step, dim=1)
        cells = [None] * len(coords) if cell is None else cell.split(step, dim=1)
        return torch.cat([self.decode(*chunk) for chunk in zip(coords, cells, strict=True)], dim=1)

    def decode_with_gradients(self, coord: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        """`decode` as part of a graph, on a CPU a few images at a time: what is between two layers stays in cache."""
        if coord.device.type != 'cpu' or torch.compiler.is_compiling():
            self.prepare()
            self.begin(cell)
            return self.decode(coord, cell)
        preds, images = [], max(1, chunk_size(coord.device) // coord.shape[1])
        for i in range(0, len(coord), images):
            part, some = copy.copy(self), slice(i, i + images)
            part.feat, part.inp = self.feat[some], self.inp[some]
            queries = (coord[some], None if cell is None else cell[some])
            part.prepare()
            part.begin(queries[1])
            preds.append(part.decode(*queries))
        return torch.cat(preds)

    def query_grid(self, y: torch.Tensor, x: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """Colours (B, H, W, 3) at all pairs of the coordinates y (H,) and x (W,); `cell`: a target pixel's (2,)."""
        coord = grid(y, x, len(self.feat))
        return self.query_rgb(coord, cell.expand_as(coord)).view(-1, len(y), len(x), 3)

    def forward(self, inp: torch.Tensor, coord: torch.Tensor | None = None, cell: torch.Tensor | None = None,
                size: tuple[int, int] | None = None) -> torch.Tensor:
        """Colours (B, Q, 3) of the images `inp` (B, 3, h, w) at `coord` (B, Q, 2), for target pixels of size `cell`.

        Or, with `size` (H, W) instead of these, (B, H, W, 3): at all pixels of targets of that size.
        """
        self.gen_feat(inp)
        if size is None:
            return self.query_rgb(coord, cell)
        return self.query_grid(*axis_coords(size, inp), inp.new_tensor([2 / n for n in size]))

    def prepare_once(self) -> None:
        """`prepare` for queries without gradients; those with them compute it by each call, as part of their graph."""
        if not self.prepared:
            self.prepare()
            self.prepared = True

    def prepare(self) -> None:
        """Computes from `self.feat` what queries gather."""
        raise NotImplementedError

    def begin(self, cell: torch.Tensor | None) -> None:
        """Computes what the queries of a call share."""

    def decode(self, coord: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        """The network's colours (B, Q, 3)."""
        raise NotImplementedError

    # --- pieces for the subclasses

    def hoist(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """The feature's part of a first layer, weight (out, >= feat_dim), per latent pixel: (B*h*w, out)."""
        size = 3 if self.feat_unfold else 1
        kernel = weight[:, :self.feat_dim].reshape(-1, self.encoder.out_dim, size, size)
        feat = self.feat.contiguous(memory_format=torch.channels_last)
        return F.conv2d(feat, kernel, bias, padding=size // 2).permute(0, 2, 3, 1).reshape(-1, kernel.shape[0])

    def neighbours(self, coord: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Row in what `hoist` gives, rel_coord and weight of each query's codes; see `geometry.neighbours`."""
        iy, ix, rel_coord, weights = neighbours(coord, self.window[2:], self.local_ensemble)
        return self.flat_index(iy, ix), rel_coord, weights

    def flat_index(self, iy: torch.Tensor, ix: torch.Tensor) -> torch.Tensor:
        """Row, in what `hoist` gives, of the code in row iy and column ix, (..., B, Q) each, of the latent map."""
        batch, _, h, w = self.feat.shape
        image = torch.arange(batch, device=iy.device).view(-1, 1)
        return (image * h + iy - self.window[0]) * w + ix - self.window[1]

    def sample_input(self, coord: torch.Tensor) -> torch.Tensor:
        """The input's colours (B, Q, 3) at `coord` by bilinear interpolation."""
        top, left, height, width = self.window
        h, w = self.feat.shape[-2:]
        if (h, w) != (height, width):  # a window: the input is cut to it like the features
            size, offset = coord.new_tensor((height, width)), coord.new_tensor((top, left))
            coord = ((coord + 1) * size - 2 * offset) / coord.new_tensor((h, w)) - 1
        return sample(self.inp, coord, 'bilinear')

    def local_input(self, rel_coord: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """The rest of the network's input: (n, B, Q, 2) and (B, Q, 2) -> (n*B*Q, 2), or 4 with `cell_decode`."""
        if self.cell_decode:
            rel_cell = relative_cell(cell, self.window[2:]).expand_as(rel_coord)
            rel_coord = torch.cat((rel_coord, rel_cell), dim=-1)
        return rel_coord.flatten(0, 2)

    def first_layer(self, rows: torch.Tensor, index: torch.Tensor, local: torch.Tensor,
                    weight: torch.Tensor) -> torch.Tensor:
        """A first layer's output for each query and code: hoisted `rows` at `index`, plus the part of `local`."""
        part = weight[:, self.feat_dim:].t()
        # in place, which spares a copy of the rows; autocast leaves products in place alone
        return rows.index_select(0, index.flatten()).addmm_(local.to(rows.dtype), part.to(rows.dtype))


def make_net(key: str, spec: dict, in_dim: int, kind: type, out_dim: int | None = None) -> nn.Module:
    """The network of the class `kind` that a config describes as `key`; its out_dim must be the given one."""
    net = make(spec, {'in_dim': in_dim})
    if not isinstance(net, kind):
        raise UserError(f"{key}: {spec['name']} is none for this decoder: it must be a {kind.__name__}")
    if out_dim not in (None, net.out_dim):
        raise UserError(f'{key}: out_dim must be {out_dim}, for the colours, not {net.out_dim}')
    return net


def ensemble(pred: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sum over the local ensemble: (n*B*Q, C) and (n, B, Q) -> (B, Q, C)."""
    return (pred.view(*weights.shape, -1) * weights.unsqueeze(-1)).sum(dim=0)


def grid(y: torch.Tensor, x: torch.Tensor, batch: int) -> torch.Tensor:
    """Coordinates (batch, H*W, 2) of all pairs of y (H,) and x (W,)."""
    coord = torch.stack(torch.meshgrid(y, x, indexing='ij'), dim=-1)
    return coord.view(1, -1, 2).expand(batch, -1, -1)


def sample(image: torch.Tensor, coord: torch.Tensor, mode: str) -> torch.Tensor:
    """Colours (B, Q, C) of `image` (B, C, H, W) at `coord` (B, Q, 2), 'nearest' or 'bilinear'."""
    grid = coord.flip(-1).unsqueeze(1)
    return F.grid_sample(image, grid, mode=mode, padding_mode='border', align_corners=False)[:, :, 0].transpose(1, 2)

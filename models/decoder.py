"""What the decoders share: encode once, then colour any coordinate from its nearest latent codes.

The input of LIIF's and A-LIIF's networks is x = [3x3-unfolded feature, rel_coord, rel_cell] (LIIF, section 3). The
first layer is linear in x, so the feature's part of its output is a convolution of the feature map. It is computed once
per latent pixel ("hoisted"); a query gathers it and adds the part of its coordinates. The result is exact.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from errors import UserError
from models.features import Features
from models.geometry import axis_coords, grid, neighbours, relative_cell
from models.mlp import AVX512, MLP, MLPMixture
from models.normalisation import USUAL_NORM
from models.pixel_grid import decode_grid, is_regular, on_device
from models.registry import make

Residual = Literal['bilinear'] | None


def chunk_size(device: torch.device) -> int:
    """Queries decoded at a time without gradients: on a CPU their activations stay in the cores' caches.

    768 was the fastest on a Zen 5, which has AVX-512 and larger caches (see also `mlp.linear`), 256 on a Zen 3, where
    LIIF and A-LIIF take 1.4 to 1.6 times as long with 768.
    """
    if device.type == 'cuda':
        return 1 << 16
    return torch.get_num_threads() * (1024 if torch.is_autocast_enabled(device.type) else 768 if AVX512 else 256)


class Decoder(nn.Module):
    """Base of the decoders: a subclass defines `hoist` and `decode`. `encode` once, then `query` at any coordinates.

    `encoder_spec`: the encoder. `local_ensemble`: decode from 4 codes rather than 1. `feat_unfold`: a code is its 3x3
    neighbourhood. `cell_decode`: the network sees the size of the target's pixel. `residual: bilinear` adds the
    bilinearly sampled input to the prediction (as LTE does, Lee and Jin, CVPR 2022; not in the published A-LIIF). Both
    are normalised, so data_norm should be the same for inputs and targets.
    """

    data_norm = USUAL_NORM  # the normalisation of its training; `models.load` sets the one that the checkpoint records

    scale_max: float | None = 4  # the largest scale in its training, as far as it is known
    # whether whole images at larger scales are decoded with the cells of `scale_max`, as in LTE's and LM-LIIF's code,
    # but not in LIIF's. The demos do it with all models for which scale_max is not None.
    clip_cell = False

    # how many codes `hoist` and `decode` look beyond the 3x3 around a query's code, on each side (math.inf: they look
    # at all codes). Large images are decoded in bands, each of which includes these codes
    reach = 0

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.pixelwise = vars(cls).get('pixelwise', False)

    def __init__(self, encoder_spec: dict, local_ensemble: bool, feat_unfold: bool, cell_decode: bool,
                 residual: Residual):
        super().__init__()
        self.encoder = make(encoder_spec)
        if not hasattr(self.encoder, 'out_dim') or isinstance(self.encoder, MLP | MLPMixture):
            raise UserError(f"encoder_spec: {encoder_spec['name']} is not an encoder")
        self.local_ensemble, self.feat_unfold, self.cell_decode = local_ensemble, feat_unfold, cell_decode
        self.residual = residual
        self.n_colors = getattr(self.encoder, 'n_colors', 3)  # channels of the images; all heads follow it
        self.feat_dim = self.encoder.out_dim * (9 if feat_unfold else 1)
        self.in_dim = self.feat_dim + 2 + (2 if cell_decode else 0)

    @property
    def receptive_radius(self) -> int | None:
        """The encoder's receptive radius in pixels; None if a feature depends on the whole image, or is upsampled."""
        return getattr(self.encoder, 'receptive_radius', None)

    def check_precision(self) -> None:
        """Raises a UserError for weights of 16 bits, because coordinates need more digits."""
        weight = next(self.parameters(), None)  # replicas of DataParallel have none
        if weight is not None and weight.itemsize < 4:
            raise UserError(f'the weights are {str(weight.dtype).removeprefix("torch.")}: keep them in float32, and '
                            'use torch.autocast')

    def __getstate__(self):
        # in training `latest` refers to an autograd graph, which cannot be copied
        return {key: value for key, value in vars(self).items() if key != 'latest'}

    # --- encoding and querying

    def encode(self, inp: torch.Tensor) -> Features:
        """The features of the images `inp` (B, n_colors, h, w), for queries at any scale.

        They belong to this model and to its weights as they are now: after a step of training they are out of date.
        Features made under torch.autocast are queried under it, too.
        """
        self.check_precision()
        return self.make_features(self.encoder(inp), inp)

    def make_features(self, feat: torch.Tensor, inp: torch.Tensor,
                      window: tuple[int, int, int, int] | None = None) -> Features:
        """`Features` of a map `feat` (B, C, h, w) that the encoder has made of the images `inp`.

        inp: (B, n_colors, h, w), or another size if the encoder has an upsampler. `window`: see `Features`; by default
        the map is that of whole images.
        """
        return Features(feat, inp, window or (0, 0, *feat.shape[-2:]), self.hoist(feat), torch.is_grad_enabled())

    def query(self, features: Features, coord: torch.Tensor, cell: torch.Tensor | None = None) -> torch.Tensor:
        """Colours (B, Q, n_colors), normalised as `data_norm` says, at `coord` (B, Q, 2), in [-1, 1].

        cell: (B, Q, 2) or (B, 1, 2), the size (2 / H, 2 / W) of the target's pixels; None is allowed without
        `cell_decode`. A-LIIF in pixel space, LM-LIIF and LM-LTE need the same cell for all queries of an image, and
        raise a RuntimeError for different ones. UserError for other shapes.
        """
        coord, cell = self.checked(features, coord, cell)
        if coord.shape[1] == 0:
            return coord.new_empty(len(coord), 0, self.n_colors)
        features = self.trainable(features)
        pred = (self.decode_with_gradients if torch.is_grad_enabled() else self.decode_in_chunks)(features, coord, cell)
        if pred.shape != (*coord.shape[:2], self.n_colors):
            raise UserError(f'decode must give colours (B, Q, n_colors), {(*coord.shape[:2], self.n_colors)}, not '
                            f'{tuple(pred.shape)}')
        return pred + features.sample_input(coord) if self.residual else pred

    def query_grid(self, features: Features, y: torch.Tensor, x: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """Colours (B, H, W, n_colors) at all pairs of y (H,) and x (W,); `cell` (2,): the size of a target pixel.

        y and x may lie on the CPU, where the fast path reads them without waiting for a GPU.
        """
        def queries():
            return grid(on_device(y, cell.device), on_device(x, cell.device), len(features.feat))

        if self.pixelwise and is_regular(y, x):
            features = self.trainable(features)
            pred = decode_grid(self, features, y, x, cell)
            return pred + features.sample_input(queries()).view_as(pred) if self.residual else pred
        coord = queries()
        return self.query(features, coord, cell.expand_as(coord)).unflatten(1, (len(y), len(x)))

    def forward(self, inp: torch.Tensor, coord: torch.Tensor | None = None, cell: torch.Tensor | None = None,
                size: tuple[int, int] | None = None) -> torch.Tensor:
        """Colours (B, Q, n_colors) of the images `inp` (B, n_colors, h, w) at `coord` (B, Q, 2); `cell`: see `query`.

        With `size` (H, W) instead of `coord` and `cell`: colours (B, H, W, n_colors) of all pixels of targets of that
        size. UserError unless exactly one of `coord` and `size` is given.
        """
        if (coord is None) == (size is None):
            raise UserError('either coord (and cell) or size is needed')
        features = self.encode(inp)
        if size is None:
            return self.query(features, coord, cell)
        return self.query_whole(features, size)

    def query_whole(self, features: Features, size: tuple[int, int]) -> torch.Tensor:
        """Colours (B, H, W, n_colors) of all pixels of targets of `size` (H, W)."""
        cell = torch.stack([features.inp.new_full((), 2 / n) for n in size])
        return self.query_grid(features, *axis_coords(size, cell.dtype), cell)

    latest: Features | None = None  # set by `gen_feat`: the model's only state, for LIIF's interface

    def gen_feat(self, inp: torch.Tensor) -> torch.Tensor:
        """LIIF's interface: encodes `inp`, keeps its features for `query_rgb` (one thread only), returns the map."""
        self.latest = self.encode(inp)
        return self.latest.feat

    def query_rgb(self, coord: torch.Tensor, cell: torch.Tensor | None = None) -> torch.Tensor:
        """LIIF's interface: `query` with the features that `gen_feat` has kept."""
        if self.latest is None:
            raise UserError('call gen_feat before query_rgb')
        return self.query(self.latest, coord, cell)

    # --- what a subclass defines

    def hoist(self, feat: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is computed once per latent pixel of `feat` (B, C, h, w), by name: (B, h, w, n) each."""
        raise NotImplementedError

    def hoist_cell(self, features: Features, cell: torch.Tensor | None) -> Features:
        """`features` plus what is computed once per latent pixel for one `cell`; by default nothing.

        cell: (B, Q, 2), the same for all queries of an image. Each pixel must be computed on its own: on grids,
        `features` holds arbitrary pixels in one row, in which adjacent pixels are not neighbours in the image.
        """
        return features

    def decode(self, features: Features, coord: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        """The network's colours (B, Q, n_colors): what is computed for each query.

        coord and cell, (B, Q, 2) each, have been checked; `cell` is None if it was not given to `query`.
        """
        raise NotImplementedError

    # whether `decode_pixels`, a faster way to decode a grid, gives what `decode` does. Not inherited: a subclass may
    # compute something else, so it must set this again where it still holds
    pixelwise = False
    # about how many numbers per query `decode_pixels` holds between two layers
    width = 16

    def decode_pixels(self, hoisted: dict[str, torch.Tensor], rel_cell: torch.Tensor, rel_y: torch.Tensor,
                      rel_x: torch.Tensor) -> torch.Tensor:
        """What `decode` gives for p latent pixels and the n x m queries around each: colours (p, n * m, n_colors).

        hoisted: the hoisted tensors of these pixels, (p, ...) each; rel_cell (2,), rel_y (p, n), rel_x (p, m).
        """
        raise NotImplementedError

    # --- ways through `decode`

    def checked(self, features: Features, coord: torch.Tensor, cell: torch.Tensor | None) -> tuple:
        """`coord` and `cell` as `decode` takes them: (B, Q, 2) both, with no fewer digits than float32."""
        batch, dtype = len(features.feat), torch.promote_types(features.feat.dtype, torch.float32)
        if coord.dim() != 3 or coord.shape[::2] != (batch, 2):
            raise UserError(f'coord must be (B, Q, 2), with B = {batch}, the number of images, not {(*coord.shape,)}')
        if cell is None:
            if self.cell_decode:
                raise UserError("the model needs cell, the size of the target's pixels, (B, Q, 2) like coord")
            return coord.to(dtype), None
        if cell.dim() != 3 or cell.shape[::2] != (batch, 2) or cell.shape[1] not in (1, coord.shape[1]):
            raise UserError(f'cell must be (B, Q, 2) like coord, {(*coord.shape,)}, or (B, 1, 2), not {(*cell.shape,)}')
        return coord.to(dtype), cell.to(dtype).expand_as(coord)

    def trainable(self, features: Features) -> Features:
        """`features`, hoisted again if gradients are enabled now but were not when they were made (a frozen encoder).
        """
        if features.grad or not torch.is_grad_enabled():
            return features
        feat, inp = (x.clone() if x.is_inference() else x for x in (features.feat, features.inp))
        return self.make_features(feat, inp, features.window)

    def decode_in_chunks(self, features: Features, coord: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        """`decode` without gradients, a chunk of the queries at a time."""
        features = self.hoist_cell(features, cell)
        step = max(1, chunk_size(coord.device) // coord.shape[0])
        return torch.cat([self.decode(features, *part) for part in split(coord, cell, step, dim=1)], dim=1)

    def decode_with_gradients(self, features: Features, coord: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
        """`decode` with gradients, on a CPU a few images at a time, so that activations stay in cache."""
        if coord.device.type != 'cpu' or torch.compiler.is_compiling():
            return self.decode(self.hoist_cell(features, cell), coord, cell)
        images = max(1, chunk_size(coord.device) // coord.shape[1])
        return torch.cat([self.decode(self.hoist_cell(part, cell), coord, cell) for part, (coord, cell)
                          in zip(features.split(images), split(coord, cell, images, dim=0), strict=True)])

    # --- pieces for `hoist` and `decode`

    def first_rows(self, feat: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """The feature's part of a first layer's output per latent pixel, (B, h, w, out); weight: (out, >= feat_dim)."""
        size = 3 if self.feat_unfold else 1
        kernel = weight[:, :self.feat_dim].reshape(-1, self.encoder.out_dim, size, size)
        feat = feat.contiguous(memory_format=torch.channels_last)
        return F.conv2d(feat, kernel, bias, padding=size // 2).permute(0, 2, 3, 1)

    def neighbours(self, features: Features, coord: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The row in the hoisted tensors, rel_coord and weight of each query's codes; see `geometry.neighbours`."""
        iy, ix, rel_coord, areas = neighbours(coord, features.window[2:], self.local_ensemble)
        return features.flat_index(iy, ix), rel_coord, areas

    def local_input(self, features: Features, rel_coord: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """The network's input without the feature: rel_coord (n*B*Q, 2), or [rel_coord, rel_cell] (n*B*Q, 4).

        From rel_coord (n, B, Q, 2) and cell (B, Q, 2), which is only used with `cell_decode`.
        """
        if self.cell_decode:
            rel_cell = relative_cell(cell, features.window[2:]).expand_as(rel_coord)
            rel_coord = torch.cat((rel_coord, rel_cell), dim=-1)
        return rel_coord.flatten(0, 2)

    def first_layer(self, rows: torch.Tensor, index: torch.Tensor, local: torch.Tensor,
                    weight: torch.Tensor) -> torch.Tensor:
        """A first layer's output for each query and code: hoisted `rows` at `index`, plus the part of `local`."""
        part = weight[:, self.feat_dim:].t()
        # in place, to avoid a copy of the rows; autocast does not change in-place products
        return rows.index_select(0, index.flatten()).addmm_(local.to(rows.dtype), part.to(rows.dtype))

    def first_layer_on_pixels(self, features: Features, name: str, cell: torch.Tensor | None,
                              weight: torch.Tensor) -> torch.Tensor:
        """A first layer's output per latent pixel, (B, h, w, out), for input [feature, rel_cell].

        It is the feature's part, hoisted as `name`, plus the part of `cell` (B, Q, 2).
        """
        rows = features.hoisted[name]
        if not self.cell_decode:
            return rows.clone()  # ReLUs will overwrite it in place
        return rows + torch.matmul(self.shared_cell(features, cell), weight[:, self.feat_dim:].t()).unsqueeze(1)

    def shared_cell(self, features: Features, cell: torch.Tensor) -> torch.Tensor:
        """The relative cell (B, 1, 2) of each image, whose queries must all have the same `cell` (B, Q, 2)."""
        torch._assert_async((cell == cell[:, :1]).all(), 'all queries of an image must have the same cell')
        return relative_cell(cell[:, :1], features.window[2:])


def split(coord: torch.Tensor, cell: torch.Tensor | None, size: int, dim: int) -> list[tuple]:
    """Cuts `coord` and `cell`, (B, Q, 2) each (or `cell` None), into pairs of parts that are `size` long along `dim`.
    """
    coords = coord.split(size, dim)
    return list(zip(coords, [None] * len(coords) if cell is None else cell.split(size, dim), strict=True))


def ensemble(pred: torch.Tensor, areas: torch.Tensor) -> torch.Tensor:
    """Weighted sum over the local ensemble: (n*B*Q, C) and (n, B, Q) -> (B, Q, C)."""
    return (pred.view(*areas.shape, -1) * areas.unsqueeze(-1)).sum(dim=0)

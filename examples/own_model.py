r"""An encoder, a decoder, a dataset, a loss and a metric of your own, in one file: copy it and replace them.

    python train_liif.py --config examples/own_model.yaml --import examples.own_model
    python test.py --config configs/test/test-set5-2.yaml --model save/_own_model/epoch-last.pth \
        --import examples.own_model

`--import` reads this file, which registers the classes; from then on configs and checkpoints may name them. A config's
`args` are checked against the annotations of the class's parameters (`: int = 32`). test.py measures every metric that
is registered.
"""

import numpy as np
from PIL import Image, ImageDraw
from torch import nn
from torch.utils.data import Dataset

import datasets
import models
from metrics import metrics, scored_pixels
from models.decoder import Decoder, Residual, ensemble
from training.losses import losses


@models.register('own-encoder')
class Convolutions(nn.Sequential):
    """`depth` convolutions with `width` channels: images (B, 3, h, w) -> features (B, width, h, w)."""

    def __init__(self, width: int = 32, depth: int = 4):
        layers = [nn.Conv2d(3 if i == 0 else width, width, 3, padding=1) for i in range(depth)]
        super().__init__(*[module for layer in layers for module in (layer, nn.ReLU())])
        self.out_dim = width  # the decoder asks for it
        self.receptive_radius = depth  # in pixels: the margin of the tiles that large images are encoded in


@models.register('own-decoder')
class Slopes(Decoder):
    """A latent code gives a colour, and its slopes in y and x; a query mixes what its four nearest codes give."""

    def __init__(self, encoder_spec: dict, feat_unfold: bool = True, residual: Residual = None):
        super().__init__(encoder_spec, local_ensemble=True, feat_unfold=feat_unfold, cell_decode=False,
                         residual=residual)
        self.linear = nn.Linear(self.feat_dim, 9)

    def hoist(self, feat):
        return {'slopes': self.first_rows(feat, self.linear.weight, self.linear.bias)}  # (B, h, w, 9), once

    def decode(self, features, coord, cell):
        index, rel_coord, areas = self.neighbours(features, coord)  # (4, B, Q), (4, B, Q, 2), (4, B, Q)
        colour, slope_y, slope_x = features.rows('slopes')[index.flatten()].chunk(3, dim=-1)
        y, x = rel_coord.flatten(0, 2).split(1, dim=-1)
        return ensemble(colour + slope_y * y + slope_x * x, areas)


@datasets.register('own-dataset')
class Discs(Dataset):
    """`count` drawings of coloured discs, uint8 arrays (side, side, 3), in place of an image-folder."""

    def __init__(self, count: int = 1000, side: int = 128, seed: int = 0):
        self.side, self.seed = side, seed
        self.files = [f'discs-{i}' for i in range(count)]  # the images' names, for messages and tables

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        rng = np.random.default_rng((self.seed, i))
        image = Image.new('RGB', (self.side, self.side))
        for _ in range(30):
            x, y, radius, *colour = rng.integers(0, (self.side, self.side, self.side // 3, 256, 256, 256)).tolist()
            ImageDraw.Draw(image).circle((x, y), radius, tuple(colour))
        return np.asarray(image)

    def size(self, i):
        """(H, W) of the image in `files[i]`, without making it."""
        return self.side, self.side


@losses.register('own-loss')
class Worst(nn.Module):
    """The mean absolute error of each sample's worst `share` of queries, which are mostly at edges."""

    def __init__(self, share: float = 0.25):
        super().__init__()
        self.share = share

    def forward(self, pred, gt):
        error = (pred - gt).abs().mean(dim=-1).flatten(1)  # (B, Q), of whole targets (B, H*W)
        return error.topk(max(1, round(self.share * error.shape[1]))).values.mean()


@metrics.register('own-metric')
def worst_error(sr, hr, dataset=None, scale=1):
    """The largest absolute error, of white, of the pixels that the benchmark's convention compares."""
    sr, hr = scored_pixels(sr, hr, dataset, scale)
    return (sr - hr).abs().max()

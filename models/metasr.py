"""Meta-SR: Hu et al., "Meta-SR: A Magnification-Arbitrary Network for Super-Resolution" (CVPR 2019), as in LIIF.

For each query an MLP gives the matrix that multiplies the feature of its latent code. The MLP's last layer is linear,
so feature and last layer are multiplied first, once per latent pixel, and the matrix is never built. This is exact.
"""

import torch

from models.decoder import Decoder
from models.geometry import centre, nearest
from models.mlp import MLP
from models.registry import register


@register('metasr')
class MetaSR(Decoder):
    """A query is decoded from the code nearest to its upper left corner; there is no local ensemble.

    The MLP's input is that corner relative to the code's own upper left corner, and the query's height, all in latent
    pixels.
    """

    scale_max = None  # no bound for cells: they determine where a query's corner is

    def __init__(self, encoder_spec: dict):
        super().__init__(encoder_spec, local_ensemble=False, feat_unfold=True, cell_decode=True, residual=None)
        self.imnet = MLP(in_dim=3, out_dim=self.feat_dim * self.n_colors, hidden_list=[256])

    def hoist(self, feat):
        last = self.imnet.layers[-1]
        # (feat_dim * n_colors, hidden + 1), the last layer with its bias -> ((hidden + 1) * n_colors, feat_dim)
        matrix = torch.cat((last.weight, last.bias.unsqueeze(1)), dim=1)
        matrix = matrix.view(self.feat_dim, self.n_colors, -1).permute(2, 1, 0).reshape(-1, self.feat_dim)
        return {'last': self.first_rows(feat, matrix)}

    def decode(self, features, coord, cell):
        h, w = features.window[2:]
        corner, indices, inputs = coord - cell / 2, [], []
        for axis, size in enumerate((h, w)):
            index = nearest(corner[..., axis] + 1e-6, size)
            indices.append(index)
            inputs.append((corner[..., axis] - (centre(index, size, coord.dtype) - 1 / size)) * size / 2)

        hidden = torch.stack((*inputs, cell[..., 0] * h / 2), dim=-1).flatten(0, 1)
        for layer in [*self.imnet.layers][:-1]:
            hidden = layer(hidden)
        hidden = torch.cat((hidden, hidden.new_ones(hidden.shape[0], 1)), dim=1)
        rows = features.rows('last').index_select(0, features.flat_index(*indices).flatten())
        return torch.bmm(hidden.unsqueeze(1), rows.view(rows.shape[0], -1, self.n_colors)).view(*coord.shape[:-1], -1)

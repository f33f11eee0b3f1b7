"""Meta-SR: Hu et al., "Meta-SR: A Magnification-Arbitrary Network for Super-Resolution" (CVPR 2019), as in LIIF.

For each query an MLP gives the matrix that multiplies the feature of its latent code. The MLP's last layer is linear,
so feature and last layer are multiplied first, once per latent pixel, and the matrix is never built. This is exact.
"""

import torch

from errors import UserError
from models.decoder import Decoder, Residual
from models.geometry import centre, nearest
from models.registry import make, register


@register('metasr')
class MetaSR(Decoder):
    """A query is decoded from the code nearest to its upper left corner; there is no local ensemble.

    The MLP's input is that corner relative to the code's own upper left corner, in latent pixels, and, with
    `cell_decode`, the query's height in latent pixels. The cell is required in any case.
    """

    scale_max = None  # no bound for cells: they determine where a query's corner is

    def __init__(self, encoder_spec: dict, hidden_list: list[int] = (256,), local_ensemble: bool = False,
                 feat_unfold: bool = True, cell_decode: bool = True, residual: Residual = None):
        if local_ensemble:
            raise UserError('local_ensemble must be false: Meta-SR decodes a query from one code')
        super().__init__(encoder_spec, False, feat_unfold, cell_decode, residual)
        self.imnet = make({'name': 'mlp', 'args': {
            'in_dim': 3 if cell_decode else 2, 'out_dim': self.feat_dim * self.n_colors,
            'hidden_list': list(hidden_list)}})

    def hoist(self, feat):
        last = self.imnet.layers[-1]
        # (feat_dim * n_colors, hidden + 1), the last layer with its bias -> ((hidden + 1) * n_colors, feat_dim)
        matrix = torch.cat((last.weight, last.bias.unsqueeze(1)), dim=1)
        matrix = matrix.view(self.feat_dim, self.n_colors, -1).permute(2, 1, 0).reshape(-1, self.feat_dim)
        return {'last': self.first_rows(feat, matrix)}

    def decode(self, features, coord, cell):
        h, w = features.window[2:]
        corner, indices, rels = coord - cell / 2, [], []
        for axis, size in enumerate((h, w)):
            index = nearest(corner[..., axis] + 1e-6, size)
            indices.append(index)
            rels.append((corner[..., axis] - (centre(index, size, coord.dtype) - 1 / size)) * size / 2)
        rel = torch.stack(rels, dim=-1)
        if self.cell_decode:
            rel = torch.cat((rel, cell[..., :1] * h / 2), dim=-1)

        hidden = rel.flatten(0, 1)
        for layer in self.imnet.layers[:-1]:
            hidden = layer(hidden)
        hidden = torch.cat((hidden, hidden.new_ones(hidden.shape[0], 1)), dim=1)
        rows = features.rows('last').index_select(0, features.flat_index(*indices).flatten())
        return torch.bmm(hidden.unsqueeze(1), rows.view(rows.shape[0], -1, self.n_colors)).view(*coord.shape[:-1], -1)


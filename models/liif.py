"""LIIF: Chen et al., "Learning Continuous Image Representation with Local Implicit Image Function" (CVPR 2021).

The same function as published, with the first layer's feature part computed once per latent pixel.
"""

from errors import UserError
from models.decoder import Decoder, Residual, ensemble
from models.mlp import MLP, make_net
from models.registry import register


@register('liif')
class LIIF(Decoder):
    """One MLP for all queries; see `Decoder` for the switches.

    `imnet_spec`: the MLP (its in_dim comes from the encoder). Without it there is no decoder: the encoder's own
    upsampler makes the image, and a query gets the nearest pixel (fixed-scale models).
    """

    def __init__(self, encoder_spec: dict, imnet_spec: dict | None = None, local_ensemble: bool = True,
                 feat_unfold: bool = True, cell_decode: bool = True, residual: Residual = None):
        super().__init__(encoder_spec, local_ensemble, feat_unfold, cell_decode and imnet_spec is not None, residual)
        self.imnet = None
        if imnet_spec is not None:
            self.imnet = make_net('imnet_spec', imnet_spec, self.in_dim, MLP, self.n_colors)
        if self.imnet is None and self.encoder.out_dim != self.n_colors:
            raise UserError('without an imnet_spec the encoder must make the image: take out no_upsampling')

    def hoist(self, feat):
        return {} if self.imnet is None else {'first': self.first_rows(feat, *self.imnet.first)}

    def decode(self, features, coord, cell):
        if self.imnet is None:
            return features.sample(features.feat, coord, 'nearest')
        index, rel_coord, areas = self.neighbours(features, coord)
        local = self.local_input(features, rel_coord, cell)
        h = self.first_layer(features.rows('first'), index, local, self.imnet.first[0])
        return ensemble(self.imnet.after_first(h), areas)

"""How an A-LIIF mixes its functions: the weight of each, all over an image."""

import torch

from errors import UserError
from models.decoder import Decoder, ensemble
from models.features import Features
from models.geometry import centre, grid, nearest
from models.predict import Latents, Target, cells, widen


@torch.no_grad()
def mixing_weights(model: Decoder, image: torch.Tensor, size: tuple, view: tuple) -> torch.Tensor:
    """The weights (K, H, W) of the functions of `model`, an `ALIIF`, that upscales `image` (C, h, w) to `size`.

    A point of the grid `view` (H, W) has the weights at the centre of its nearest input pixel, where only one code of
    the local ensemble counts; elsewhere codes mix, and a view of another size would show a moiré pattern. Works in
    tiles. UserError if the encoder has an upsampler, and so no code for each input pixel.
    """
    target = Target(view, image.shape[-2:], model)
    h, w = target.shape
    cell = target.cell.new_tensor(cells(size, image.shape[-2:], model.scale_max))  # as in `upscale_pil`
    latents = Latents(model, image[:model.n_colors], model.data_norm)  # of a grey picture one channel is enough

    def tile(rows, columns):
        y, x = (centre(nearest(target.coord(axis, target.span(axis, *part)), n), n, cell.dtype)
                for axis, (part, n) in enumerate(((rows, h), (columns, w))))
        if len(y) == 0 or len(x) == 0:
            return torch.empty(model.imnet.K, len(y), len(x))
        (top, bottom), (left, right) = widen(*rows, target.reach, h), widen(*columns, target.reach, w)
        feat, inp = latents.part((top, bottom), (left, right))
        if feat.shape[-2:] != inp.shape[-2:]:
            raise UserError('mixing weights can be shown of an encoder without an upsampler only')
        features = model.hoist_cell(model.make_features(feat, inp, (top, left, h, w)), cell.expand(1, 1, 2))
        return torch.cat([weigh(model, features, line, x, cell) for line in y.split(4)], dim=1)

    return torch.cat([torch.cat([tile(rows, columns) for columns in target.parts(1, latents.largest)], dim=2)
                      for rows in target.parts(0, latents.largest)], dim=1)


def weigh(model: Decoder, features: Features, y: torch.Tensor, x: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """The mixing weights (K, H, W) of `model` for `features` at all pairs of y (H,) and x (W,)."""
    coord = grid(y, x, 1).to(cell.device)
    index, rel_coord, areas = model.neighbours(features, coord)
    weights = model.weigh(features, index, model.local_input(features, rel_coord, cell.expand_as(coord)))
    return ensemble(weights, areas).view(len(y), len(x), -1).permute(2, 0, 1).float().cpu()

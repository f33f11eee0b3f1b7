"""Decoders and functions of one's own, by subclasses: they are trained and evaluated as what they compute."""

import math

import pytest
import torch
import torch.nn.functional as F
from specs import a_liif, assert_equal, build, images, liif, pixel, scattered

from models.a_liif import ALIIF
from models.liif import LIIF
from models.mlp import MLPMixture
from models.predict import upscale_whole
from utils import make_coord

SIZE = 40, 50


class Sines(MLPMixture):
    """A mixture whose functions have sines in place of ReLU at the end."""

    def after_first(self, h, c):
        return super().after_first(h, c).sin() * 3


class Doubled(ALIIF):
    def decode(self, features, coord, cell):
        return 2 * super().decode(features, coord, cell)


class Weighed(ALIIF):
    def weigh(self, features, index, local):
        return 2 * super().weigh(features, index, local)


class Blurred(LIIF):
    """A LIIF of features that are blurred over 7x7."""

    reach = 3

    def hoist(self, feat):
        return super().hoist(F.avg_pool2d(feat, 7, stride=1, padding=3))


class Centred(LIIF):
    """A LIIF of features whose mean over the image is 0."""

    reach = math.inf

    def hoist(self, feat):
        return super().hoist(feat - feat.mean(dim=(2, 3), keepdim=True))


class Tinted(LIIF):
    """A LIIF that multiplies with the input."""

    def decode(self, features, coord, cell):
        return super().decode(features, coord, cell) * features.sample_input(coord)


def of_class(spec, kind, part=None):
    """The model of a spec, as one of class `kind`, or with its `part` as one."""
    model = build(spec)
    (getattr(model, part) if part else model).__class__ = kind
    return model


def trained_and_evaluated(model):
    """The image (3, H, W) as training's way makes it, at once, and as evaluation does, in small tiles and bands."""
    torch.manual_seed(1)
    image = torch.rand(3, 23, 19, dtype=torch.float64) * 0.1
    coord = make_coord(SIZE).double().unsqueeze(0)
    pred = model(image[None], coord, coord.new_tensor([2 / n for n in SIZE]).expand_as(coord)).detach()
    return pred[0].t().view(3, *SIZE), (upscale_whole(model, image, SIZE, SMALL) - 0.5) * 1024


SMALL = {'inp': {'sub': [0], 'div': [1]}, 'gt': {'sub': [0.5], 'div': [1 / 1024]}}  # no colour is clamped


OWN = {
    'sines': of_class(a_liif(), Sines, 'imnet'), 'sines-pixel': of_class(pixel(), Sines, 'imnet'),
    'doubled': of_class(a_liif(), Doubled), 'doubled-pixel': of_class(pixel(), Doubled),
    'weighed': of_class(a_liif(), Weighed), 'weighed-pixel': of_class(pixel(), Weighed),
    'blurred': of_class(liif(), Blurred), 'centred': of_class(liif(), Centred), 'tinted': of_class(liif(), Tinted)}


@pytest.mark.parametrize('model', OWN.values(), ids=OWN)
def test_evaluation_computes_what_was_trained(model, small_tiles):
    trained, evaluated = trained_and_evaluated(model)
    assert trained.std() > 0.01
    torch.testing.assert_close(evaluated, trained, rtol=1e-9, atol=1e-9)


def test_each_image_of_a_batch_has_its_input_in_training(monkeypatch):
    monkeypatch.setattr('models.decoder.chunk_size', lambda device: 40)
    model, inp, (coord, cell) = of_class(liif(), Tinted), images(4, 5, batch=3), scattered(40, batch=3)
    alone = [model(inp[i:i + 1], coord[i:i + 1], cell[i:i + 1]) for i in range(3)]
    assert_equal(model(inp, coord, cell), torch.cat(alone))

"""Decoders and functions of one's own, by subclasses: they are trained and evaluated as what they compute."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
import yaml
from processes import forked
from projects import COMMAND, Project
from specs import a_liif, assert_equal, build, images, liif, lmliif, lmlte, lte, lte_fast, pixel, scattered

from errors import UserError
from models.a_liif import ALIIF
from models.liif import LIIF
from models.lmf import LMLIIF, LMLTE, ModulatedMLP
from models.lte import LTE, LTEFast
from models.mlp import MLP, MLPMixture
from models.predict import upscale_whole
from models.registry import make, register
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


class Squared(ModulatedMLP):
    """A render net whose colours are squared."""

    def forward(self, x, modulation):
        return super().forward(x, modulation).square()


def doubled(kind):
    """A subclass of `kind` whose `decode` gives twice the colours."""
    return type('Twice', (kind,), {'decode': lambda self, *args: 2 * kind.decode(self, *args)})


def alone(kind):
    """A subclass of `kind` that gives each code the weight 1."""
    def neighbours(self, features, coord):
        index, rel_coord, areas = kind.neighbours(self, features, coord)
        return index, rel_coord, areas * 0 + 1

    return type('Alone', (kind,), {'neighbours': neighbours})


def brighter(kind):
    """A subclass of `kind` that adds 0.5 to all colours."""
    return type('Brighter', (kind,), {'query': lambda self, *args: kind.query(self, *args) + 0.5})


def rendered(kind):
    """A subclass of `kind` whose colours are squared."""
    return type('Rendered', (kind,), {'render': lambda self, *args: kind.render(self, *args).square()})


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


OWN = {  # what `of_class` takes
    'sines': (a_liif(), Sines, 'imnet'), 'sines-pixel': (pixel(), Sines, 'imnet'),
    'doubled': (a_liif(), Doubled), 'doubled-pixel': (pixel(), Doubled),
    'weighed': (a_liif(), Weighed), 'weighed-pixel': (pixel(), Weighed),
    'blurred': (liif(), Blurred), 'centred': (liif(), Centred), 'tinted': (liif(), Tinted),
    'squared-lmliif': (lmliif(), Squared, 'imnet'), 'squared-lmlte': (lmlte(), Squared, 'imnet'),
    **{f'{change.__name__}-{kind.__name__}': (spec, change(kind))
       for spec, kind in ((lte(), LTE), (lte_fast(), LTEFast), (lmliif(), LMLIIF), (lmlte(), LMLTE))
       for change in (doubled, alone, brighter, rendered) if change is not rendered or hasattr(kind, 'render')}}


@pytest.mark.parametrize('args', OWN.values(), ids=OWN)
def test_evaluation_computes_what_was_trained(args, small_tiles):
    trained, evaluated = trained_and_evaluated(of_class(*args))
    assert trained.std() > 0.01
    torch.testing.assert_close(evaluated, trained, rtol=1e-9, atol=1e-9)


def test_each_image_of_a_batch_has_its_input_in_training(monkeypatch):
    monkeypatch.setattr('models.decoder.chunk_size', lambda device: 40)
    model, inp, (coord, cell) = of_class(liif(), Tinted), images(4, 5, batch=3), scattered(40, batch=3)
    alone = [model(inp[i:i + 1], coord[i:i + 1], cell[i:i + 1]) for i in range(3)]
    assert_equal(model(inp, coord, cell), torch.cat(alone))


@register('forward-only')
class ForwardOnly(MLP):
    def forward(self, x):
        return super().forward(x) + 1


@pytest.mark.parametrize('spec', [liif, lte])
def test_a_net_that_overrides_a_method_which_decoders_do_not_call_is_an_error(spec):
    with pytest.raises(UserError, match='imnet_spec: forward-only must override after_first, which decoders call'):
        make(spec(imnet_spec={'name': 'forward-only', 'args': {'hidden_list': [8]}}))


# --- a model in LIIF's style: nothing but its three methods -----------------------------------------------------------

PLAIN = '''
import torch
from torch import nn
from models import register

@register('plain')
class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def gen_feat(self, inp):
        self.inp = inp

    def query_rgb(self, coord, cell=None):
        grid = coord.flip(-1).unsqueeze(1)
        return self.weight * nn.functional.grid_sample(self.inp, grid, align_corners=False)[:, :, 0].permute(0, 2, 1)

    def forward(self, inp, coord, cell):
        self.gen_feat(inp)
        return self.query_rgb(coord, cell)
'''


TEST = {'test_dataset': {'dataset': {'name': 'image-folder', 'args': {'root_path': 'photos'}},
                         'wrapper': {'name': 'sr-implicit-downsampled', 'args': {'scale_min': 2}}, 'batch_size': 1}}


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """A folder for such a model, with a test config, test.yaml, and a checkpoint."""
    project = Project(tmp_path_factory.mktemp('plain'), {'model': {'name': 'plain'}, 'epoch_max': 1})
    (project.folder / 'plain.py').write_text(PLAIN)
    (project.folder / 'test.yaml').write_text(yaml.safe_dump(TEST))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(project.folder)  # of the processes that are forked
        project.told = trained(project)
        yield project


def trained(project, *flags):
    """What train_liif.py prints."""
    done = forked(project.folder, 'train_liif.py', *COMMAND, '--import', 'plain', *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_in_liifs_style_is_trained(plain):
    assert plain.checkpoint()['epoch'] == 1 and plain.checkpoint()['model']['sd']['weight'] != 1
    assert 'next: python' in plain.told and 'demo.py' not in plain.told


def test_a_model_in_liifs_style_is_trained_on_every_pixel(plain):
    plain.change({'model': {'name': 'plain'}, 'epoch_max': 1, 'channels_last': True,
                  'train_dataset.wrapper.args.sample_q': None})
    trained(plain, '--name', 'dense')
    assert torch.load(plain.folder / 'save/dense/epoch-last.pth', weights_only=True)['model']['sd']['weight'] != 1


def test_a_model_in_liifs_style_is_evaluated(plain):
    done = forked(plain.folder, 'test.py', '--import', 'plain', '--config', 'test.yaml', '--model',
                  'save/_tiny/epoch-last.pth', '--gpu', 'cpu')
    assert re.search(r'result: \d\d\.\d{4}', done.stdout), done.stderr


def test_pictures_by_a_model_in_liifs_style_are_refused_in_a_line(plain):
    done = forked(plain.folder, 'demo.py', 'photos/0.png', '--import', 'plain', '--model', 'save/_tiny/epoch-last.pth')
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert 'Decoder' in done.stderr

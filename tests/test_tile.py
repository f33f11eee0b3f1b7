"""SwinIR in tiles, `--tile`: nearly what the whole image gives, and the rest of the picture is not looked at."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from specs import liif, make_checkpoint
from upscaling import picture

import models
from errors import UserError
from models import predict, upscale_pil
from models.predict import set_tile, upscale_whole
from models.regions import Encoded

SWINIR = {'name': 'swinir', 'args': {'embed_dim': 8, 'depths': [2], 'num_heads': [2]}}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return models.make(liif(encoder_spec=SWINIR)).eval()


def test_two_blocks_see_no_further_than_the_overlap_so_tiles_give_the_whole_picture(model):
    image = torch.rand(3, 41, 100)
    whole = upscale_whole(model, image, (82, 200))
    set_tile(model, 16)
    shapes = []
    model.encoder.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape[2:])))
    tiled = upscale_whole(model, image, (82, 200))
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)
    assert whole.std() > 1e-3 and len(shapes) > 10
    assert max(width for _, width in shapes) < 100


@pytest.mark.parametrize('tile', [0, -8, 12])
def test_a_tile_that_is_no_multiple_of_the_window_is_an_error(model, tile):
    with pytest.raises(UserError, match=f'tile must be a multiple of 8, the side of a window, not {tile}'):
        set_tile(model, tile)


def test_other_encoders_have_no_such_tiles():
    for other in models.make(liif()), models.Bicubic():
        with pytest.raises(UserError, match='a tile can be set for models with SwinIR'):
            set_tile(other, 16)


def test_the_demo_has_such_tiles(cli, monkeypatch):
    make_checkpoint('swinir.pth', liif(encoder_spec=SWINIR))
    image = picture(width=40, height=30)
    image.save('photo.png')
    monkeypatch.setattr(predict, 'OVERLAP', 0)  # so that tiles are seen in the result
    assert cli('photo.png', '--scale', 2, '--float32', '--tile', 16, model=Path.cwd() / 'swinir.pth')[0] == 0
    model = models.load_pretrained('swinir.pth')
    whole = np.asarray(upscale_pil(model, image, 2))
    set_tile(model, 16)
    tiled = np.asarray(upscale_pil(model, image, 2))
    assert (np.asarray(Image.open('photo-x2.png')) == tiled).all() and (tiled != whole).any()


def test_the_demo_says_which_models_have_no_tiles(cli):
    picture().save('photo.png')
    code, _, err = cli('photo.png', '--tile', 16)
    assert code == 2 and len(err) == 1 and 'a tile can be set for models with SwinIR' in err[0]


def test_a_view_keeps_to_the_tile(model):
    set_tile(model, 16)
    shapes = []
    model.encoder.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape[2:])))
    Encoded(model, torch.rand(3, 150, 20)).region((0, 0, 20, 150), (150, 20))
    assert max(map(max, shapes)) < 150

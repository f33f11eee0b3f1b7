"""SwinIR in tiles, `--tile`: nearly what the whole image gives, and the rest of the picture is not looked at."""

import pytest
import torch
from specs import liif

import models
from models.predict import set_tile, upscale_whole
from utils import UserError

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
    with pytest.raises(UserError, match=f'--tile must be a multiple of 8, the side of a window, not {tile}'):
        set_tile(model, tile)


def test_other_encoders_have_no_such_tiles():
    for other in models.make(liif()), models.Bicubic():
        with pytest.raises(UserError, match='--tile is for models with SwinIR'):
            set_tile(other, 16)

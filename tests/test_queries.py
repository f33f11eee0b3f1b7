"""How queries are put makes no difference to their colours: their order and number, threads, replicas, scales."""

import copy
import importlib
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import reference
import torch
from specs import assert_equal, build, each_decoder, grid, images, liif, lmlte, parameters, pixel, scattered

from errors import UserError
from models.liif import LIIF
from models.predict import upscale_whole

pytestmark = pytest.mark.usefixtures('seeded')


@each_decoder
@pytest.mark.parametrize('queries', [scattered, lambda: grid(9, 11)], ids=['scattered', 'grid'])
def test_permuted_queries_give_permuted_colours(spec, queries):
    model, inp, (coord, cell) = build(spec), images(4, 5), queries()
    order = torch.randperm(coord.shape[1])
    assert_equal(model(inp, coord[:, order], cell[:, order]), model(inp, coord, cell)[:, order])


@each_decoder
@pytest.mark.parametrize('size', [1, 7, 11, 50])
def test_a_grid_in_chunks_gives_the_same_as_at_once(spec, size):
    model, inp, (coord, cell) = build(spec), images(4, 5), grid(9, 11)
    expected = model(inp, coord, cell)
    with torch.inference_mode():
        features = model.encode(inp)
        chunks = zip(coord.split(size, 1), cell.split(size, 1), strict=True)
        colours = [model.query(features, *chunk) for chunk in chunks]
    assert_equal(torch.cat(colours, dim=1), expected)


@each_decoder
def test_thousands_of_queries_without_gradients_follow_the_equations(spec):
    model, inp, (coord, cell) = build(spec), images(4, 5, batch=1), grid(70, 61, batch=1)
    with torch.inference_mode():
        out = model(inp, coord, cell)
    pick = torch.arange(0, 70 * 61, 89)
    assert_equal(out[:, pick], reference.forward(spec, parameters(model), inp, coord[:, pick], cell[:, pick]))


@each_decoder
def test_one_feature_map_serves_several_scales(spec):
    model, inp = build(spec), images(4, 5)
    features = model.encode(inp)
    for size in ((8, 10), (12, 13), (8, 10)):
        coord, cell = grid(*size)
        assert_equal(model.query(features, coord, cell), model(inp, coord, cell))


@each_decoder
def test_weights_and_images_that_change_are_seen(spec):
    model, (coord, cell) = build(spec), scattered(10)
    with torch.no_grad():
        model(images(4, 5), coord, cell)
        for param in model.parameters():
            param.mul_(0.9)
        inp = images(4, 5)
        assert_equal(model(inp, coord, cell), reference.forward(spec, parameters(model), inp, coord, cell))


@each_decoder
def test_features_are_values_that_do_not_know_of_each_other(spec):
    model, (coord, cell) = build(spec), scattered()
    inps = images(4, 5), images(6, 3)
    features = [model.encode(inp) for inp in inps]
    for inp, of_inp in zip(inps, features, strict=True):
        assert_equal(model.query(of_inp, coord, cell), model(inp, coord, cell))


@each_decoder
def test_one_model_in_two_threads_makes_each_its_own_image(spec):
    model, (coord, cell) = build(spec), scattered()
    inps = images(4, 5), images(6, 3)
    expected = [model(inp, coord, cell) for inp in inps]
    both_have_features = threading.Barrier(2, timeout=60)

    def run(inp):
        features = model.encode(inp)
        both_have_features.wait()
        return model.query(features, coord, cell)

    with ThreadPoolExecutor(2) as pool:
        for pred, image in zip(pool.map(run, inps), expected, strict=True):
            assert_equal(pred, image)


@each_decoder
def test_gen_feat_and_query_rgb_are_encode_and_query_as_in_liif(spec):
    model, inp, (coord, cell) = build(spec), images(4, 5), scattered()
    assert_equal(model.gen_feat(inp), model.encode(inp).feat)
    assert_equal(model.query_rgb(coord, cell), model(inp, coord, cell))


def test_query_rgb_before_gen_feat_is_an_error():
    with pytest.raises(UserError, match='call gen_feat before query_rgb'):
        build(liif()).query_rgb(*scattered())


@pytest.mark.parametrize('again', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=['deepcopy', 'pickle'])
def test_a_model_can_be_copied_after_gen_feat(again):
    model, (coord, cell) = build(liif()), scattered()
    model.gen_feat(images(4, 5))
    other, inp = again(model), images(4, 5)
    assert_equal(other(inp, coord, cell), model(inp, coord, cell))


@each_decoder
def test_replicas_in_two_threads_equal_one_model(spec, monkeypatch):
    # What DataParallel does, with the copy of parameters to other GPUs replaced by one in memory.
    replicate = importlib.import_module('torch.nn.parallel.replicate')
    monkeypatch.setattr(replicate, '_broadcast_coalesced_reshape', lambda tensors, devices, detach=False: [
        [tensor.clone() for tensor in tensors] for _ in devices])
    model, inp, (coord, cell) = build(spec), images(4, 5, batch=4), scattered(batch=4)
    expected = model(inp, coord, cell)

    def run(replica, inp, coord, cell):
        return replica(inp, coord, cell)

    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(run, replicate.replicate(model, [0, 1]), inp.split(2), coord.split(2), cell.split(2))
    out = torch.cat(list(halves))
    assert_equal(out, expected)
    for a, b in zip(*(torch.autograd.grad(x.sum(), model.parameters()) for x in (out, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


# --- their shapes and types -------------------------------------------------------------------------------------------


@each_decoder
def test_no_queries_have_no_colours(spec):
    model, features = build(spec), build(spec).encode(images(4, 5))
    assert model.query(features, torch.empty(2, 0, 2), torch.empty(2, 0, 2)).shape == (2, 0, 3)
    with torch.no_grad():
        assert model.query(features, torch.empty(2, 0, 2), torch.empty(2, 0, 2)).shape == (2, 0, 3)


@each_decoder
def test_an_image_may_have_one_cell_for_all_its_queries(spec):
    model, inp, (coord, cell) = build(spec), images(4, 5), scattered()
    assert_equal(model(inp, coord, cell[:, :1]), model(inp, coord, cell))
    with torch.no_grad():
        assert_equal(model(inp, coord, cell[:, :1]), model(inp, coord, cell))


@each_decoder
@pytest.mark.parametrize('coord', [(40, 2), (1, 40, 2), (3, 40, 2), (2, 5, 8, 2), (2, 40, 3)], ids=str)
def test_coordinates_of_another_shape_are_an_error(spec, coord):
    with pytest.raises(UserError, match=r'coord must be \(B, Q, 2\), with B = 2, the number of images, not \('):
        build(spec)(images(4, 5), torch.zeros(coord), torch.ones(2, 1, 2))


@each_decoder
@pytest.mark.parametrize('cell', [(2,), (40, 2), (1, 40, 2), (2, 39, 2), (2, 40, 1)], ids=str)
def test_cells_of_another_shape_are_an_error(spec, cell):
    with pytest.raises(UserError, match=r'cell must be \(B, Q, 2\) like coord, \(2, 40, 2\), or \(B, 1, 2\), not \('):
        build(spec)(images(4, 5), torch.zeros(2, 40, 2), torch.ones(cell))


@pytest.mark.parametrize('spec', [liif(), pixel(), lmlte()], ids=['liif', 'pixel', 'lmlte'])
def test_a_missing_cell_is_an_error(spec):
    with pytest.raises(UserError, match='needs cell'):
        build(spec)(images(4, 5), scattered()[0])


@pytest.mark.parametrize('queries', [{}, {'coord': torch.zeros(2, 1, 2), 'size': (4, 4)}], ids=['none', 'both'])
def test_a_model_takes_either_coordinates_or_a_size(queries):
    with pytest.raises(UserError, match='either coord'):
        build(liif())(images(4, 5), cell=torch.ones(2, 1, 2), **queries)


@each_decoder
def test_coordinates_and_cells_may_be_of_other_types_than_the_model(spec):
    model, inp, (coord, cell) = build(spec), images(4, 5), scattered()
    coord, cell = coord.float(), cell.float()
    assert_equal(model(inp, coord, cell), model(inp, coord.double(), cell.double()))
    model, inp = model.float(), inp.float()
    torch.testing.assert_close(model(inp, coord.double(), cell.double()), model(inp, coord, cell), rtol=0, atol=0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_weights_of_16_bits_are_an_error(dtype):
    model, (coord, cell) = build(pixel()).to(dtype), scattered()
    for use in (lambda: model(images(4, 5).to(dtype), coord, cell),
                lambda: upscale_whole(model, torch.rand(3, 4, 5), (8, 9))):
        with pytest.raises(UserError, match=f'weights are {str(dtype)[6:]}: keep them in float32, and use'):
            use()


def test_a_decoder_of_ones_own_that_gives_other_than_colours_is_told_so():
    model = build(liif(residual='bilinear'))
    model.__class__ = type('Grey', (LIIF,), {'decode': lambda self, *args: LIIF.decode(self, *args)[..., :1]})
    with pytest.raises(UserError, match=r'decode must give colours .*\(2, 40, 3\), not \(2, 40, 1\)'):
        model(images(4, 5), *scattered())

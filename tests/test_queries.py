"""How queries are put makes no difference to their colours: their order and number, threads, replicas, scales."""

import importlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import reference
import torch
from specs import assert_equal, build, each_decoder, grid, images, parameters, scattered

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

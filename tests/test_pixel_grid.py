"""Grids of queries, decoded pixel by pixel: `decode_grid` against the equations, query by query."""

import pytest
import reference
import torch
from specs import a_liif, assert_equal, build, liif, lte, metasr, pixel

from models import pixel_grid
from models.pixel_grid import decode_grid
from utils import make_coord

OFF = [{'local_ensemble': False}, {'feat_unfold': False}, {'cell_decode': False},
       {'local_ensemble': False, 'feat_unfold': False, 'cell_decode': False}]
GRIDS = {'plain': {}, **{'-'.join(off): off for off in OFF}, 'K=1': {'K': 1},
         'softmax': {'net_args': {'norm': 'softmax'}}, 'linear': {'hidden': [], 'net_hidden': []},
         'one-hidden-layer': {'hidden': [7]}, 'deep': {'hidden': [4, 5, 6, 7], 'net_hidden': [5, 6]}}
each_grid_model = pytest.mark.parametrize('spec', [pixel(**args) for args in GRIDS.values()], ids=GRIDS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def assert_grid_follows_the_equations(spec, shape, y, x, cell, batch=2):
    """`decode_grid` at all pairs of y and x, for images of `shape`, against the equations query by query."""
    model, inp = build(spec), torch.randn(batch, 3, *shape, dtype=torch.float64)
    coord = torch.cartesian_prod(y, x).expand(batch, -1, -1)
    params = {name: param.detach() for name, param in model.named_parameters()}
    expected = reference.forward(spec, params, inp, coord, cell.expand_as(coord))
    assert expected.std() > 0.01
    with torch.no_grad():
        pred = decode_grid(model, model.encode(inp), y, x, cell)
    assert_equal(pred, expected.view(batch, len(y), len(x), 3))


def axis(n):
    return make_coord([n])[:, 0].double()


def cell_of(height, width):
    return torch.tensor([2 / height, 2 / width], dtype=torch.float64)


@each_grid_model
def test_grid_of_every_model_follows_the_equations(spec):
    assert_grid_follows_the_equations(spec, (4, 3), axis(9), axis(8), cell_of(9, 8))


@pytest.mark.parametrize('shape', [(1, 1), (1, 5), (4, 1), (4, 5)], ids=str)
@pytest.mark.parametrize('size', [(8, 10), (7, 12), (3, 11), (4, 5), (1, 1), (2, 3)], ids=str)
def test_grid_of_any_size_follows_the_equations(shape, size):
    assert_grid_follows_the_equations(pixel(), shape, axis(size[0]), axis(size[1]), cell_of(*size))


@pytest.mark.parametrize('off', [{}, {'local_ensemble': False}], ids=['ensemble', 'nearest'])
def test_grid_of_rows_and_columns_at_any_distance_follows_the_equations(off):
    y, x = ((torch.rand(n, dtype=torch.float64) * 2 - 1).sort().values for n in (13, 9))
    assert_grid_follows_the_equations(pixel(**off), (6, 5), y, x, cell_of(20, 30))


@pytest.mark.parametrize('chunk', [1, 2000])
def test_grid_in_chunks_of_pixels_follows_the_equations(monkeypatch, chunk):
    monkeypatch.setattr(pixel_grid, 'CHUNK', chunk)
    assert_grid_follows_the_equations(pixel(), (5, 4), axis(10), axis(9), cell_of(10, 9))


@pytest.mark.usefixtures('one_thread')
@pytest.mark.parametrize('spec', [pixel(), lte()], ids=['pixel', 'lte'])
def test_the_wider_a_network_the_fewer_pixels_are_made_at_a_time(monkeypatch, spec):
    model, numbers = build(spec), []
    decode_pixels = model.decode_pixels
    monkeypatch.setattr(pixel_grid, 'CHUNK', 5000)
    monkeypatch.setattr(model, 'decode_pixels', lambda hoisted, cell, y, x: (
        numbers.append(y.numel() * x.shape[1] * model.width), decode_pixels(hoisted, cell, y, x))[1])
    with torch.no_grad():
        model.query_grid(model.encode(torch.rand(1, 3, 5, 6, dtype=torch.float64)), axis(20), axis(24), cell_of(20, 24))
    assert len(numbers) > 1 and max(numbers) <= 5000


def test_edges_and_corners_of_the_grid_follow_the_equations():
    edges = torch.tensor([-1, -1 + 1e-9, -0.99, 0.3, 0.99, 1 - 1e-9, 1], dtype=torch.float64)
    assert_grid_follows_the_equations(pixel(), (4, 5), edges, edges, cell_of(20, 20))


@pytest.mark.parametrize('spec', [a_liif(), pixel(), liif(residual='bilinear'), pixel(residual='bilinear'), metasr()],
                         ids=['a-liif', 'pixel', 'liif-residual', 'pixel-residual', 'metasr'])
def test_query_grid_is_the_model_at_all_pairs(spec):
    model, inp = build(spec), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    coord = torch.cartesian_prod(axis(11), axis(9)).expand(2, -1, -1)
    expected = model(inp, coord, cell_of(11, 9).expand_as(coord)).detach()
    with torch.no_grad():
        assert_equal(model.query_grid(model.encode(inp), axis(11), axis(9), cell_of(11, 9)), expected.view(2, 11, 9, 3))

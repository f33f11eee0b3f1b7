"""Grids of queries, decoded pixel by pixel: `decode_grid` against the equations, query by query."""

import pytest
import reference
import torch
from specs import assert_equal, build, lm, lte, parameters, pixel

from models import pixel_grid
from models.pixel_grid import decode_grid
from utils import make_coord

pytestmark = pytest.mark.usefixtures('seeded')


def assert_grid_follows_the_equations(spec, shape, y, x, cell, batch=2):
    """`decode_grid` at all pairs of y and x, for images of `shape`, against the equations query by query."""
    model, inp = build(spec), torch.randn(batch, 3, *shape, dtype=torch.float64)
    coord = torch.cartesian_prod(y, x).expand(batch, -1, -1)
    expected = reference.forward(spec, parameters(model), inp, coord, cell.expand_as(coord))
    assert expected.std() > 0.01
    with torch.no_grad():
        pred = decode_grid(model, model.encode(inp), y, x, cell)
    assert_equal(pred, expected.view(batch, len(y), len(x), 3))


def axis(n):
    return make_coord([n])[:, 0].double()


def cell_of(height, width):
    return torch.tensor([2 / height, 2 / width], dtype=torch.float64)


@pytest.mark.parametrize('shape, size', [((4, 5), (7, 12)), ((1, 5), (3, 11)), ((4, 1), (2, 3)), ((1, 1), (8, 10))],
                         ids=str)
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


@pytest.mark.parametrize('mod_input, hidden_dim, width', [(False, 40, 40), (False, 2, 4), (True, 40, 4)])
def test_lm_lte_is_as_wide_as_its_render_net_or_the_waves_that_this_sees(mod_input, hidden_dim, width):
    assert build(lm('lmlte', hidden_dim=hidden_dim, mod_input=mod_input)).width == width


def test_edges_and_corners_of_the_grid_follow_the_equations():
    edges = torch.tensor([-1, -1 + 1e-9, -0.99, 0.3, 0.99, 1 - 1e-9, 1], dtype=torch.float64)
    assert_grid_follows_the_equations(pixel(), (4, 5), edges, edges, cell_of(20, 20))

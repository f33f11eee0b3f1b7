"""The decoders against their equations (`reference`), query by query in float64: each decoder with each switch."""

import copy

import pytest
import reference
import torch
from specs import (
    PLAIN,
    VARIANTS,
    a_liif,
    assert_equal,
    build,
    each_decoder,
    fixed_scale,
    grid,
    images,
    liif,
    lmlte,
    lte,
    lte_fast,
    metasr,
    parameters,
    pixel,
    scattered,
)

pytestmark = pytest.mark.usefixtures('seeded')
each_variant = pytest.mark.parametrize('spec', VARIANTS.values(), ids=VARIANTS)
each_ensemble = pytest.mark.parametrize('spec', [liif(), a_liif(), pixel()], ids=['liif', 'a-liif', 'pixel'])
GRIDS = {name: [(12, 15), (11, 12), (3, 4), (1, 1)] if name in (*PLAIN, 'pixel-local_ensemble') else [(11, 12)]
         for name in VARIANTS}
TARGETS = {name: [(8, 16), (4, 4)] if name in PLAIN else [(8, 16)]  # their coordinates are exact in float32, too
           for name in VARIANTS}


def each_size(sizes):
    """Each variant with each of its `sizes`, a dict by name."""
    return pytest.mark.parametrize('spec, size', [
        pytest.param(VARIANTS[name], size, id=f'{name}-{size}') for name in sizes for size in sizes[name]])


def assert_follows_equations(spec, inp, coord, cell):
    """With and without autograd, since a decoder may well go different ways."""
    model = build(spec)
    expected = reference.forward(spec, parameters(model), inp, coord, cell)
    assert expected.std() > 0.01
    assert_equal(model(inp, coord, cell), expected)
    with torch.inference_mode():
        assert_equal(model.eval()(inp, coord, cell), expected)


# --- the equations -------------------------------------------------------------------------------------------------


@each_variant
def test_random_queries_follow_the_equations(spec):
    assert_follows_equations(spec, images(5, 7), *scattered(6))


@each_size(GRIDS)
def test_whole_grids_follow_the_equations(spec, size):
    model, inp, (coord, cell) = build(spec), images(4, 5), grid(*size)
    height, width = size
    corners = torch.tensor([0, width - 1, (height - 1) * width, height * width - 1])
    pick = torch.cat([corners, torch.randperm(height * width)[:8]])  # the equations take long
    colours = model(inp, coord, cell)
    assert_equal(colours[:, pick], reference.forward(spec, parameters(model), inp, coord[:, pick], cell[:, pick]))
    y, x = coord[0, ::width, 0], coord[0, :width, 1]
    with torch.inference_mode():
        assert_equal(model(inp, coord, cell), colours)
        assert_equal(model.query_grid(model.encode(inp), y, x, cell[0, 0]), colours.view(2, *size, 3))


@each_decoder
def test_query_grid_takes_any_rows_and_columns(spec):
    model, inp, cell = build(spec), images(6, 7), torch.tensor([0.11, 0.13], dtype=torch.float64)
    y, x = (torch.tensor(v, dtype=torch.float64) for v in ([-1, -0.2, -0.19, 0.9], [-0.3, 0.31, 0.32, 0.33, 1]))
    coord = torch.cartesian_prod(y, x).expand(2, -1, -1)
    with torch.inference_mode():
        out = model.query_grid(model.encode(inp), y, x, cell)
    expected = reference.forward(spec, parameters(model), inp, coord, cell.expand_as(coord))
    assert_equal(out, expected.view(2, 4, 5, 3))


@each_decoder
def test_rows_and_columns_may_come_in_any_order(spec):
    model, inp, cell = build(spec), images(6, 7), torch.tensor([0.11, 0.13], dtype=torch.float64)
    y, x = (torch.tensor(v, dtype=torch.float64) for v in ([0.9, -0.2, -1, 0.4], [0.5, -0.3, 1, 0.31, -0.3]))
    with torch.inference_mode():
        features = model.encode(inp)
        out = model.query_grid(features, y, x, cell)
        ascending = model.query_grid(features, y.sort().values, x.sort().values, cell)
    assert_equal(out, ascending[:, y.argsort().argsort()][:, :, x.argsort().argsort()])


@each_decoder
def test_a_grid_may_be_empty(spec):
    model, empty, cell = build(spec), torch.empty(0, dtype=torch.float64), torch.tensor([0.1, 0.1], dtype=torch.float64)
    assert model.query_grid(model.encode(images(6, 7)), empty, torch.zeros_like(cell), cell).shape == (2, 0, 2, 3)


@each_decoder
def test_borders_and_corners_follow_the_equations(spec):
    values = torch.tensor([-1, -1 + 1e-9, -0.99, 0.3, 0.99, 1 - 1e-9, 1], dtype=torch.float64)
    coord = torch.cartesian_prod(values, values).expand(1, -1, -1)
    assert_follows_equations(spec, images(4, 5, batch=1), coord, torch.full_like(coord, 0.2))


@each_decoder
@pytest.mark.parametrize('size', [(1, 1), (1, 4), (3, 1), (2, 9)], ids=str)
def test_maps_of_any_size_follow_the_equations(spec, size):
    assert_follows_equations(spec, images(*size), *scattered(8))


@pytest.mark.parametrize('spec', [make(local_ensemble=False) for make in (liif, a_liif, pixel)] + [fixed_scale()],
                         ids=['liif', 'a-liif', 'pixel', 'fixed-scale'])
def test_the_nearest_code_of_an_edge_is_the_even_one(spec):
    # Edges of a 4x8 map, and of the 8x16 image that the fixed scale makes of it, are exact in binary.
    edges = torch.cartesian_prod(torch.arange(-0.75, 1, 0.25), torch.arange(-0.875, 1, 0.125)).double()
    coord = edges.expand(1, -1, -1)
    assert_follows_equations(spec, images(4, 8, batch=1), coord, torch.full_like(coord, 0.1))


@each_decoder
def test_queries_a_hair_beside_an_edge_follow_the_equations(spec):
    # Shifted by 1/h, or by half a cell of a latent pixel, a pixel's centre comes to its edge: 1e-6 tells on which side.
    centres = torch.cartesian_prod(torch.arange(-0.75, 1, 0.5), torch.arange(-0.875, 1, 0.5)).double()
    hairs = torch.tensor([-1.5e-6, -5e-7, 5e-7, 1.5e-6], dtype=torch.float64)
    coord = (centres + hairs.view(-1, 1, 1)).view(1, -1, 2)
    assert_follows_equations(spec, images(4, 8, batch=1), coord, coord.new_tensor([0.5, 0.25]).expand_as(coord))


@pytest.mark.parametrize('spec', [liif(), a_liif(), metasr()], ids=['liif', 'a-liif', 'metasr'])
def test_each_query_has_its_own_cell(spec):
    coord, _ = scattered(12)
    assert_follows_equations(spec, images(5, 7), coord, torch.rand_like(coord) + 0.1)


@each_ensemble
def test_without_cell_decode_a_query_needs_no_cell(spec):
    spec = copy.deepcopy(spec)
    spec['args']['cell_decode'] = False
    model, inp, (coord, cell) = build(spec), images(4, 5), scattered()
    assert_equal(model.query(model.encode(inp), coord), model(inp, coord, cell))


@pytest.mark.parametrize('spec', [lte(), lte_fast(), lmlte(), lmlte(mod_input=False)],
                         ids=['lte', 'lte-fast', 'lmlte', 'lmlte-plain'])
def test_phases_have_the_digits_of_float32_in_bf16(spec):
    model, inp, (coord, cell) = build(spec).float(), images(4, 5).float(), scattered()
    seen = []
    for layer in (model.phase, getattr(model, 'imphase', None)):
        if layer is not None:
            layer.register_forward_hook(lambda module, args, out: seen.append(
                (out, (args[0].double() @ module.weight.double().t()))))
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        features = model.encode(inp)
        model.query(features, coord.float(), cell.float())
        model.query_whole(features, (9, 7))
    assert len(seen) >= 2
    for phases, exact in seen:
        torch.testing.assert_close(phases.double(), exact, rtol=1e-5, atol=1e-6)


# --- gradients -----------------------------------------------------------------------------------------------------


@each_variant
def test_gradients_are_those_of_the_equations(spec):
    model, inp, (coord, cell) = build(spec), images(4, 5).requires_grad_(), scattered(4)
    params = {name: param.requires_grad_() for name, param in parameters(model).items()}
    expected = reference.forward(spec, params, inp, coord, cell)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), [inp, *params.values()])
    got = torch.autograd.grad((model(inp, coord, cell) * weights).sum(), [inp, *model.parameters()])
    for name, a, b in zip(['inp', *params], got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f'{name}: {text}')


@each_size(TARGETS)
def test_all_pixels_of_a_target_and_their_gradients_are_those_of_the_equations(spec, size):
    model, inp = build(spec), images(4, 5).requires_grad_()
    params = {name: param.requires_grad_() for name, param in parameters(model).items()}
    pick = torch.randperm(size[0] * size[1])[:4]  # pixels that are compared
    coord, cell = grid(*size)
    expected = reference.forward(spec, params, inp, coord[:, pick], cell[:, pick])
    pred = model(inp, size=size).flatten(1, 2)[:, pick]
    assert_equal(pred, expected)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), [inp, *params.values()])
    got = torch.autograd.grad((pred * weights).sum(), [inp, *model.parameters()])
    for name, a, b in zip(['inp', *params], got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f'{name}: {text}')


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize('spec', [spec for name, spec in PLAIN.items() if name != 'fixed-scale'],
                         ids=[name for name in PLAIN if name != 'fixed-scale'])  # all of which is the encoder
def test_gradients_of_the_decoder_do_not_ask_how_the_features_were_made(spec, mode):
    model, inp, (coord, cell) = build(spec), images(4, 5), scattered(15)
    params = [param for name, param in model.named_parameters() if not name.startswith('encoder.')]
    with mode():
        features = model.encode(inp)
    for got, wanted in ((model.query(features, coord, cell), model(inp, coord, cell)),
                        (model.query_whole(features, (9, 7)), model(inp, size=(9, 7)))):
        for a, b in zip(*(torch.autograd.grad(out.pow(2).sum(), params) for out in (got, wanted)), strict=True):
            assert_equal(a, b)


@each_decoder
def test_gradients_with_respect_to_coordinates_and_cells_of_grids_are_those_of_their_queries(spec):
    model, weights = build(spec), torch.randn(1, 3, 4, 3, dtype=torch.float64)
    axes = [torch.tensor(v, dtype=torch.float64).requires_grad_() for v in ([-0.7, 0.1, 0.4], [-0.5, -0.1, 0.2, 0.6])]
    cell = torch.tensor([0.21, 0.23], dtype=torch.float64).requires_grad_()
    features = model.encode(images(5, 6, batch=1))
    coord = torch.cartesian_prod(*axes)[None]
    grads = [torch.autograd.grad((out.view_as(weights) * weights).sum(), [*axes, cell], allow_unused=True)
             for out in (model.query_grid(features, *axes, cell), model.query(features, coord, cell.expand_as(coord)))]
    for got, wanted in zip(*grads, strict=True):
        if wanted is None:
            assert got is None
        else:
            assert_equal(got, wanted)


@each_decoder
def test_gradients_of_images_that_are_decoded_one_by_one_are_those_of_the_batch(spec, monkeypatch):
    model, inp, (coord, cell) = build(spec), images(4, 5, batch=3), scattered(15, batch=3)
    weights = torch.randn(3, 15, 3, dtype=torch.float64)
    found = []
    for queries in (15, 45):  # a time
        monkeypatch.setattr('models.decoder.chunk_size', lambda device, queries=queries: queries)
        out = model(inp, coord, cell)
        found.append([out, *torch.autograd.grad((out * weights).sum(), model.parameters())])
    for one_by_one, batch in zip(*found, strict=True):
        assert_equal(one_by_one, batch)


@each_decoder
def test_features_made_for_training_serve_queries_without_gradients(spec):
    model, inp, (coord, cell) = build(spec), images(4, 5), scattered(15)
    expected, features = model(inp, coord, cell), model.encode(inp)
    with torch.no_grad():
        assert_equal(model.query(features, coord, cell), expected)


@each_decoder
def test_gradients_are_those_of_finite_differences(spec):
    model, inp, (coord, cell) = build(spec), images(3, 4, batch=1).requires_grad_(), scattered(5, batch=1)
    names, params = zip(*model.named_parameters(), strict=True)

    def decode(inp, *params):
        return torch.func.functional_call(model, dict(zip(names, params, strict=True)), (inp, coord, cell))

    assert torch.autograd.gradcheck(decode, (inp, *params), fast_mode=True)

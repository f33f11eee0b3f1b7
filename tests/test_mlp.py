"""The layers' fast paths on a CPU against the products that they stand for."""

import pytest
import torch

from models import mlp

PRECISIONS = {torch.float32: 1e-5, torch.bfloat16: 0.02}  # dtype: largest error, as a part of the largest result
each_precision = pytest.mark.parametrize('dtype', PRECISIONS, ids=str)
with_or_without_gradients = pytest.mark.parametrize('grad', [False, True], ids=['inference', 'training'])


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    monkeypatch.setattr(mlp, 'AVX512', torch.backends.mkldnn.is_available())  # whatever this machine's CPU is
    torch.manual_seed(0)


def assert_near(actual, expected, dtype):
    assert actual.dtype == dtype and actual.shape == expected.shape
    assert (actual.double() - expected).abs().max() <= PRECISIONS[dtype] * expected.abs().max()


@each_precision
@with_or_without_gradients
@pytest.mark.parametrize('rows, inputs, outputs', [(1, 1, 1), (1, 16, 10), (7, 5, 3), (1000, 64, 33)])
def test_linear_is_the_product_with_the_transposed_weight_plus_the_bias(rows, inputs, outputs, dtype, grad):
    x, weight, bias = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype), torch.randn(outputs)
    with torch.set_grad_enabled(grad):
        actual = mlp.linear(x, weight, bias.to(dtype))
    expected = torch.stack([(weight.double() * row).sum(dim=1) for row in x.double()]) + bias.to(dtype).double()
    assert_near(actual, expected, dtype)


def test_linear_of_no_rows_has_no_rows():
    with torch.no_grad():
        assert mlp.linear(torch.rand(0, 4), torch.rand(3, 4), torch.rand(3)).shape == (0, 3)


def test_linear_takes_any_number_of_dimensions():
    net, x = mlp.MLP(5, 3, [4]), torch.randn(2, 7, 5)
    torch.testing.assert_close(net(x), net(x.flatten(0, 1)).view(2, 7, 3))
    torch.testing.assert_close(net(x[0, 0]), net(x[0])[0])


@each_precision
def test_gradients_of_linear_are_the_products(dtype):
    x, weight, bias = (torch.randn(size).to(dtype).requires_grad_() for size in ((50, 6), (4, 6), (4,)))
    out = torch.randn(50, 4).to(dtype)
    mlp.linear(x, weight, bias).backward(out)
    for tensor, expected in ((x, out.double() @ weight.double()), (weight, out.double().t() @ x.double()),
                             (bias, out.double().sum(dim=0))):
        assert_near(tensor.grad, expected, dtype)


@pytest.mark.parametrize('rows, functions, outputs', [(1, 1, 1), (1, 10, 16), (5, 3, 7), (500, 10, 3)])
def test_both_ways_to_mix_are_the_weighted_sum_over_the_functions(rows, functions, outputs):
    h, c = torch.randn(rows, functions, outputs).bfloat16(), torch.randn(rows, functions).bfloat16()
    expected = sum(c[:, k:k + 1].double() * h[:, k].double() for k in range(functions))
    for mix in (mlp.mix_products, mlp.mix_spread):
        assert_near(mix(c)(h.flatten(1)), expected, torch.bfloat16)

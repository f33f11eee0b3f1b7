"""On a GPU every decoder gives what it gives on the CPU, also in bf16; and training by CUDA graphs."""

import pytest
import torch
from specs import PLAIN, grid, pixel

import models
from devices import Parallel
from training.run import Config
from training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
SPECS = {**PLAIN, 'pixel-residual': pixel(residual='bilinear')}


def on(device, spec, size=None):
    """Colours of random images and the gradients of all parameters, on the CPU."""
    torch.manual_seed(0)
    model = models.make(spec).eval().to(device)
    inp = torch.randn(2, 3, 6, 7).to(device)
    coord, cell = (x.float().to(device) for x in grid(13, 15))
    out = model(inp, coord, cell) if size is None else model(inp, size=size)
    out.pow(2).mean().backward()
    return [out.detach().cpu(), *(param.grad.cpu() for param in model.parameters() if param.grad is not None)]


@pytest.mark.parametrize('size', [None, (13, 15)], ids=['queries', 'all-pixels'])
@pytest.mark.parametrize('spec', SPECS.values(), ids=SPECS)
def test_a_gpu_gives_the_colours_and_gradients_of_the_cpu(spec, size):
    for ours, expected in zip(on('cuda', spec, size), on('cpu', spec, size), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('spec', SPECS.values(), ids=SPECS)
def test_bf16_on_a_gpu_is_close_to_float32(spec):
    expected = on('cuda', spec, (13, 15))
    with torch.autocast('cuda', torch.bfloat16):
        found = on('cuda', spec, (13, 15))
    assert (found[0] - expected[0]).norm() < 0.05 * expected[0].norm()
    assert all(grad.isfinite().all() for grad in found)


@pytest.mark.parametrize('options', [{}, {'compile': True}, {'amp': 'bf16', 'ema': 0.9, 'grad_clip': 0.1}],
                         ids=['float32', 'compiled', 'bf16'])
def test_training_by_cuda_graphs_equals_training_without_them(options, tmp_path):
    ends, spec = [], pixel(hidden=[16] * 4, init='layer', residual='bilinear')
    for graphs in (False, True):
        config = Config({}, spec, {'name': 'adam', 'args': {'lr': 1e-2}}, 1, cuda_graphs=graphs, **options)
        trainer = Trainer(config, Parallel('0'), tmp_path)
        for size in (12, 9, 12, 20, 9):  # pixels of the targets: shapes that are recorded, and replayed
            torch.manual_seed(size)
            batch = {'inp': torch.randint(256, (2, 3, 6, 6), dtype=torch.uint8),
                     'gt': torch.randint(256, (2, 3, size, size), dtype=torch.uint8)}
            loss = trainer.step(batch, 2, 2, trainer.config.ema)
        ends.append([loss, *trainer.weights()])
    for plain, recorded in zip(*ends, strict=True):
        torch.testing.assert_close(recorded, plain)

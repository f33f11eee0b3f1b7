"""A-LIIF's functions in pixel space as one CUDA kernel in each direction, in Triton.

A program computes all queries of one latent pixel. It reads the mixed parameters of the pixel's function once (3,363
numbers with four hidden layers of width 32) and keeps all activations on chip. If the layers were computed one by one,
the activations would go through the GPU's memory several times, which takes longer than the products. The backward pass
computes the activations again.

Measured on an H200 in bf16: a training step (EDSR-baseline, 32 crops of 64x64, K = 16, width 32, torch.compile, CUDA
graphs) takes 16 ms instead of 26; the backward kernel takes 4 of them, and spills registers.
"""

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from models.a_liif import decode_by_layers
from models.kernels import allowed, works
from models.mlp import MLPMixture

PADDED = 16  # the last layer's outputs are padded to the smallest side of a product
OPTIONS = {'BLOCK': 32, 'num_warps': 2}  # BLOCK: queries at a time
TRIAL_PIXELS = 64  # latent pixels in the trial of `worst_error`


def fits(imnet: MLPMixture, start: torch.Tensor) -> bool:
    """Whether the kernels are made for `imnet` (four hidden layers) and the first layer's output `start` (bf16)."""
    widths = imnet.dims[1:-1]
    if len(widths) != 4 or {*widths} not in ({16}, {32}) or imnet.out_dim > PADDED:
        return False
    return start.dtype == torch.bfloat16 and allowed(start.device, range(8, 100))


def decode(imnet: MLPMixture, coord: torch.Tensor, c: torch.Tensor, start: torch.Tensor, rel_y: torch.Tensor,
           rel_x: torch.Tensor) -> torch.Tensor:
    """What `decode_by_layers` gives, in float32."""
    return Functions.apply(start, c.to(start.dtype) @ pack(imnet, coord).to(start.dtype), rel_y, rel_x, imnet.out_dim)


def agrees(imnet: MLPMixture, start: torch.Tensor) -> bool:
    """Whether the kernels compile on this GPU, and are about as exact as `decode_by_layers`; tried once per kind."""
    return works('pixel space', start.device, (str(imnet.dims), imnet.K), lambda: worst_error(imnet, start.device))


def worst_error(imnet: MLPMixture, device: torch.device) -> float:
    """The largest error of the kernels' colours and gradients, relative to the error that bf16 explains.

    Where ReLU's input is near zero, rounding decides whether a gradient passes. So `decode_by_layers` in bf16 is not
    exact, either: with some weights it is off by 10 %.
    """
    def trial(path, dtype):
        random = torch.Generator().manual_seed(0)
        width, pixels = imnet.dims[1], TRIAL_PIXELS
        shapes = ((imnet.K, width, 2), 1), ((pixels, imnet.K), imnet.K ** -0.5), ((pixels, width), 1)
        given = [(torch.randn(shape, generator=random) * scale).to(device, torch.bfloat16).to(dtype).requires_grad_()
                 for shape, scale in shapes]
        rel_y, rel_x, weight = (torch.randn(shape, generator=random).to(device)
                                for shape in ((pixels, 5), (pixels, 7), (pixels, imnet.out_dim, 35)))
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = path(imnet, *given, rel_y, rel_x).float()
        parameters = [p for p in (*imnet.weights[1:], *imnet.biases[1:]) if p.requires_grad]  # frozen ones do not
        return [out, *torch.autograd.grad(out, [*given, *parameters], weight.transpose(1, 2))]

    with torch.inference_mode(False), torch.enable_grad():
        kernels, rounded = (trial(path, torch.bfloat16) for path in (decode, decode_by_layers))
        exact = trial(decode_by_layers, torch.float32)
    return max(((ours - true).norm() / (1.5 * (theirs - true).norm() + 0.01 * true.norm())).item()
               for ours, theirs, true in zip(kernels, rounded, exact, strict=True))


def pack(imnet: MLPMixture, coord: torch.Tensor) -> torch.Tensor:
    """The mixture's parameters side by side, in the order of the kernels: (K, S), with zeros up to a multiple of 8.

    Of the first layer there are only the columns for rel_coord, `coord` (K, H, 2).
    """
    parts = [coord[..., 0], coord[..., 1], *imnet.weights[1:-1], *imnet.biases[1:-1], imnet.weights[-1],
             imnet.biases[-1]]
    size = sum(part.shape[1] for part in parts)
    return torch.cat([*parts, parts[0].new_zeros(imnet.K, -size % 8)], dim=1)


class Functions(torch.autograd.Function):
    """Colours (P, n * m, C), float32, of each pixel's n x m queries.

    start (P, H): the first layer's output at rel_coord 0. functions (P, S): mixtures of the rows of `pack`. rel_y
    (P, n), rel_x (P, m). `count`: C.
    """

    @staticmethod
    def forward(ctx, start, functions, rel_y, rel_x, count):
        start, functions, rel_y, rel_x = (x.contiguous() for x in (start, functions, rel_y, rel_x))
        queries = rel_y.shape[1] * rel_x.shape[1]
        out = start.new_empty(len(start), queries, count, dtype=torch.float32)
        ctx.save_for_backward(start, functions, rel_y, rel_x)
        launch(forward_kernel, out, start, functions, rel_y, rel_x, count)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        start, functions, rel_y, rel_x = ctx.saved_tensors
        grad_start, grad_params = torch.empty_like(start), torch.empty_like(functions)
        grad_params[:, -8:] = 0  # these include the padding, which the kernel does not write
        launch(backward_kernel, grad.contiguous(), start, functions, rel_y, rel_x, grad.shape[2],
               grad_start, grad_params)
        return grad_start, grad_params, None, None, None


def launch(kernel, values, start, functions, rel_y, rel_x, count, *grads):
    with torch.cuda.device_of(start):
        kernel[(len(start),)](values, start, functions, rel_y, rel_x, *grads, rel_y.shape[1], rel_x.shape[1],
                              C=count, PADDED=PADDED, S=functions.shape[1], H=start.shape[1], **OPTIONS)


@triton.jit
def dot(a, b, acc=None):
    return tl.dot(a, b, acc, input_precision='ieee')


@triton.jit
def layer(h, weight, bias):
    """ReLU(W h + b) of the rows of h; `weight` (out, in)."""
    return tl.maximum(dot(h.to(weight.dtype), tl.trans(weight)) + bias[None, :], 0)


@triton.jit
def first(start, local_y, local_x, y, x):
    return tl.maximum(start[None, :] + local_y[None, :] * y[:, None] + local_x[None, :] * x[:, None], 0)


@triton.jit
def load_function(start, functions, H: tl.constexpr, C: tl.constexpr, PADDED: tl.constexpr, S: tl.constexpr):
    """The function of this program's pixel: see `pack`."""
    pixel = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, H)
    c = tl.arange(0, PADDED)
    square = i[:, None] * H + i[None, :]
    p = functions + pixel * S
    matrices = p + 2 * H
    biases = matrices + 3 * H * H
    last = biases + 3 * H
    return (tl.load(start + pixel * H + i).to(tl.float32), tl.load(p + i).to(tl.float32),
            tl.load(p + H + i).to(tl.float32), tl.load(matrices + square), tl.load(matrices + H * H + square),
            tl.load(matrices + 2 * H * H + square), tl.load(biases + i).to(tl.float32),
            tl.load(biases + H + i).to(tl.float32), tl.load(biases + 2 * H + i).to(tl.float32),
            tl.load(last + c[:, None] * H + i[None, :], mask=c[:, None] < C, other=0),
            tl.load(last + C * H + c, mask=c < C, other=0).to(tl.float32))


@triton.jit
def load_coord(rel_y, rel_x, q, n, m):
    pixel = tl.program_id(0).to(tl.int64)
    valid = q < n * m
    return (tl.load(rel_y + pixel * n + q // m, mask=valid, other=0).to(tl.float32),
            tl.load(rel_x + pixel * m + q % m, mask=valid, other=0).to(tl.float32))


@triton.jit(do_not_specialize=['n', 'm'])
def forward_kernel(out, start, functions, rel_y, rel_x, n, m, C: tl.constexpr, PADDED: tl.constexpr, S: tl.constexpr,
                   H: tl.constexpr, BLOCK: tl.constexpr):
    pixel = tl.program_id(0).to(tl.int64)
    s, ly, lx, w1, w2, w3, b1, b2, b3, w4, b4 = load_function(start, functions, H, C, PADDED, S)
    c = tl.arange(0, PADDED)
    for begin in range(0, n * m, BLOCK):
        q = begin + tl.arange(0, BLOCK)
        y, x = load_coord(rel_y, rel_x, q, n, m)
        h = layer(layer(layer(first(s, ly, lx, y, x), w1, b1), w2, b2), w3, b3)
        h = dot(h.to(w4.dtype), tl.trans(w4)) + b4[None, :]
        tl.store(out + (pixel * n * m + q[:, None]) * C + c[None, :], h, mask=(c[None, :] < C) & (q[:, None] < n * m))


@triton.jit(do_not_specialize=['n', 'm'])
def backward_kernel(grad, start, functions, rel_y, rel_x, grad_start, grad_params, n, m, C: tl.constexpr,
                    PADDED: tl.constexpr, S: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr):
    pixel = tl.program_id(0).to(tl.int64)
    s, ly, lx, w1, w2, w3, b1, b2, b3, w4, b4 = load_function(start, functions, H, C, PADDED, S)
    dtype: tl.constexpr = w1.dtype
    i = tl.arange(0, H)
    c = tl.arange(0, PADDED)
    gs = tl.zeros((H,), tl.float32)
    gy, gx, g1, g2, g3 = gs, gs, gs, gs, gs  # gradients of the columns for rel_coord, and of the biases
    gw1 = tl.zeros((H, H), tl.float32)
    gw2, gw3 = gw1, gw1
    gw4 = tl.zeros((PADDED, H), tl.float32)
    g4 = tl.zeros((PADDED,), tl.float32)
    for begin in range(0, n * m, BLOCK):
        q = begin + tl.arange(0, BLOCK)
        y, x = load_coord(rel_y, rel_x, q, n, m)
        h0 = first(s, ly, lx, y, x).to(dtype)
        h1 = layer(h0, w1, b1).to(dtype)
        h2 = layer(h1, w2, b2).to(dtype)
        h3 = layer(h2, w3, b3).to(dtype)
        g = tl.load(grad + (pixel * n * m + q[:, None]) * C + c[None, :],
                    mask=(c[None, :] < C) & (q[:, None] < n * m), other=0).to(tl.float32)
        g4 += tl.sum(g, axis=0)
        g = g.to(dtype)
        gw4 = dot(tl.trans(g), h3, gw4)
        g = tl.where(h3 > 0, dot(g, w4), 0)
        g3 += tl.sum(g, axis=0)
        g = g.to(dtype)
        gw3 = dot(tl.trans(g), h2, gw3)
        g = tl.where(h2 > 0, dot(g, w3), 0)
        g2 += tl.sum(g, axis=0)
        g = g.to(dtype)
        gw2 = dot(tl.trans(g), h1, gw2)
        g = tl.where(h1 > 0, dot(g, w2), 0)
        g1 += tl.sum(g, axis=0)
        g = g.to(dtype)
        gw1 = dot(tl.trans(g), h0, gw1)
        g = tl.where(h0 > 0, dot(g, w1), 0)
        gs += tl.sum(g, axis=0)
        gy += tl.sum(g * y[:, None], axis=0)
        gx += tl.sum(g * x[:, None], axis=0)
    square = i[:, None] * H + i[None, :]
    p = grad_params + pixel * S
    matrices = p + 2 * H
    biases = matrices + 3 * H * H
    last = biases + 3 * H
    tl.store(grad_start + pixel * H + i, gs.to(grad_start.dtype.element_ty))
    tl.store(p + i, gy.to(dtype))
    tl.store(p + H + i, gx.to(dtype))
    tl.store(matrices + square, gw1.to(dtype))
    tl.store(matrices + H * H + square, gw2.to(dtype))
    tl.store(matrices + 2 * H * H + square, gw3.to(dtype))
    tl.store(biases + i, g1.to(dtype))
    tl.store(biases + H + i, g2.to(dtype))
    tl.store(biases + 2 * H + i, g3.to(dtype))
    tl.store(last + c[:, None] * H + i[None, :], gw4.to(dtype), mask=c[:, None] < C)
    tl.store(last + C * H + c, g4.to(dtype), mask=c < C)

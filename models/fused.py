"""A-LIIF's decoding in query space as one CUDA kernel, in Triton. It computes the same as `ALIIF.decode`.

A row is a query with one of its codes. A program computes ROWS rows on chip, from the gather to the ensemble's sum. In
the published model a row takes 207,000 multiply-adds and gathers 0.8 KB in bf16, so tensor cores are the bottleneck:
4.6 TFLOP for the 2,766,240 queries of a DIV2K image at x4. The design follows the specification of an H100, which has
132 SMs with 65,536 registers and 227 KB of shared memory each:

- The weights, 430 KB in bf16, do not fit into an SM, so each program reads them from L2. With 128 rows this is 37 GB
  for that image and takes 7 ms at 5.5 TB/s, about as long as the products; with 64 rows it is twice that. By this
  estimate 128 rows are better; measured, 64 are.
- 128 rows of 256 float32 sums take half of all registers, and the layer's input in bf16 another quarter. So hidden
  layers are computed in pairs, like the products in attention: only STEP columns of the first layer's output exist at a
  time, and are multiplied into the sums of the second. With 32 columns the products run asynchronously; with 64 the
  compiler runs out of registers and waits after each product.
- Blocks of weights, 32 KB a step, are copied by TMA, `num_stages` ahead, which saves the registers for addresses.
- In the mixture, one product gives the outputs of all K functions. A thread holds all K of its outputs, so it mixes
  them without exchange. The mixture's gather runs while the expansion net's last layers are computed.

In the code for sm_90 the loops neither spill registers nor wait between products. In float32 the products are plain
multiply-adds, 84 % of the inner loop's instructions with 64 rows. On an H200 the kernel passes all tests. In bf16 it
reaches 261 TFLOP/s with 64 rows, 38 % of the speed of a large product, and 229 TFLOP/s with 128 rows.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import nn
from triton.tools.tensor_descriptor import TensorDescriptor

from models.features import Features
from models.kernels import allowed, works
from models.mlp import ExpansionNet

SIDE = 16  # smallest side of a product: K, the mixture's widths and the local inputs are padded to it
STEP = 32  # columns of a hidden layer that are computed at a time
TILES = {  # scripts/tune_fused.py compares others
    torch.bfloat16: {'ROWS': 64, 'num_warps': 4, 'num_stages': 3, 'maxnreg': 255},
    torch.float32: {'ROWS': 64, 'num_warps': 8, 'num_stages': 2, 'maxnreg': 255},
}
TOLERANCE = {torch.bfloat16: 0.03, torch.float32: 1e-4}  # of the error, relative to the result of `ALIIF.decode`


def fits(model: nn.Module, features: Features) -> bool:
    """Whether `decode` can replace `model.decode` for `features`; `model`: an ALIIF."""
    net, rows = model.expansion, features.hoisted['mixture']
    dtype = rows.dtype
    if type(net) is not ExpansionNet or not model.is_unmodified or model.pixel_space:
        return False
    if len(net.layers) < 3 or len(model.imnet.dims) < 3:
        return False
    if model.imnet.K > SIDE or max(model.imnet.dims[1:]) > SIDE or expansion_width(net) > 256 or dtype not in TILES:
        return False
    if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return False  # cuBLAS then uses tensor cores, which the kernel does not
    return not rows.is_cuda or allowed(rows.device, range(9, 11))  # GPUs with TMA


def decode(model: nn.Module, features: Features, coord: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """What `model.decode` gives, for a model that `fits`: colours (B, Q, n_colors) at `coord` (B, Q, 2)."""
    index, rel_coord, areas = model.neighbours(features, coord)
    local = model.local_input(features, rel_coord, cell)
    rows, expansion_rows = features.rows('mixture'), features.rows('expansion')
    out = coord.new_empty(*coord.shape[:2], model.imnet.out_dim, dtype=torch.float32)
    queries, tile = out[..., 0].numel(), TILES[rows.dtype]
    with torch.cuda.device_of(out):
        kernel[(triton.cdiv(queries, tile['ROWS'] // len(index)),)](
            out, index.contiguous(), local.contiguous(), areas.contiguous(), expansion_rows, rows,
            *pack_expansion(model, rows.dtype), *pack_mixture(model, rows.dtype), queries,
            NEIGHBOURS=len(index), LOCAL=local.shape[1], COLOURS=model.imnet.out_dim,
            EXPANSION=expansion_rows.shape[1], WIDTH=expansion_width(model.expansion),
            LAYERS=(len(model.expansion.layers) + 1) // 4 * 2, SOFTMAX=model.expansion.norm == 'softmax',
            K=model.imnet.K, MIXTURE=model.imnet.dims[1], MIXTURE_LAYERS=len(model.imnet.dims) - 2,
            SIDE=SIDE, STEP=STEP, **tile)
    return out


def agrees(model: nn.Module, features: Features) -> bool:
    """Whether the kernel compiles on this GPU and gives what `model.decode` does; tried once for each kind of model."""
    rows = features.hoisted['mixture']
    key = rows.dtype, model.local_ensemble, model.expansion.norm, str(model.expansion), str(model.imnet.dims)

    def error():
        top, left, height, width = features.window
        h, w = features.feat.shape[-2:]
        middle = features.inp.new_tensor([(top + h / 2) / height * 2 - 1, (left + w / 2) / width * 2 - 1])
        coord = (middle + torch.linspace(-0.5, 0.5, 16, device=middle.device).unsqueeze(1) / max(height, width))
        coord = coord.expand(len(features.feat), -1, -1)
        cell = torch.full_like(coord, 0.5 / max(height, width))
        eager = model.decode(features, coord, cell).float()
        off = (decode(model, features, coord, cell) - eager).norm() / eager.norm()
        return off.item() / TOLERANCE[rows.dtype]

    return works('query space', rows.device, key, error)


# --- parameters as the kernel reads them ---------------------------------------------------------------------------


def expansion_width(net):
    """The width of all hidden layers of the expansion net `net` in the kernel."""
    return max(STEP, triton.next_power_of_2(max(layer.out_features for layer in net.layers[:-1:2])))


def pad(x, *sizes):
    """`x` with zeros after it along each dimension, up to `sizes`; contiguous."""
    amounts = [n for size, have in zip(sizes, x.shape, strict=True) for n in (size - have, 0)]
    return F.pad(x, amounts[::-1]).contiguous()


def pack_expansion(model, dtype):
    """The expansion net: the local part of its first layer, and matrices (in, out) and biases of all others.

    An identity layer, which ReLU does not change, is added if the number of hidden layers would be odd.
    """
    net = model.expansion
    width = expansion_width(net)
    *hidden, last = ((layer.weight.t(), layer.bias) for layer in net.layers[2::2])
    if len(hidden) % 2 == 0:
        hidden.append((torch.eye(width, device=last[1].device), last[1].new_zeros(width)))
    matrices = torch.cat([pad(weight, width, width) for weight, _ in hidden]).to(dtype)
    outputs, describe = pad(last[0], width, SIDE).to(dtype), TensorDescriptor.from_tensor
    return (pad(net.first[0][:, model.feat_dim:].t(), SIDE, width).to(dtype),
            describe(matrices, [width, STEP]), describe(matrices, [STEP, width]),
            torch.cat([pad(bias, width) for _, bias in hidden]).float(),
            describe(outputs, [STEP, SIDE]), pad(last[1], SIDE).float())


def pack_mixture(model, dtype):
    """The mixture: the local part of its first layers, (SIDE, K * out); matrices (in, K * out) and biases (K, out)."""
    imnet = model.imnet

    def side_by_side(weight):
        """(K, out, in) -> (in, K * out), all padded to SIDE."""
        return pad(weight.permute(2, 0, 1), SIDE, SIDE, SIDE).flatten(1)

    first, *weights = (weight.view(imnet.K, o, -1) for weight, o in zip(imnet.weights, imnet.dims[1:], strict=True))
    return (side_by_side(first[..., model.feat_dim:]).to(dtype),
            torch.cat([side_by_side(weight) for weight in weights]).to(dtype),
            torch.cat([pad(bias, SIDE, SIDE) for bias in imnet.biases[1:]]).to(dtype))


# --- the kernel ----------------------------------------------------------------------------------------------------


@triton.jit
def relu(x, dtype: tl.constexpr):
    return tl.maximum(x, 0).to(dtype)


@triton.jit
def dot(a, b, acc=None):
    return tl.dot(a, b, acc, input_precision='ieee')


@triton.jit
def two_layers(h, matrix1, biases1, start1, matrix2, biases2, start2, OUT: tl.constexpr, STEP: tl.constexpr):
    """(ROWS, WIDTH) -> (ROWS, OUT). The two layers begin at rows `start1` and `start2` of stacked matrices and biases.
    """
    WIDTH: tl.constexpr = h.shape[1]
    out = tl.zeros((h.shape[0], OUT), tl.float32) + tl.load(biases2 + start2 + tl.arange(0, OUT))
    for j in range(0, WIDTH, STEP):
        between = dot(h, matrix1.load([start1, j])) + tl.load(biases1 + start1 + j + tl.arange(0, STEP))
        out = dot(relu(between, h.dtype), matrix2.load([start2 + j, 0]), out)
    return out


@triton.jit
def normalise(c, K: tl.constexpr, SOFTMAX: tl.constexpr):
    """The weights of the K functions, (ROWS, SIDE), zero beyond K as the inputs are."""
    if SOFTMAX:
        c = tl.where(tl.arange(0, c.shape[1]) < K, c, float('-inf'))
        c = tl.exp(c - tl.max(c, axis=1, keep_dims=True))
        return c / tl.sum(c, axis=1, keep_dims=True)
    return c / tl.maximum(tl.sqrt(tl.sum(c * c, axis=1, keep_dims=True)), 1e-12)


@triton.jit
def mix(h, c):
    """sum_k c_k h_k: (ROWS, SIDE * SIDE) and (ROWS, SIDE) -> (ROWS, SIDE)."""
    return tl.sum(tl.reshape(h, (c.shape[0], c.shape[1], c.shape[1])) * c[:, :, None], axis=1)


@triton.jit(do_not_specialize=['queries'])
def kernel(out, index, local, areas, expansion_rows, mixture_rows,
           expansion_local, columns, rows, biases, last, last_bias, mixture_local, mixture, mixture_biases, queries,
           NEIGHBOURS: tl.constexpr, LOCAL: tl.constexpr, COLOURS: tl.constexpr,
           EXPANSION: tl.constexpr, WIDTH: tl.constexpr, LAYERS: tl.constexpr, SOFTMAX: tl.constexpr,
           K: tl.constexpr, MIXTURE: tl.constexpr, MIXTURE_LAYERS: tl.constexpr,
           SIDE: tl.constexpr, STEP: tl.constexpr, ROWS: tl.constexpr):
    """EXPANSION, K * MIXTURE: widths of the gathered rows. WIDTH, SIDE: widths to which the nets' layers are padded.

    LAYERS, MIXTURE_LAYERS: numbers of layers of the expansion net and of the mixture, without their first layers, whose
    outputs are gathered.
    """
    QUERIES: tl.constexpr = ROWS // NEIGHBOURS
    dtype: tl.constexpr = mixture_rows.dtype.element_ty
    m = tl.arange(0, ROWS)
    query = tl.program_id(0) * QUERIES + m // NEIGHBOURS  # its codes: side by side here, `queries` apart in `index`
    row, valid = m % NEIGHBOURS * queries + query, query < queries
    code = tl.load(index + row, mask=valid, other=0)
    side = tl.arange(0, SIDE)
    k = side[:, None]
    x = tl.load(local + row[:, None] * LOCAL + side, mask=valid[:, None] & (side < LOCAL), other=0).to(dtype)

    n = tl.arange(0, WIDTH)
    gathered = tl.load(expansion_rows + code[:, None] * EXPANSION + n, mask=n < EXPANSION, other=0)
    h = relu(dot(x, tl.load(expansion_local + k * WIDTH + n)) + gathered, dtype)
    for i in tl.static_range(0, (LAYERS - 2) * WIDTH, 2 * WIDTH):
        h = relu(two_layers(h, columns, biases, i, rows, biases, i + WIDTH, WIDTH, STEP), dtype)
    gathered = tl.load(mixture_rows + code[:, None, None] * (K * MIXTURE) + k * MIXTURE + side,
                       mask=(k < K) & (side < MIXTURE), other=0)  # loads while c is computed
    c = normalise(two_layers(h, columns, biases, (LAYERS - 2) * WIDTH, last, last_bias, 0, SIDE, STEP), K, SOFTMAX)

    n = tl.arange(0, SIDE * SIDE)
    y = mix(dot(x, tl.load(mixture_local + k * (SIDE * SIDE) + n)) + tl.reshape(gathered, (ROWS, SIDE * SIDE)), c)
    for i in range(0, MIXTURE_LAYERS * SIDE, SIDE):
        z = dot(relu(y, dtype), tl.load(mixture + (i + k) * (SIDE * SIDE) + n))
        y = mix(z, c) + dot(c.to(dtype), tl.load(mixture_biases + (i + k) * SIDE + side))

    y *= tl.load(areas + row, mask=valid, other=0)[:, None]
    y = tl.sum(tl.reshape(y, (QUERIES, NEIGHBOURS, SIDE)), axis=1)
    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    tl.store(out + query[:, None] * COLOURS + side, y, mask=(query < queries)[:, None] & (side < COLOURS))

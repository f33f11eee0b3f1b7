"""LTE, LM-LIIF, LM-LTE and SwinIR written out for reading, one query, or one window, at a time; see `reference`."""

import math

import torch
import torch.nn.functional as F

# --- decoders: Lee and Jin 2022 (LTE), He and Jin 2024 (LM-LIIF, LM-LTE) -----------------------------------------


def waves(coef, frequencies, phase, rel_coord, rel_cell):
    """[a cos(pi g), a sin(pi g)] with g_k = f_k . rel_coord + phase_k . rel_cell."""
    angles = [math.pi * (f_y * rel_coord[0] + f_x * rel_coord[1] + p @ rel_cell)
              for (f_y, f_x), p in zip(frequencies, phase, strict=True)]
    return coef * torch.stack([angle.cos() for angle in angles] + [angle.sin() for angle in angles])


def pairs(freq):
    return [(freq[2 * k], freq[2 * k + 1]) for k in range(len(freq) // 2)]


def halves(freq):
    half = len(freq) // 2
    return [(freq[k], freq[half + k]) for k in range(half)]


def lte(params, mlp, name, code, rel_coord, rel_cell):
    """`code`: amplitudes and frequencies of a latent pixel, one after the other."""
    coef, freq = code.chunk(2)
    u = waves(coef, (halves if name == 'lte-fast' else pairs)(freq), params['phase.weight'], rel_coord, rel_cell)
    return mlp([(weight.flatten(1), bias) for weight, bias in
                mlp.linears(params, 'layers.' if name == 'lte-fast' else 'imnet.layers.')], u)


def modulated(layers, x, modulation):
    """Hidden layers are scaled and shifted before ReLU: all scales stand before all shifts."""
    *hidden, (last, bias) = layers
    width = len(hidden[0][1])
    scales, shifts = modulation[:len(hidden) * width], modulation[len(hidden) * width:]
    for i, (w, b) in enumerate(hidden):
        part = slice(i * width, (i + 1) * width)
        x = ((w @ x + b) * (1 + scales[part]) + shifts[part]).relu()
    return last @ x + bias


def lm_liif(params, mlp, spec, code, z, rel_coord, rel_cell):
    """`code`: the (unfolded) feature; z: the feature itself."""
    made = mlp(mlp.linears(params, 'hypernet.layers.'), torch.cat([code, rel_cell]))
    net = spec['imnet_spec']['args']
    count = 2 * net['hidden_depth'] * net['hidden_dim']
    if spec.get('mod_input'):
        z = made[count:]
    return modulated(mlp.linears(params, 'imnet.layers.'), torch.cat([z, rel_coord, rel_cell]), made[:count])


def lm_lte(params, mlp, spec, code, rel_coord, rel_cell):
    coef, freq = code.chunk(2)
    u = waves(coef, pairs(freq), params['phase.weight'], torch.ones_like(rel_coord), rel_cell)
    made = mlp(mlp.linears(params, 'hypernet.layers.'), u)
    net = spec['imnet_spec']['args']
    count, phase = 2 * net['hidden_depth'] * net['hidden_dim'], params['phase.weight']
    if spec.get('mod_input'):
        (coef, freq), phase = made[count:].chunk(2), params['imphase.weight']
    return modulated(mlp.linears(params, 'imnet.layers.'), waves(coef, pairs(freq), phase, rel_coord, rel_cell),
                     made[:count])


# --- encoder: Liang et al. 2021 (SwinIR) -------------------------------------------------------------------------


def mirror(i, n):
    """Which of n pixels stands at place i >= 0 of a row that goes on mirrored, its last pixel not repeated."""
    while i >= n:
        i = 2 * (n - 1) - i if n > 1 else 0
        i = abs(i)
    return i


def swinir(params, x, num_heads, window=8, no_upsampling=True, **_):
    """(B, 3, h, w) -> (B, 64, h, w), image by image."""
    return torch.stack([swinir_of_one(params, image, num_heads, window) for image in x])


def swinir_of_one(params, x, num_heads, window):
    h, w = x.shape[1:]
    rows, columns = ([mirror(i, n) for i in range(-(-n // window) * window)] for n in (h, w))
    s = conv(params, 'conv_first', x[:, rows][:, :, columns])
    t = norm(params, 'patch_embed.norm', s.permute(1, 2, 0))
    for i, heads in enumerate(num_heads):
        before, j = t, 0
        while f'layers.{i}.residual_group.blocks.{j}.norm1.weight' in params:
            block = {k.removeprefix(f'layers.{i}.residual_group.blocks.{j}.'): v for k, v in params.items()}
            t = t + attention(block, norm(block, 'norm1', t), heads, window, window // 2 if j % 2 else 0)
            t = t + linear(block, 'mlp.fc2', F.gelu(linear(block, 'mlp.fc1', norm(block, 'norm2', t))))
            j += 1
        t = before + conv(params, f'layers.{i}.conv', t.permute(2, 0, 1)).permute(1, 2, 0)
    y = conv(params, 'conv_after_body', norm(params, 'norm', t).permute(2, 0, 1)) + s
    return F.leaky_relu(conv(params, 'conv_before_upsample.0', y), 0.01)[:, :h, :w]


def attention(block, t, heads, window, shift):
    """Each position attends to those of its window in the shifted frame that it is no stranger to in the picture."""
    size, out = t.shape[:2], torch.empty_like(t)
    q, k, v = (part.unflatten(-1, (heads, -1)) for part in linear(block, 'attn.qkv', t).chunk(3, dim=-1))
    table = block['attn.relative_position_bias_table']

    def place(position):
        """Where a position of the shifted frame stands in the picture, and which piece of the wrapped frame it is."""
        at = tuple((p + shift) % n for p, n in zip(position, size, strict=True))
        piece = tuple((p >= n - shift) for p, n in zip(position, size, strict=True)) if shift else ()
        return at, piece

    for top in range(0, size[0], window):
        for left in range(0, size[1], window):
            inside = [(top + a, left + b) for a in range(window) for b in range(window)]
            for own in inside:
                (y, x), piece = place(own)
                scores, values = [], []
                for other in inside:
                    (oy, ox), other_piece = place(other)
                    row = (own[0] - other[0] + window - 1) * (2 * window - 1) + own[1] - other[1] + window - 1
                    product = (q[y, x] * k[oy, ox]).sum(-1) * q.shape[-1] ** -0.5 + table[row]
                    scores.append(product - (0 if piece == other_piece else 100))
                    values.append(v[oy, ox])
                share = torch.stack(scores).softmax(dim=0)
                out[y, x] = (share.unsqueeze(-1) * torch.stack(values)).sum(dim=0).flatten()
    return linear(block, 'attn.proj', out)


def conv(params, name, x):
    return F.conv2d(x[None], params[f'{name}.weight'], params[f'{name}.bias'], padding=1)[0]


def norm(params, name, x):
    mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * params[f'{name}.weight'] + params[f'{name}.bias']


def linear(params, name, x):
    return x @ params[f'{name}.weight'].t() + params[f'{name}.bias']

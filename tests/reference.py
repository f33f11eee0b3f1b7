"""The published models written out for reading, one query at a time: what the tests hold `models` against.

Nothing here comes from the project: it takes a spec and a dict of parameters by name, and torch's own convolution.
"""

import itertools
import math

import reference_family as family
import torch
import torch.nn.functional as F


def forward(spec, params, inp, coord, cell):
    """Colours (B, Q, 3) at `coord` (B, Q, 2), pixels being `cell` (B, Q, 2), of images `inp` (B, 3, h, w)."""
    args = dict(spec['args'])
    encoder = args.pop('encoder_spec')
    feats = encode(encoder['name'], below(params, 'encoder.'), inp, **encoder.get('args', {}))
    out = torch.stack([decode(spec['name'], params, *one, **args) for one in zip(feats, coord, cell, strict=True)])
    if args.get('residual', 'bilinear' if spec['name'] in ('lte', 'lte-fast', 'lmlte') else None) == 'bilinear':
        out = out + torch.stack([torch.stack([bilinear(img, *xy) for xy in xys.tolist()])
                                 for img, xys in zip(inp, coord, strict=True)])
    return out


def below(params, prefix):
    return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}


# --- encoders: Lim et al. 2017 (EDSR), Zhang et al. 2018 (RDN), Zhang et al. 2018 (RCAN) -------------------------


def encode(name, params, x, **args):
    if name == 'edsr':
        args = {'res_scale': 0.1, **args}
    return {'edsr-baseline': edsr, 'edsr': edsr, 'rdn': rdn, 'rcan': rcan, 'swinir': family.swinir}[name](
        params, x, **args)


def conv(params, name, x):
    weight = params[f'{name}.weight']
    return F.conv2d(x, weight, params[f'{name}.bias'], padding=weight.shape[-1] // 2)


def indices(params, prefix):
    return sorted({int(name.split('.')[0]) for name in below(params, prefix)})


def upsample(params, convs, last, x, scale):
    """A convolution and a pixel shuffle a factor of 2 (or one of 3), then the convolution to RGB."""
    factors = [3] if scale == 3 else [2] * round(math.log2(scale))
    for name, factor in zip(convs, factors, strict=False):
        x = F.pixel_shuffle(conv(params, name, x), factor)
    return conv(params, last, x)


def edsr(params, x, n_resblocks=None, n_feats=None, res_scale=1, scale=2, no_upsampling=False):
    head = y = conv(params, 'head.0', x)
    *blocks, last = indices(params, 'body.')
    for i in blocks:
        y = y + res_scale * conv(params, f'body.{i}.body.2', conv(params, f'body.{i}.body.0', y).relu())
    y = head + conv(params, f'body.{last}', y)
    return y if no_upsampling else upsample(params, ('tail.0.0', 'tail.0.2', 'tail.0.4'), 'tail.1', y, scale)


def rdn(params, x, G0=64, RDNkSize=3, RDNconfig='B', scale=2, no_upsampling=False):
    shallow = conv(params, 'SFENet1', x)
    y, outputs = conv(params, 'SFENet2', shallow), []
    for i in indices(params, 'RDBs.'):
        dense = y
        for j in indices(params, f'RDBs.{i}.convs.'):
            dense = torch.cat([dense, conv(params, f'RDBs.{i}.convs.{j}.conv.0', dense).relu()], dim=1)
        y = y + conv(params, f'RDBs.{i}.LFF', dense)
        outputs.append(y)
    y = shallow + conv(params, 'GFF.1', conv(params, 'GFF.0', torch.cat(outputs, dim=1)))
    return y if no_upsampling else upsample(params, ('UPNet.0', 'UPNet.2'), f'UPNet.{4 if scale == 4 else 2}', y, scale)


def rcan(params, x, n_resgroups=10, n_resblocks=20, n_feats=64, reduction=16, scale=2, no_upsampling=False):
    head = y = conv(params, 'head.0', x)
    *groups, last = indices(params, 'body.')
    for g in groups:
        group = y
        *blocks, tail = indices(params, f'body.{g}.body.')
        for b in blocks:
            block = f'body.{g}.body.{b}.body'
            z = conv(params, f'{block}.2', conv(params, f'{block}.0', y).relu())
            squeezed = conv(params, f'{block}.3.conv_du.0', z.mean(dim=(2, 3), keepdim=True)).relu()
            y = y + z * conv(params, f'{block}.3.conv_du.2', squeezed).sigmoid()
        y = group + conv(params, f'body.{g}.body.{tail}', y)
    y = head + conv(params, f'body.{last}', y)
    return y if no_upsampling else upsample(params, ('tail.0.0', 'tail.0.2', 'tail.0.4'), 'tail.1', y, scale)


# --- decoders: LIIF (Chen et al. 2021), A-LIIF (Li et al. 2022), Meta-SR (Hu et al. 2019) -------------------------


def decode(name, params, feat, coord, cell, expansion_spec=None, imnet_spec=None, feat_unfold=True,
           local_ensemble=True, cell_decode=True, **rest):
    """One sample: feat (C, h, w), coord and cell (Q, 2); gives (Q, 3)."""
    queries = list(zip(coord.tolist(), cell, strict=True))
    if name == 'liif' and imnet_spec is None:
        return torch.stack([nearest_pixel(feat, *xy) for xy, _ in queries])
    if name in ('lte', 'lte-fast', 'lmlte'):
        code = torch.cat([conv(params, 'coef', feat[None])[0], conv(params, 'freq', feat[None])[0]])
    else:
        code = unfold(feat) if feat_unfold else feat
    if name == 'lmliif':
        code = torch.cat([code, feat])
    feat, channels = code, len(feat)
    if name == 'metasr':
        return torch.stack([metasr(params, feat, xy, size) for xy, size in queries])
    if name == 'liif':
        def predict(code, rel_coord, rel_cell):
            return mlp(linears(params, 'imnet.layers.'), torch.cat([code, rel_coord, rel_cell]))
    elif name in ('lte', 'lte-fast'):
        def predict(code, rel_coord, rel_cell):
            return family.lte(params, mlp, name, code, rel_coord, rel_cell)
    elif name == 'lmliif':
        def predict(code, rel_coord, rel_cell):
            code, z = code.split((len(code) - channels, channels))
            return family.lm_liif(params, mlp, {'imnet_spec': imnet_spec, **rest}, code, z, rel_coord, rel_cell)
    elif name == 'lmlte':
        def predict(code, rel_coord, rel_cell):
            return family.lm_lte(params, mlp, {'imnet_spec': imnet_spec, **rest}, code, rel_coord, rel_cell)
    else:
        net = (expansion_spec or {}).get('args')

        def predict(code, rel_coord, rel_cell):
            mixed = mixing_weights(params, net, code, rel_coord, rel_cell)
            return mlp(mixture(params, mixed), torch.cat([code, rel_coord, rel_cell]))
    return torch.stack([query(feat, *xy, size, predict, local_ensemble, cell_decode) for xy, size in queries])


def query(feat, y, x, cell, predict, local_ensemble, cell_decode):
    """The prediction at (y, x) from its 4 nearest latent codes, or from the nearest one."""
    h, w = feat.shape[-2:]
    preds, areas = [], []
    for sign_y, sign_x in itertools.product((-1, 1), (-1, 1)) if local_ensemble else [(0, 0)]:
        i = index(clamp(y + sign_y / h + 1e-6 * abs(sign_y)), h)
        j = index(clamp(x + sign_x / w + 1e-6 * abs(sign_x)), w)
        rel_y, rel_x = (y - centre(i, h)) * h, (x - centre(j, w)) * w
        rel_cell = cell * cell.new_tensor([h, w]) if cell_decode else cell[:0]
        preds.append(predict(feat[:, i, j], feat.new_tensor([rel_y, rel_x]), rel_cell))
        areas.append(abs(rel_y * rel_x) + 1e-9)
    return sum(pred * area for pred, area in zip(preds, reversed(areas), strict=True)) / sum(areas)


def mixing_weights(params, net, code, rel_coord, rel_cell):
    """The K weights c_k, by the expansion net; a single 1 without one."""
    if net is None:
        return code.new_ones(1)
    seen = [code, rel_cell] if net.get('space') == 'pixel' else [code, rel_coord, rel_cell]
    c = mlp(linears(params, 'expansion.layers.'), torch.cat(seen))
    return c.softmax(dim=0) if net.get('norm') == 'softmax' else c / c.pow(2).sum().sqrt()


def mixture(params, c):
    """The implicit function's layers: W = sum_k c_k W_k, b = sum_k c_k b_k."""
    layers = []
    for i in indices(params, 'imnet.weights.'):
        weights, biases = params[f'imnet.weights.{i}'], params[f'imnet.biases.{i}']
        weight = sum(c_k * w_k for c_k, w_k in zip(c, weights, strict=True))
        bias = sum(c_k * b_k for c_k, b_k in zip(c, biases, strict=True))
        layers.append((weight.view(len(bias), -1), bias))
    return layers


def linears(params, prefix):
    return [(params[f'{prefix}{i}.weight'], params[f'{prefix}{i}.bias']) for i in indices(params, prefix)]


def mlp(layers, x):
    for n, (weight, bias) in enumerate(layers):
        x = weight @ (x.relu() if n else x) + bias
    return x


mlp.linears = linears


def metasr(params, feat, xy, cell):
    """The nearest code of coord - cell / 2 times the matrix that an MLP makes of the offset from that code's corner."""
    h, w = feat.shape[-2:]
    y, x = xy[0] - float(cell[0]) / 2, xy[1] - float(cell[1]) / 2
    i, j = index(clamp(y + 1e-6), h), index(clamp(x + 1e-6), w)
    corner_y, corner_x = centre(i, h) - 1 / h, centre(j, w) - 1 / w
    offset = [(y - corner_y) * h / 2, (x - corner_x) * w / 2] + [float(cell[0]) * h / 2]
    return feat[:, i, j] @ mlp(linears(params, 'imnet.layers.'), feat.new_tensor(offset)).view(-1, 3)


# --- latent codes ------------------------------------------------------------------------------------------------


def unfold(feat):
    """(C, h, w) with each pixel's 3x3 neighbours, zero outside, as channels: (C * 9, h, w), channel * 9 + tap."""
    h, w = feat.shape[-2:]
    padded = F.pad(feat, (1, 1, 1, 1))
    return torch.stack([padded[:, i:i + h, j:j + w] for i in range(3) for j in range(3)], dim=1).flatten(0, 1)


def centre(i, n):
    return -1 + (2 * i + 1) / n


def index(v, n):
    """The pixel, of an axis of n, that holds coordinate `v`; of two that share it as their edge the even one."""
    return round(((v + 1) * n - 1) / 2)


def clamp(v):
    return min(max(v, -1 + 1e-6), 1 - 1e-6)


def nearest_pixel(img, y, x):
    h, w = img.shape[-2:]
    return img[:, min(index(y, h), h - 1), min(index(x, w), w - 1)]


def bilinear(img, y, x):
    """The bilinear sample of img (C, h, w) at (y, x); beyond the outermost pixel centres the border's value."""
    (i0, i1, fy), (j0, j1, fx) = (support(v, n) for v, n in ((y, img.shape[-2]), (x, img.shape[-1])))
    top = img[:, i0, j0] * (1 - fx) + img[:, i0, j1] * fx
    bottom = img[:, i1, j0] * (1 - fx) + img[:, i1, j1] * fx
    return top * (1 - fy) + bottom * fy


def support(v, n):
    """The two pixels around coordinate `v` on an axis of n, and how far it is from the first to the second."""
    position = min(max(((v + 1) * n - 1) / 2, 0), n - 1)
    first = math.floor(position)
    return first, min(first + 1, n - 1), position - first

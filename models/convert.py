"""Translates checkpoints of other code: specs of LIIF, A-LIIF, LTE and LMF, mmagic's LIIF, bare state dicts."""

import re

import torch

from errors import UserError

BARE = 'params_ema', 'params', 'state_dict', 'model', ''  # where most keep a state dict ('': it is the whole file)
MMAGIC_NAMES = (  # (mmagic's, ours), of encoders and of the MLP; {} is how many blocks EDSR has
    (r'conv_first\.', 'encoder.head.0.'), (r'conv_after_body\.', 'encoder.body.{}.'),
    (r'body\.(\d+)\.conv1\.', r'encoder.body.\1.body.0.'), (r'body\.(\d+)\.conv2\.', r'encoder.body.\1.body.2.'),
    (r'sfe([12])\.', r'encoder.SFENet\1.'), (r'rdbs\.(\d+)\.lff\.', r'encoder.RDBs.\1.LFF.'),
    (r'rdbs\.(\d+)\.layers\.(\d+)\.conv\.', r'encoder.RDBs.\1.convs.\2.conv.0.'), (r'gff\.', 'encoder.GFF.'))
MMAGIC_NORM = {'sub': [0.4488, 0.4371, 0.4040], 'div': [1., 1., 1.]}  # of all its LIIF configs


def from_published(spec: dict) -> dict:
    """`spec` (name, args, perhaps sd) with this project's names; a spec that has them already is returned unchanged.

    A published A-LIIF is called `liif` and has `pdn_spec` (the expansion net) and `basis_spec` (the mixture's
    tensors) beside `imnet_spec`. Published EDSR and RCAN define a mean shift that they never use, and
    SwinIR keeps tables that follow from its window. LMF's specs have a `cmsr_spec`, which is allowed to be null.
    """
    spec = dict(spec)
    if (spec.get('args') or {}).get('cmsr_spec', '') is None:
        spec['args'] = {key: value for key, value in spec['args'].items() if key != 'cmsr_spec'}
    published = 'basis_spec' in (spec.get('args') or {})
    if published:
        args = dict(spec['args'])
        try:
            expansion, basis, imnet = (args.pop(k)['args'] for k in ('pdn_spec', 'basis_spec', 'imnet_spec'))
            args['expansion_spec'] = {'name': 'expansion-net', 'args': {
                'out_dim': expansion['out_dim'], 'hidden_list': expansion['hidden_list']}}
            args['imnet_spec'] = {'name': 'mlp-mixture', 'args': {
                'K': basis['basis_num'], 'out_dim': imnet['out_dim'], 'hidden_list': imnet['hidden_list']}}
        except KeyError as error:
            raise UserError(f'the spec of a published A-LIIF lacks {error}') from None
        except TypeError:
            raise UserError('pdn_spec, basis_spec and imnet_spec of a published A-LIIF must be specs, name and args, '
                            'and args keys and values') from None
        spec.update(name='a-liif', args=args)
    if 'sd' in spec:
        swinir = 'swinir' in (spec.get('name'), encoder_name(spec))
        shifted = encoder_name(spec) in ('edsr-baseline', 'edsr', 'rcan')
        spec['sd'] = {rename(k) if published else k: v for k, v in spec['sd'].items()
                      if not (shifted and re.match(r'encoder\.(sub|add)_mean\.', k)
                              or swinir and re.search(r'\.(relative_position_index|attn_mask)$', k))}
    return spec


def encoder_name(spec: dict) -> object:
    """The name of the encoder in the spec of a model; None if it has none."""
    encoder = (spec.get('args') or {}).get('encoder_spec')
    return encoder.get('name') if isinstance(encoder, dict) else None


def rename(key: str) -> str:
    """Our name of a published tensor."""
    key = re.sub(r'^pdn\.', 'expansion.', key)
    key = re.sub(r'^basis\.w(\d+)$', r'imnet.weights.\1', key)
    return re.sub(r'^basis\.bias(\d+)$', lambda m: f'imnet.biases.{int(m[1]) - 1}', key)


def unwrapped(state: dict) -> dict:
    """The state dict `state` without the prefixes that DataParallel and torch.compile add to names."""
    state = {name.replace('_orig_mod.', ''): tensor for name, tensor in state.items()}
    wrapped = all(name.startswith('module.') for name in state)
    return {name.removeprefix('module.') if wrapped else name: tensor for name, tensor in state.items()}


def is_state(value: object) -> bool:
    """Whether `value` is a state dict: names and their tensors."""
    return isinstance(value, dict) and bool(value) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items())


def bare_state(content: object) -> tuple[str, dict] | None:
    """The key and the state dict in the `content` of a file without a model's spec; None if there is none.

    Keys of `BARE` come first, then others such as 'net' or 'g_ema'.
    """
    parts = {**content, '': content} if isinstance(content, dict) else {}
    others = (key for key in parts if isinstance(key, str) and key.isidentifier() and len(key) < 50)
    return next(((key, parts[key]) for key in (*BARE, *others) if is_state(parts.get(key))), None)


def from_mmagic(content: object) -> dict | None:
    """The `content` of a file as a checkpoint in our terms if it is a LIIF saved by mmagic, else None.

    Such a file holds weights under `generator.` but no spec. That is inferred from their names and shapes, assuming
    that the local ensemble is on, and that data_norm is that of mmagic's configs.
    """
    found = bare_state(content)
    if not found:
        return None
    start = 'generator.'
    state = {name.removeprefix(start): tensor for name, tensor in unwrapped(found[1]).items() if name.startswith(start)}
    widths = {name.removesuffix('.bias'): tensor.numel() for name, tensor in state.items() if name.endswith('.bias')}
    hidden = [width for name, width in widths.items() if re.fullmatch(r'imnet\.layers\.\d+', name)]
    channels = widths.get('conv_first', widths.get('sfe1'))
    if not hidden or not channels or 'imnet.layers.0.weight' not in state:
        return None
    blocks = len({name.split('.')[1] for name in state if name.startswith(('body.', 'rdbs.'))})
    if 'sfe1' in widths:
        encoder = {'name': 'rdn', 'args': {'G0': channels, 'RDNconfig': 'A' if blocks == 20 else 'B'}}
    else:
        encoder = {'name': 'edsr-baseline', 'args': {'n_resblocks': blocks, 'n_feats': channels}}
    encoder['args']['no_upsampling'] = True
    in_dim = state['imnet.layers.0.weight'].shape[-1:].numel()
    unfolded = in_dim > 9 * channels
    args = {'encoder_spec': encoder, 'feat_unfold': unfolded,
            'cell_decode': in_dim == (9 if unfolded else 1) * channels + 4,
            'imnet_spec': {'name': 'mlp', 'args': {'out_dim': hidden.pop(), 'hidden_list': hidden}}}
    for theirs, ours in MMAGIC_NAMES:
        state = {re.sub(f'^{theirs}', ours.replace('{}', str(blocks)), name): state[name] for name in state}
    return {'model': {'name': 'liif', 'args': args, 'sd': state},
            'data_norm': {'inp': MMAGIC_NORM, 'gt': MMAGIC_NORM}}

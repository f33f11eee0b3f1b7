"""What other code's checkpoints hold, in our terms: the LIIF and A-LIIF authors' specs, wrapped or bare state dicts."""

import re

import torch

from utils import UserError

BARE = 'params_ema', 'params', 'state_dict', 'model', ''  # where others keep a state dict ('': it is the whole file)


def from_published(spec: dict) -> dict:
    """`spec` (name, args, perhaps sd) in our terms; one that already is comes back as it is.

    A published A-LIIF is called `liif` and has `pdn_spec` (the expansion net) and `basis_spec` (the mixture's
    tensors) beside `imnet_spec`. Published EDSR and RCAN define a mean shift that they never use,
    and SwinIR keeps tables that follow from its window.
    """
    spec = dict(spec)
    published = 'basis_spec' in (spec.get('args') or {})
    if published:
        args = dict(spec['args'])
        try:
            expansion, basis, imnet = (args.pop(k)['args'] for k in ('pdn_spec', 'basis_spec', 'imnet_spec'))
            args['expansion_spec'] = {'name': 'expansion-net', 'args': {
                'out_dim': expansion['out_dim'], 'hidden_list': expansion['hidden_list']}}
            args['imnet_spec'] = {'name': 'mlp-mixture', 'args': {
                'K': basis['basis_num'], 'out_dim': imnet['out_dim'], 'hidden_list': imnet['hidden_list']}}
        except (KeyError, TypeError) as error:
            raise UserError(f'the spec of a published A-LIIF lacks {error}') from None
        spec.update(name='a-liif', args=args)
    if 'sd' in spec:
        swinir = 'swinir' in (spec.get('name'), encoder_name(spec))
        shifted = encoder_name(spec) in ('edsr-baseline', 'edsr', 'rcan')
        spec['sd'] = {rename(k) if published else k: v for k, v in spec['sd'].items()
                      if not (shifted and re.match(r'encoder\.(sub|add)_mean\.', k)
                              or swinir and re.search(r'\.(relative_position_index|attn_mask)$', k))}
    return spec


def encoder_name(spec: dict) -> object:
    """What the spec of a model calls its encoder, None where it has none."""
    encoder = (spec.get('args') or {}).get('encoder_spec')
    return encoder.get('name') if isinstance(encoder, dict) else None


def rename(key: str) -> str:
    """The name here of a published tensor."""
    key = re.sub(r'^pdn\.', 'expansion.', key)
    key = re.sub(r'^basis\.w(\d+)$', r'imnet.weights.\1', key)
    return re.sub(r'^basis\.bias(\d+)$', lambda m: f'imnet.biases.{int(m[1]) - 1}', key)


def unwrapped(state: dict) -> dict:
    """The state dict `state` without what DataParallel and torch.compile put before the names of what they wrap."""
    state = {name.replace('_orig_mod.', ''): tensor for name, tensor in state.items()}
    wrapped = all(name.startswith('module.') for name in state)
    return {name.removeprefix('module.') if wrapped else name: tensor for name, tensor in state.items()}


def is_state(value: object) -> bool:
    """Whether `value` is a state dict: names and their tensors."""
    return isinstance(value, dict) and bool(value) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items())


def bare_state(content: object) -> tuple[str, dict] | None:
    """The state dict in a file's `content` that has no spec of its model, and its key there; None if there is none."""
    parts = {**content, '': content} if isinstance(content, dict) else {}
    return next(((key, parts[key]) for key in BARE if is_state(parts.get(key))), None)

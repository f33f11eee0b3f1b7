"""Models by name: `register` one, `make` it from a spec."""

import contextlib
import math
import re
import threading
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from config import Registry, parameters
from errors import UserError
from files import free_memory
from models.convert import from_published, unwrapped

registry = Registry('model')
register = registry.register


def make(spec: dict, args: dict | None = None, load_sd: bool = False) -> nn.Module:
    """The model that `spec` (name, args and, for `load_sd`, the state dict sd) describes; `args` override its own.

    Also accepts the specs and state dicts of LIIF, A-LIIF, LTE and LMF, and names with the prefixes of DataParallel and
    torch.compile. Raises UserError if a tensor is missing, unexpected or of another shape.
    """
    if load_sd:
        if not isinstance(spec, dict) or not isinstance(spec.get('sd'), dict):
            raise UserError('the spec has no sd, the weights to load')
        spec = {**spec, 'sd': unwrapped(spec['sd'])}
    if isinstance(spec, dict) and isinstance(spec.get('args'), dict):
        spec = from_published(spec)
    model = registry.make(spec, args)
    if load_sd:
        load_state(model, spec['sd'])
    return model


def make_model(spec: dict, load_sd: bool = False) -> nn.Module:
    """`make` for a whole model; UserError if `spec` describes a part, such as an encoder, or is too large to make."""
    with limited(spec.get('sd') if load_sd else None):
        model = make(spec, load_sd=load_sd)
    if not hasattr(model, 'query_rgb'):
        raise UserError(f"model {spec['name']} is only a part of a model: give a decoder with an encoder_spec")
    return model


def with_n_colors(spec: dict, n_colors: int) -> dict:
    """A model's `spec` with `n_colors`, the images' number of channels, in its encoder's arguments.

    It is not added if it is 3, which is the default. A number that the spec gives already is kept.
    """
    args = spec.get('args') if isinstance(spec, dict) else None
    encoder = args.get('encoder_spec') if isinstance(args, dict) else None
    own = (encoder.get('args') or {}) if isinstance(encoder, dict) else None
    if n_colors == 3 or not isinstance(own, dict):  # `make` reports what is not a spec
        return spec
    encoder_class = registry.classes.get(encoder.get('name'))
    if encoder_class and 'n_colors' not in parameters(encoder_class):  # a user's encoder, for 3 channels
        return spec
    return {**spec, 'args': {**args, 'encoder_spec': {**encoder, 'args': {'n_colors': n_colors, **own}}}}


def with_defaults(spec: dict) -> dict:
    """A model's `spec` in which arguments that are left out have their defaults; without its state dict."""
    known = parameters(registry.classes[spec['name']])
    defaults = {key: p.default for key, p in known.items() if p.default is not p.empty}
    args = {key: list(value) if isinstance(value, tuple) else value  # as in YAML
            for key, value in {**defaults, **(spec.get('args') or {})}.items()}
    return {'name': spec['name'], 'args': {
        key: with_defaults(value) if isinstance(value, dict) and value.get('name') in registry.classes else value
        for key, value in args.items()}}


@contextlib.contextmanager
def limited(state: dict | None) -> Iterator[None]:
    """Raises a UserError as soon as a model that is made inside needs more memory than is free.

    It is raised, too, if the model becomes far larger than the weights `state` that it will load. Four times their size
    is allowed, since parametrizations replace tensors by others. Models that other threads make meanwhile do not count.
    """
    free, size, count, thread = free_memory(), 0, 0, threading.get_ident()
    most = (4 * len(state) + 100, 4 * sum(t.nbytes for t in state.values()) + 10_000) if state else (math.inf, math.inf)

    def weigh(module, name, parameter):  # called before a parameter is filled: only that takes memory
        nonlocal size, count
        if threading.get_ident() != thread:  # the hook is called in all threads
            return
        size, count = size + (0 if parameter is None else parameter.nbytes), count + 1
        if size > free:
            raise UserError(f'the model needs more memory than the {free / 2**30:.1f} GB that are free')
        if count > most[0] or size > most[1]:
            raise UserError('the weights do not fit the model: it is far larger')

    hook = register_module_parameter_registration_hook(weigh)
    try:
        yield
    except (RuntimeError, TypeError, OverflowError) as error:  # PyTorch's, for sizes that no memory holds
        if re.search("can't allocate memory|[Oo]verflow|too large to convert", str(error)):
            raise UserError('the model needs more memory than there is') from None
        raise
    finally:
        hook.remove()


def load_state(model: nn.Module, state: dict) -> None:
    """Loads the state dict `state` into `model`; no tensor may be missing, unexpected or of another shape or kind."""
    own = model.state_dict()
    both = [(k, state[k], own[k]) for k in own if k in state]
    kinds = ([f'{k} is missing' for k in own if k not in state], [f'{k} is unexpected' for k in state if k not in own],
             [f'{k} is {tuple(a.shape)} instead of {tuple(b.shape)}' for k, a, b in both if a.shape != b.shape],
             [f'{k} is {a.dtype} instead of {b.dtype}' for k, a, b in both
              if a.is_floating_point() != b.is_floating_point()])
    told = [problem for problems in kinds for problem in problems[:2]]  # some of each kind
    if told:
        rest = sum(map(len, kinds)) - len(told)
        raise UserError(f'the weights do not fit the model: {", ".join(told)}{f", and {rest} more" if rest else ""}')
    model.load_state_dict(state)

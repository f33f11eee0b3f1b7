"""Models by name: `register` one, `make` it from a spec, import a user's own."""

import argparse
import importlib

from torch import nn

from models.convert import from_published
from utils import Registry, UserError

registry = Registry('model')
register = registry.register


def make(spec: dict, args: dict | None = None, load_sd: bool = False) -> nn.Module:
    """The model that `spec` (name, args and, for `load_sd`, the state dict sd) describes; `args` win over its own.

    Takes the LIIF and A-LIIF authors' specs and state dicts too. Raises UserError if a tensor is missing, unexpected
    or of another shape.
    """
    if isinstance(spec, dict) and isinstance(spec.get('args'), dict):
        spec = from_published(spec)
    model = registry.make(spec, args)
    if load_sd:
        load_state(model, spec['sd'])
    return model


def make_model(spec: dict, load_sd: bool = False) -> nn.Module:
    """`make` for a whole model; UserError where `spec` is one of a part, as an encoder."""
    model = make(spec, load_sd=load_sd)
    if not hasattr(model, 'query_rgb'):
        raise UserError(f"model {spec['name']} is a part of models: it must be a decoder, with an encoder_spec")
    return model


def load_state(model: nn.Module, state: dict) -> None:
    """Loads the state dict `state` into `model`; every tensor must be there, be known and fit."""
    own = model.state_dict()
    problems = [f'{k} is missing' for k in own if k not in state]
    problems += [f'{k} is unexpected' for k in state if k not in own]
    problems += [f'{k} is {tuple(state[k].shape)} instead of {tuple(own[k].shape)}'
                 for k in own if k in state and state[k].shape != own[k].shape]
    if problems:
        more = f', and {len(problems) - 3} more' if len(problems) > 3 else ''
        raise UserError(f'the weights do not fit the model: {", ".join(problems[:3])}{more}')
    model.load_state_dict(state)


def import_module(name: str) -> None:
    """Imports the user's Python module `name`, whose classes register themselves."""
    if not all(part.isidentifier() for part in name.split('.')):
        raise UserError(f'--import: {name!r} is no name of a module; examples/own_model.py is examples.own_model')
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if f'{name}.'.startswith(f'{error.name}.'):  # not one that the module itself asks for
            raise UserError(f'--import: there is no module {name!r}; its folder must be that of the '
                            'script, or in PYTHONPATH') from None
        raise


class Import(argparse.Action):
    """Imports the module that the option names. As a `type`, argparse would take the module's own errors for its."""

    def __call__(self, parser, namespace, values, option_string=None):
        import_module(values)


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Adds --import to an argparse `parser`. It is an option, since a config or checkpoint must not run code."""
    parser.add_argument('--import', action=Import, metavar='MODULE',
                        help='a Python module that registers models, datasets or optimizers, as examples.own_model')

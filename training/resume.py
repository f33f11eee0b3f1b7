"""Checks and restores what a run's checkpoint holds besides weights: the optimizer's state and the run's progress."""

import math

import torch

from config import check_extent
from errors import UserError, quoted
from models.checkpoint import check_state
from training.optim import make_optimizer

PROGRESS = 'iteration', 'best', 'loss_sum', 'loss_count'  # attributes of the trainer, besides its epoch


def restore_optimizer(optimizer: torch.optim.Optimizer, spec: dict, parameters: list, saved: object) -> None:
    """Restores the state of `optimizer`, which was made from `spec` for `parameters`.

    `saved`: what a checkpoint holds of its optimizer, a spec with the state as `sd`. Settings such as weight decay
    remain those of `spec`. UserError if the state does not belong to such an optimizer.
    """
    if not isinstance(saved, dict) or not isinstance(saved.get('name'), str) or not isinstance(saved.get('sd'), dict):
        raise UserError(f'its optimizer must be a name and the state sd, not {quoted(saved)}')
    if saved['name'] != spec['name']:
        raise UserError(f"its optimizer is {quoted(saved['name'])}, not {spec['name']!r}: keep it, or start from the "
                        'weights alone (weights_from)')
    check_extent(saved['sd'], lambda node: [*node, *node.values()] if isinstance(node, dict) else
                 node if isinstance(node, list | tuple) else ())
    state, example = saved['sd'], stepped(spec, parameters)
    check_groups(state.get('param_groups'), example['param_groups'])
    check_values(state.get('state'), example['state'], sum(len(group['params']) for group in example['param_groups']))
    groups = [{**own, 'params': group['params'], 'lr': float(group['lr'])}
              for group, own in zip(state['param_groups'], optimizer.param_groups, strict=True)]
    optimizer.load_state_dict({'state': state['state'], 'param_groups': groups})
    for parameter, values in optimizer.state.items():  # in the parameter's memory format, as fused Adam needs
        values.update({k: torch.empty_like(parameter).copy_(v) for k, v in values.items()
                       if getattr(v, 'shape', None) == parameter.shape})


def stepped(spec: dict, parameters: list) -> dict:
    """The state dict of an optimizer made from `spec` after a step: an example of what it holds.

    The step is made on copies of the `parameters`, with gradients of zero.
    """
    copies = [parameter.detach().clone().requires_grad_(parameter.requires_grad) for parameter in parameters]
    for copy in copies:
        copy.grad = torch.zeros_like(copy) if copy.requires_grad else None
    optimizer = make_optimizer(spec, copies)
    optimizer.step()
    return optimizer.state_dict()


def check_groups(groups: object, example: list[dict]) -> None:
    """Raises a UserError unless `groups` have a learning rate and the same parameters, by number, as the `example`."""
    def numbers(group):
        listed = group.get('params') if isinstance(group, dict) else None
        return listed if isinstance(listed, list) and all(type(number) is int for number in listed) else []

    def count_text(lists):
        return f'{sum(map(len, lists))} parameters in {len(lists)} group{"s" * (len(lists) != 1)}'

    expected = [group['params'] for group in example]
    found = [numbers(group) for group in groups] if isinstance(groups, list) else []
    if found != expected:
        raise UserError(f"its optimizer's param_groups must list this model's {count_text(expected)}, by number, but "
                        f'list {count_text(found)}')
    for group in groups:
        if not is_number(group.get('lr')):
            raise UserError(f"its optimizer's lr is {quoted(group.get('lr'))}, not a finite number")


def check_values(state: object, example: dict, count: int) -> None:
    """Raises a UserError unless `state` holds, for some of `count` parameters, values like those of the `example`.

    Further values are allowed, since an optimizer may need some only after several steps.
    """
    if not isinstance(state, dict):
        raise UserError(f"its optimizer's state must be values by the numbers of parameters, not {quoted(state)}")
    for number, values in state.items():
        if type(number) is not int or not 0 <= number < count:
            raise UserError(f"its optimizer's state is of a parameter {quoted(number)}, but there are {count}")
        where = f"its optimizer's state of parameter {number}"
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise UserError(f'{where} must be values by their names, not {quoted(values)}')
        known = example.get(number, {})
        if values and (missing := [name for name in known if name not in values]):  # none: it starts anew
            raise UserError(f'{where} lacks {missing[0]}')
        for name, value in values.items():
            check_like(f'{where}: {quoted(name)}', value, known.get(name, value))
        if is_count(known.get('step')) and values and values['step'] < 0:
            raise UserError(f'{where}: step is {values["step"]:g}, but must be 0 or more')


def check_like(where: str, value: object, example: object) -> None:
    """Raises a UserError, naming `where`, unless `value` is finite and has the type and the shape of the `example`."""
    if isinstance(example, torch.Tensor):
        check_state({where: value})
        if (value.shape, value.dtype) != (example.shape, example.dtype):
            kinds = [f'{str(tensor.dtype).removeprefix("torch.")} {tuple(tensor.shape)}' for tensor in (value, example)]
            raise UserError(f'{where} is {kinds[0]} instead of {kinds[1]}')
    elif type(example) in (int, float):
        if not is_number(value):
            raise UserError(f'{where} is {quoted(value)}, not a finite number')
    elif type(value) is not type(example):
        raise UserError(f'{where} is {quoted(value)}, not of the kind of {quoted(example)}')
    elif isinstance(value, dict):
        for key, part in value.items():
            check_like(f'{where}: {quoted(key)}', part, example.get(key, part))
    elif isinstance(value, list | tuple):
        for part in value:
            check_like(where, part, part)


def check_progress(state: dict, losses: int) -> None:
    """Raises a UserError unless the progress in the checkpoint `state` is possible in a run with this many `losses`."""
    best, sums, count = (state.get(key) for key in ('best', 'loss_sum', 'loss_count'))
    known = {'best': is_number(best) or type(best) is float and best == -math.inf,
             'loss_sum': isinstance(sums, list) and len(sums) == losses and all(map(is_number, sums)),
             'loss_count': type(count) is int and count >= bool(state['iteration']),
             'seconds': is_number(state.get('seconds', 0.)) and state.get('seconds', 0.) >= 0,
             'start_psnr': is_number(state.get('start_psnr', 0.))}
    for key, good in known.items():
        if not good:
            raise UserError(f'its {key} is {quoted(state.get(key))}, which no run has')


def is_count(value: object) -> bool:
    """Whether `value` may be a number of steps, which optimizers of PyTorch keep as a tensor."""
    return type(value) in (int, float) or isinstance(value, torch.Tensor) and value.dim() == 0


def is_number(value: object) -> bool:
    """Whether `value` is a number of Python, and finite in float32 as well."""
    return type(value) in (int, float) and abs(value) <= torch.finfo(torch.float32).max

"""The optimizer's state in a checkpoint: a run goes on with one that fits, and refuses any other in one line."""

import copy
import random

import fuzz
import pytest
import torch

from errors import UserError
from training.optim import optimizers


def resumed(change, folder, optimizer='adam'):
    """What is told when a run of Adam goes on after `change(state)` of its checkpoint; None if it goes on."""
    state = copy.deepcopy(fuzz.saved_run('adam'))
    change(state)
    torch.save(state, folder / 'a.pth')
    try:
        fuzz.resume(folder / 'a.pth', optimizer)
    except UserError as error:
        return str(error).removeprefix(f'{folder}/a.pth: ')


def values(state):
    """What Adam keeps of the first parameter, of 4x3x3x3."""
    return state['optimizer']['sd']['state'][0]


def groups(state):
    return state['optimizer']['sd']['param_groups']


MUST_LIST = "its optimizer's param_groups must list this model's 14 parameters in 1 group, by number, but list "
OF_FIRST = "its optimizer's state of parameter 0"
BAD = {
    'no optimizer': (lambda s: s.pop('optimizer'), 'its optimizer must be a name and the state sd, not None'),
    'another name': (lambda s: s['optimizer'].update(name='a\nb'), "its optimizer is 'a\\nb', not 'adam': keep it"),
    'a list': (lambda s: s.update(optimizer=[1]), 'its optimizer must be a name and the state sd, not [1]'),
    'no state': (lambda s: s['optimizer'].update(sd={}), f'{MUST_LIST}0 parameters in 0 groups'),
    'state of a wrong type': (lambda s: s['optimizer']['sd'].update(state=[]),
                              "its optimizer's state must be values by the numbers of parameters, not []"),
    'missing key': (lambda s: values(s).pop('exp_avg'), f'{OF_FIRST} lacks exp_avg'),
    'wrong shape': (lambda s: values(s).update(exp_avg=torch.zeros(2, 3)),
                    f"{OF_FIRST}: 'exp_avg' is float32 (2, 3) instead of float32 (4, 3, 3, 3)"),
    'wrong type': (lambda s: values(s).update(exp_avg=values(s)['exp_avg'].double()),
                   f"{OF_FIRST}: 'exp_avg' is float64 (4, 3, 3, 3) instead of float32 (4, 3, 3, 3)"),
    'no tensor': (lambda s: values(s).update(exp_avg_sq='x'), f"{OF_FIRST}: 'exp_avg_sq' is 'x', not a tensor"),
    'NaN step': (lambda s: values(s).update(step=torch.tensor(torch.nan)),
                 f"{OF_FIRST}: 'step' has values that are not finite"),
    'step before the first': (lambda s: values(s).update(step=torch.tensor(-1.)),
                              f'{OF_FIRST}: step is -1, but must be 0 or more'),
    'infinite average': (lambda s: values(s)['exp_avg_sq'].fill_(torch.inf),
                         f"{OF_FIRST}: 'exp_avg_sq' has values that are not finite"),
    'another parameter': (lambda s: s['optimizer']['sd']['state'].update({14: values(s)}),
                          "its optimizer's state is of a parameter 14, but there are 14"),
    'fewer parameters': (lambda s: groups(s)[0]['params'].pop(), f'{MUST_LIST}13 parameters in 1 group'),
    'another group': (lambda s: groups(s).append(groups(s)[0]), f'{MUST_LIST}28 parameters in 2 groups'),
    'no groups': (lambda s: groups(s).clear(), f'{MUST_LIST}0 parameters in 0 groups'),
    'learning rate': (lambda s: groups(s)[0].update(lr='1'), "its optimizer's lr is '1', not a finite number"),
    'rate beyond float32': (lambda s: groups(s)[0].update(lr=1e308),
                            "its optimizer's lr is 1e+308, not a finite number"),
    'endless': (lambda s: values(s).update(more=nested(60)), 'is nested more than 50 levels deep'),
    'best': (lambda s: s.update(best='x'), "its best is 'x', which no run has"),
    'several best': (lambda s: s.update(best=torch.zeros(2)), 'its best is tensor([0., 0.]), which no run has'),
    'other losses': (lambda s: s.update(loss_sum=[1., 2.]), 'its loss_sum is [1.0, 2.0], which no run has'),
    'no samples': (lambda s: s.update(loss_count=0), 'its loss_count is 0, which no run has'),
}


def nested(depth):
    return [nested(depth - 1)] if depth else 0.


@pytest.mark.parametrize('change, told', BAD.values(), ids=BAD)
def test_a_state_that_does_not_fit_is_refused_in_a_line_that_says_what_is_wrong(tmp_path, change, told):
    message = resumed(change, tmp_path)
    assert message.startswith(told) and len(message.splitlines()) == 1


GOOD = {
    'as it was': lambda s: None,
    'a parameter without a gradient so far': lambda s: s['optimizer']['sd']['state'].pop(0),
    'the same, with nothing': lambda s: values(s).clear(),
    'what is needed only later': lambda s: values(s).update(slow=torch.zeros(7)),
    'no validation yet': lambda s: s.update(best=-torch.inf)}


@pytest.mark.parametrize('change', GOOD.values(), ids=GOOD)
def test_a_state_that_fits_is_used(tmp_path, change):
    assert resumed(change, tmp_path) is None


def test_an_optimizer_of_ones_own_is_compared_with_itself(tmp_path, monkeypatch):
    class Rows(torch.optim.Optimizer):
        """Keeps a mean for each row, and how often it was called as a number."""

        def __init__(self, params):
            super().__init__(params, {'lr': 1e-3})

        def step(self):
            for parameter in self.param_groups[0]['params']:
                state = self.state[parameter]
                state['calls'] = state.get('calls', 0) + 1
                state['rows'] = state.get('rows', 0) + parameter.grad.view(len(parameter), -1).mean(1)

    monkeypatch.setitem(optimizers.classes, 'rows', lambda params: Rows(params))
    monkeypatch.setitem(fuzz.OPTIMIZERS, 'rows', {'name': 'rows', 'args': {}})
    state = copy.deepcopy(fuzz.saved_run('rows'))
    torch.save(state, tmp_path / 'a.pth')
    fuzz.resume(tmp_path / 'a.pth', 'rows')
    state['optimizer']['sd']['state'][0]['rows'] = torch.zeros(5)
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r"'rows' is float32 \(5,\) instead of float32 \(4,\)"):
        fuzz.resume(tmp_path / 'a.pth', 'rows')


@fuzz.each_seed
def test_any_damage_to_the_state_of_a_run_is_refused_in_one_line_or_harmless(seed, tmp_path):
    fuzz.try_resume(random.Random(seed), tmp_path / 'a.pth')

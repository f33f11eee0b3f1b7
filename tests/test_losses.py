"""Losses: their values, their weights, and how a run logs them."""

import math

import pytest
import torch
from projects import CONFIG, Project, assert_same, stop

from errors import UserError
from training.losses import Losses

PRED, GT = torch.tensor([[[0.5, 0, 0], [1, 1, 1]]]), torch.tensor([[[0.5, 3, 0], [1, 1, -3]]])  # differences 3 and 4
TWO = [{'name': 'l1', 'weight': 0.25}, {'name': 'mse'}]


@pytest.mark.parametrize('spec, expected', [
    ({'name': 'l1'}, 7 / 6), ({'name': 'mse'}, 25 / 6),
    ({'name': 'charbonnier', 'args': {'eps': 4}}, (5 + math.sqrt(32) + 4 * 4) / 6),
    ({'name': 'charbonnier'}, (7 + 4 * 1e-3) / 6)])
def test_a_loss_is_the_mean_over_colours(spec, expected):
    assert Losses(spec)(PRED, GT).tolist() == pytest.approx([expected], rel=1e-6)


def test_the_total_is_the_weighted_sum():
    losses = Losses(TWO)
    assert losses.total(losses(PRED, GT)).item() == pytest.approx(0.25 * 7 / 6 + 25 / 6)


def test_losses_of_one_name_are_told_apart():
    spec = [{'name': 'charbonnier', 'args': {'eps': eps}} for eps in (0.1, 0.2)]
    assert Losses([*spec, {'name': 'l1'}]).names == ['charbonnier', 'charbonnier-2', 'l1']


def test_the_gradient_of_equal_colours_is_finite():
    pred = GT.clone().requires_grad_()
    Losses([{'name': name} for name in ('l1', 'mse', 'charbonnier')])(pred, GT).sum().backward()
    assert torch.equal(pred.grad, torch.zeros(1, 2, 3))


def test_colours_of_another_shape_than_the_targets_are_an_error():
    with pytest.raises(UserError, match=r'gives colours \(1, 4, 1\) where the targets are \(1, 4, 3\)'):
        Losses({'name': 'charbonnier'})(torch.zeros(1, 4, 1), torch.zeros(1, 4, 3))


@pytest.mark.parametrize('spec, told', [
    ([], 'loss is empty'), ({'name': 'l2'}, "unknown loss 'l2'"), ({'name': 'l1', 'weight': 0}, 'above 0, not 0'),
    ({'name': 'l1', 'weight': 'much'}, "must be float, not 'much'"), ([{'name': 'l1', 'weight': math.inf}], 'not inf'),
    ([3], 'given as name and args, not 3'), ({'name': 'mse', 'args': {'eps': 1}}, "loss mse: unknown key 'eps'"),
    ({'name': 'charbonnier', 'args': {'eps': 0}}, 'loss charbonnier: eps must be above 0')])
def test_a_wrong_loss_is_an_error(spec, told):
    with pytest.raises(UserError, match=told):
        Losses(spec)


# --- in a run ------------------------------------------------------------------------------------------------------


def weights(undisturbed, loss, lr):
    changes = {'loss': loss, 'optimizer': {'name': 'sgd', 'args': {'lr': lr}}, 'epoch_max': 1}
    return dict(undisturbed(changes)['epoch-last.pth']['model']['sd'])


def test_l1_is_the_default(undisturbed):
    assert 'loss' not in CONFIG
    assert_same(dict(undisturbed({'loss': {'name': 'l1'}})['epoch-last.pth']['model']['sd']),
                dict(undisturbed({})['epoch-last.pth']['model']['sd']))


def test_a_weight_scales_the_gradient(undisturbed):
    assert_same(weights(undisturbed, {'name': 'l1', 'weight': 2}, 0.01),
                weights(undisturbed, {'name': 'l1'}, 0.02))


def test_the_losses_of_a_list_add_up(undisturbed):
    halves = [{'name': 'mse', 'weight': 0.5}, {'name': 'mse', 'weight': 0.5}]
    one, two = weights(undisturbed, {'name': 'mse'}, 0.01), weights(undisturbed, halves, 0.01)
    assert not torch.equal(one['imnet.biases.1'], weights(undisturbed, {'name': 'l1'}, 0.01)['imnet.biases.1'])
    for name in one:
        torch.testing.assert_close(one[name], two[name])


def logged(project):
    events = project.events()
    return {tag: events[tag] for tag in ('loss', 'loss/l1', 'loss/mse')}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A project after an undisturbed run with TWO losses."""
    project = Project(tmp_path_factory.mktemp('whole'), {'loss': TWO})
    project.train()
    return project


def test_each_loss_is_logged_by_itself(whole):
    events = logged(whole)
    for epoch in (1, 2, 3):
        loss, l1, mse = (values[epoch] for values in events.values())
        assert loss == pytest.approx(0.25 * l1 + mse, rel=1e-5) and 0 < mse != l1 > 0
        line = f'epoch {epoch}/3, train: loss={loss:.4f} loss/l1={l1:.4f} loss/mse={mse:.4f}, val'
        assert line in (whole.run / 'log.txt').read_text()


def test_a_resumed_epoch_logs_the_losses_of_all_its_samples(tmp_path, whole):
    project = Project(tmp_path, {'loss': TWO})
    stop(project, 5)
    project.train('--resume')
    for tag, values in logged(project).items():
        assert values[2] == logged(whole)[tag][2]

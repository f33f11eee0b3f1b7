"""scripts/export_weights.py: finished weights for pretrained/, and unfinished ones to continue a run from."""

import sys

import pytest
import torch
from training import Project, record

import models
from scripts import export_weights


@pytest.fixture
def project(tmp_path, monkeypatch):
    project = Project(tmp_path, {'ema': 0.9, 'epoch_max': 2})
    project.train()
    monkeypatch.chdir(tmp_path)
    return project


def export(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['export_weights.py', 'save/_tiny/epoch-last.pth', *args])
    export_weights.main()


def test_finished_weights_are_the_averaged_ones(project, monkeypatch):
    export(monkeypatch, 'weights/tiny.pth')
    model = models.load('weights/tiny.pth')
    for key, value in project.checkpoint()['ema'].items():
        assert torch.equal(model.state_dict()[key], value) and value.dtype == torch.float32
    assert 'optimizer' not in torch.load('weights/tiny.pth', weights_only=True)


def test_a_run_is_continued_from_unfinished_weights_and_their_average(project, monkeypatch):
    export(monkeypatch, 'unfinished.pth', '--unfinished')
    before = project.checkpoint()
    project.change({'ema': 0.9, 'epoch_max': 3, 'resume': 'unfinished.pth'})

    def weights(trainer):
        return trainer.epoch, dict(trainer.model.state_dict()), dict(trainer.ema.state_dict())

    epoch, latest, average = record(project, lambda trainer: [
        part if isinstance(part, int) else {key: value.clone() for key, value in part.items()}
        for part in weights(trainer)], '--overwrite')[0]
    assert epoch == 2
    for found, expected in ((latest, before['model']['sd']), (average, before['ema'])):
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-6)

"""What a run logs: lines, numbers and pictures for each epoch."""

import contextlib
import io
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from projects import Project, assert_same, write_photos
from tqdm import tqdm

import devices
from training import preview
from training.log import Log
from training.trainer import Trainer


@pytest.fixture(autouse=True)
def all_previews(monkeypatch):
    """As many previews as users get."""
    monkeypatch.setattr('projects.FEW', {'IMAGES': preview.IMAGES, 'SCALES': preview.SCALES})


def test_validation_images_of_a_few_pixels_have_no_previews_at_scales_that_leave_nothing(tmp_path):
    project = Project(tmp_path, {'epoch_max': 1, 'val_dataset.wrapper.args': {'scale_min': 1},
                                 'val_dataset.dataset.args': {'root_path': 'narrow'}, 'val_dataset.batch_size': 1})
    write_photos(tmp_path / 'narrow', 1, height=3, width=50)
    project.train()
    assert [tag for tag in project.events() if tag.startswith('preview/psnr')] == [
        'preview/psnr_image1_x2', 'preview/psnr_image1_x3']


def test_log_txt_holds_a_line_for_each_epoch(project):
    project.train()
    start, *epochs = project.log()
    assert start.startswith('save/_tiny: starts with epoch 1/3, iteration 1;')
    assert start.endswith(f', {torch.get_num_threads()} threads')  # for as many the weights are the same, bit for bit
    events = project.events()
    for i, line in enumerate(epochs, 1):
        assert line.startswith(f'epoch {i}/3, train: loss={events["loss"][i]:.4f}, val: psnr={events["psnr"][i]:.4f}, ')


def test_a_line_of_the_log_does_not_run_on_from_the_progress_bar(tmp_path):
    terminal = io.StringIO()
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal), tqdm(total=2, leave=False):
        Log(tmp_path, active=True).line('epoch 1/3, 2.0m left')
    assert '\repoch 1/3, 2.0m left\n' in terminal.getvalue()


def test_tensorboard_shows_numbers_for_each_epoch(tmp_path):
    project = Project(tmp_path, {'epoch_val': 2})
    project.train()
    events = project.events()
    for tag in ('loss', 'lr', 'samples_per_second', 'peak_memory_bytes'):
        assert sorted(events[tag]) == [1, 2, 3]
    assert all(rate > 0 for rate in events['samples_per_second'].values())
    assert all(2 ** 26 < size < 2 ** 36 for size in events['peak_memory_bytes'].values())
    assert sorted(events['psnr']) == [2, 3]  # every second epoch, and the last one, whose weights are final


@pytest.mark.parametrize('system, unit', [('linux', 1024), ('darwin', 1)])
def test_peak_memory_is_in_bytes_on_every_system(monkeypatch, system, unit):
    monkeypatch.setattr(devices.sys, 'platform', system)
    with mock.patch('resource.getrusage', return_value=mock.Mock(ru_maxrss=5)):
        assert devices.peak_memory(torch.device('cpu')) == 5 * unit
    monkeypatch.setitem(devices.sys.modules, 'resource', None)  # as on Windows
    assert devices.peak_memory(torch.device('cpu')) == 0


def test_the_logged_loss_weighs_each_sample_the_same(tmp_path):
    project, losses, step = Project(tmp_path, {'epoch_max': 1}), [], Trainer.step

    def recorded(trainer, batch, *args):
        losses.append((step(trainer, batch, *args).item(), len(batch['inp'])))
        return torch.tensor([losses[-1][0]])

    with mock.patch.object(Trainer, 'step', recorded):
        project.train()
    assert [size for _, size in losses] == [2, 2, 1]
    assert project.events()['loss'][1] == pytest.approx(sum(loss * size for loss, size in losses) / 5)


def test_each_epoch_sees_other_samples_and_validation_the_same(tmp_path):
    project = Project(tmp_path, {'optimizer': {'name': 'sgd', 'args': {'lr': 0}}})
    project.train()
    events = project.events()
    assert len(set(events['psnr'].values())) == 1
    assert len(set(events['loss'].values())) == 3


def test_tensorboard_shows_fixed_crops_with_their_psnr(project):
    project.train()
    events = project.events()
    names = [f'image{i}_x{scale}' for i in (1, 2) for scale in (2, 3, 4)]
    assert sorted(tag for tag in events if tag.startswith('preview/i')) == [f'preview/{name}' for name in names]
    for name in names:
        strips = [np.asarray(Image.open(io.BytesIO(events[f'preview/{name}'][i].encoded_image_string))).astype(int)
                  for i in (1, 3)]
        first, last = ([part / 255 for part in np.split(strip, 4, axis=1)] for strip in strips)
        for i in (0, 1, 3):  # low resolution, bicubic and truth
            assert np.array_equal(first[i], last[i])
        assert not np.array_equal(first[2], last[2])
        psnr = -10 * np.log10(((last[2] - last[3]) ** 2).mean())
        assert events[f'preview/psnr_{name}'][3] == pytest.approx(psnr, abs=0.05)


def test_the_truth_of_a_picture_strip_is_the_centre_of_the_photo(project):
    project.train()
    strip = Image.open(io.BytesIO(project.events()['preview/image1_x4'][1].encoded_image_string))
    low, bicubic, _, truth = np.split(np.asarray(strip), 4, axis=1)
    photo = np.asarray(Image.open(project.folder / 'photos/0.png'))[:, 5:45]
    assert np.array_equal(truth, photo)
    small = np.asarray(Image.fromarray(photo).resize((10, 10), Image.BICUBIC))
    assert np.array_equal(low, small.repeat(4, axis=0).repeat(4, axis=1))
    assert np.abs(bicubic.astype(int) - truth).mean() < np.abs(low.astype(int) - truth).mean()


def test_validation_samples_are_the_same_for_all_seeds(project, monkeypatch):
    seen = []
    monkeypatch.setattr(Trainer, 'validate', lambda trainer, loader: seen.extend(loader) or 0.)
    project.change({'epoch_max': 1})
    for seed in '0', '1':
        project.train('--seed', seed, '--overwrite')
    assert len(seen) == 2
    assert_same(*seen)


def test_images_that_no_picture_can_be_made_of_do_not_end_the_run(project):
    write_photos(project.folder / 'small', 2, 30, 30)
    write_photos(project.folder / 'large', 2, 50, 50)
    project.change({'epoch_max': 1, 'val_dataset.dataset': {
        'name': 'paired-image-folders', 'args': {'root_path_1': 'small', 'root_path_2': 'large'}},
        'val_dataset.wrapper': {'name': 'sr-implicit-uniform-varied',
                                'args': {'size_min': 20, 'size_max': 24, 'gt_resize': 20, 'sample_q': 16}}})
    project.train()
    assert 'psnr' in project.events()
    assert not any(tag.startswith('preview') for tag in project.events())

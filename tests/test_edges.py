"""scripts/edges.py: what it calls an edge, its distance, overshoot and ringing, and the script as a whole."""

import json
import sys

import numpy as np
import pytest
from specs import make_checkpoint
from upscaling import RANDOM, silence

from scripts import edges

STEP = np.repeat(np.where(np.arange(40) < 20, 0.25, 0.75)[None], 30, axis=0)  # its edge pixels: columns 19 and 20
COLUMNS = [2, 2, 4, 8, 24]  # in each band: 19, 20 | 18, 21 | 16, 17, 22, 23 | 12-15, 24-27 | the rest


def bands(pred, truth=STEP, scale=2):
    return edges.measure(pred, truth, scale)


def test_pixels_are_counted_by_their_distance_from_an_edge():
    assert (bands(STEP)[:, 0] / 30).tolist() == COLUMNS


def test_the_truth_itself_has_no_error_and_does_not_ring():
    assert not bands(STEP)[:, 1:].any()


def test_an_error_counts_in_its_band_in_levels():
    pred = STEP.copy()
    pred[:, 22] -= 10 / 255
    assert bands(pred)[:, 1] == pytest.approx([0, 0, 300, 0, 0])


def test_what_lies_beyond_the_local_range_overshoots_and_what_lies_within_does_not():
    pred = STEP.copy()
    pred[:, 21] += 10 / 255  # brighter than all around
    pred[:, 18] += 10 / 255  # between dark and bright, both of which are near
    pred[:, 30] -= 5 / 255  # between, too, but the edge is farther than the range is taken
    pred[:, 0] -= 1 / 255  # too little to be called ringing
    assert bands(pred)[:, 2] == pytest.approx([0, 300, 0, 0, 180])
    assert bands(pred)[:, 3].tolist() == [0, 30, 0, 0, 30]


def test_the_local_range_grows_with_the_scale():
    pred = STEP.copy()
    pred[:, 25] -= 5 / 255
    assert bands(pred, scale=2)[:, 3].sum() == 30 and bands(pred, scale=6)[:, 3].sum() == 0


def test_a_picture_without_edges_is_far_from_them():
    assert bands(np.zeros((9, 9)), np.zeros((9, 9)))[:, 0].tolist() == [0, 0, 0, 0, 81]


@pytest.mark.parametrize('i', range(len(edges.ANGLES)))
def test_a_synthetic_edge_is_straight_and_of_its_angle(i):
    dataset = edges.Edges(64)
    picture, distance = dataset[i][..., 0].astype(float), dataset.distance(i)
    assert (picture[distance < -1] == edges.GREYS[0]).all() and (picture[distance > 1] == edges.GREYS[1]).all()
    gy, gx = np.gradient(picture)
    angle = np.degrees(np.arctan2(gy.sum(), gx.sum())) % 360
    assert abs((angle - edges.ANGLES[i] + 180) % 360 - 180) < 4  # of sums over pixels; the frame cuts the edge's ends


def test_a_profile_is_the_mean_by_distance():
    total, count = edges.profile(np.array([1., 3., 5.]), np.array([0.1, 0.4, -0.2]))
    middle = 2 * edges.REACH
    assert (total[middle], count[middle], total[middle - 1], count[middle - 1], count.sum()) == (4, 2, 5, 1, 3)


def test_the_script_compares_models_and_draws(tmp_path, monkeypatch, capsys):
    make_checkpoint(tmp_path / 'bilinear.pth', RANDOM, silence)  # interpolates linearly, which overshoots nowhere
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(edges, 'ANGLES', (0, 30))
    monkeypatch.setattr(edges, 'SIDE', 20)
    monkeypatch.setattr(sys, 'argv', ['', '--gpu', 'cpu', '--sets', '--scale', '2.72', '--models', 'bicubic',
                                      'bilinear.pth'])
    edges.main()
    bicubic, bilinear = json.loads(edges.RESULTS.read_text())
    assert bicubic['ringing_of_all'] > bilinear['ringing_of_all']
    assert sum(bicubic['pixels']) == 2 * 46 ** 2  # 54 pixels a side, cut to 52 = 19 x 2.72, without a border of 3
    near = len(bicubic['profile']) // 2
    assert max(bicubic['profile'][near:near + 8]) > max(bicubic['true_profile']) + 2
    assert edges.FIGURE.stat().st_size > 10_000
    assert '| synthetic | bicubic | error |' in capsys.readouterr().out

"""Batches: the same for any number of workers and processes, in any epoch, from any start."""

import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from paths import ROOT
from PIL import Image
from processes import data_workers, forked

from datasets.loader import GlobalBatches, make_loader
from errors import UserError


@pytest.fixture
def spec(tmp_path):
    """Five images, each taken twice, in batches of 4: the last one is short."""
    rng = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f'images/{i}.png')
    return {
        'dataset': {'name': 'image-folder', 'args': {'root_path': str(tmp_path / 'images'), 'repeat': 2}},
        'wrapper': {'name': 'sr-implicit-downsampled',
                    'args': {'inp_size': 8, 'scale_max': 4, 'augment': True, 'sample_q': 20}},
        'batch_size': 4, 'num_workers': 0}


def same_batches(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def epoch_of(loader, epoch):
    loader.batch_sampler.epoch = epoch
    return list(loader)


def run_python(script):
    """Runs `script` in a process of its own, in the repository; a minute at most."""
    return subprocess.run([sys.executable, '-c', textwrap.dedent(script)], cwd=ROOT, timeout=60,
                          capture_output=True, text=True)


# --- order -----------------------------------------------------------------------------------------


def test_an_epoch_is_a_permutation():
    draws = sum(GlobalBatches(10, 4, seed=0, shuffle=True), [])
    assert sorted(draw.index for draw in draws) == list(range(10))
    assert [draw.index for draw in draws] != list(range(10))
    assert [draw.position for draw in draws] == list(range(10))


def test_without_shuffle_samples_come_in_order():
    assert [draw.index for batch in GlobalBatches(10, 4, seed=0, shuffle=False) for draw in batch] == list(range(10))


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        batches = GlobalBatches(50, 10, seed, shuffle=True)
        batches.epoch = epoch
        return list(batches)
    assert order(1, 2) == order(1, 2)
    indices = {tuple(draw.index for batch in order(*key) for draw in batch) for key in [(1, 2), (1, 3), (2, 2)]}
    assert len(indices) == 3


@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize('world', [2, 4])
def test_the_shares_of_all_ranks_make_up_the_global_batch(shuffle, world):
    whole = list(GlobalBatches(24, 8, 0, shuffle))
    shares = [list(GlobalBatches(24, 8, 0, shuffle, rank, world)) for rank in range(world)]
    for i, batch in enumerate(whole):
        assert [shares[p % world][i][p // world] for p in range(8)] == batch


def test_in_a_short_last_batch_an_empty_share_is_filled_but_not_counted():
    ranks = [GlobalBatches(10, 4, 0, True, rank, 4) for rank in range(4)]
    last = [list(batches)[2] for batches in ranks]
    assert [draw.position for share in last for draw in share] == [8, 9, 8, 8]
    assert [batches.batch_sizes(2) for batches in ranks] == [(1, 2), (1, 2), (0, 2), (0, 2)]
    assert [batches.batch_sizes(1) for batches in ranks] == [(1, 4)] * 4
    assert [len(batches) for batches in ranks] == [3] * 4


@pytest.mark.parametrize('length', [3, 8, 10])
@pytest.mark.parametrize('world', [1, 2, 4])
def test_without_shuffle_no_sample_is_given_twice(length, world):
    ranks = [GlobalBatches(length, 4, 0, False, rank, world) for rank in range(world)]
    shares = [[draw.index for batch in batches for draw in batch] for batches in ranks]
    assert shares == [list(range(rank, length, world)) for rank in range(world)]
    assert [len(batches) for batches in ranks] == [len(list(batches)) for batches in ranks]


@pytest.mark.parametrize('world', [1, 2])
def test_a_start_in_mid_epoch_gives_the_rest_of_the_epoch(world):
    batches = GlobalBatches(20, 4, 0, True, 0, world)
    whole = list(batches)
    batches.start = 3
    assert list(batches) == whole[3:]


def test_a_batch_size_that_the_processes_do_not_divide_is_an_error():
    with pytest.raises(UserError, match='batch_size 6 must be a multiple of the 4 processes'):
        GlobalBatches(10, 6, 0, True, 0, 4)


def test_without_shuffle_each_process_gets_at_least_one_sample_of_a_batch():
    ranks = [GlobalBatches(7, 1, 0, False, rank, 3) for rank in range(3)]
    assert [[[draw.index for draw in batch] for batch in batches] for batches in ranks] == [
        [[0], [3], [6]], [[1], [4]], [[2], [5]]]


def test_batches_without_samples_are_an_error():
    with pytest.raises(UserError, match='batch_size must be at least 1'):
        GlobalBatches(10, 0, 0, True)


# --- loading ---------------------------------------------------------------------------------------


def test_batches_have_the_samples_stacked(spec):
    batches = list(make_loader(spec, seed=0))
    assert [batch['inp'].shape for batch in batches] == [(4, 3, 8, 8), (4, 3, 8, 8), (2, 3, 8, 8)]
    assert {key: tuple(value.shape) for key, value in batches[2].items() if key != 'inp'} == {
        'coord': (2, 20, 2), 'cell': (2, 20, 2), 'gt': (2, 20, 3)}


@pytest.mark.parametrize('workers', [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(spec, workers):
    same_batches(list(make_loader({**spec, 'num_workers': workers}, 3, shuffle=True)),
                 list(make_loader(spec, 3, shuffle=True)))


@pytest.mark.parametrize('sample_q', [20, None])
def test_samples_do_not_depend_on_the_number_of_processes(spec, sample_q):
    spec['wrapper']['args']['sample_q'] = sample_q
    whole = list(make_loader(spec, 3, shuffle=True))
    shares = [list(make_loader(spec, 3, True, rank, 2)) for rank in range(2)]
    for i, batch in enumerate(whole):
        for key, value in batch.items():
            assert torch.equal(value, torch.stack([shares[p % 2][i][key][p // 2] for p in range(len(value))]))


def test_without_sample_q_batches_have_scales_of_their_own(spec):
    spec['wrapper']['args']['sample_q'] = None
    sizes = [batch['gt'].shape[2:] for epoch in (1, 2) for batch in epoch_of(make_loader(spec, 3, True), epoch)]
    assert len(set(sizes)) > 3


def test_persistent_workers_follow_the_epoch(spec):
    one, other = make_loader({**spec, 'num_workers': 2}, 3, shuffle=True), make_loader(spec, 3, shuffle=True)
    first, second = epoch_of(one, 0), epoch_of(one, 1)
    same_batches(first, epoch_of(other, 0))
    same_batches(second, epoch_of(other, 1))
    assert not torch.equal(first[0]['coord'], second[0]['coord'])


def test_a_loader_starts_in_mid_epoch(spec):
    loader = make_loader({**spec, 'num_workers': 1}, 3, shuffle=True)
    whole = list(loader)
    loader.batch_sampler.start = 1
    same_batches(list(loader), whole[1:])


def test_an_epoch_left_early_does_not_leak_into_the_next(spec):
    loader = make_loader({**spec, 'num_workers': 2}, 3, shuffle=True)
    next(iter(loader))
    same_batches(epoch_of(loader, 1), epoch_of(make_loader(spec, 3, shuffle=True), 1))


@pytest.mark.parametrize('workers', [0, 1])
def test_loading_leaves_the_random_state_of_training_alone(spec, workers):
    state = torch.get_rng_state()
    list(make_loader({**spec, 'num_workers': workers}, 0, shuffle=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_share_the_cores_of_the_machine(spec, monkeypatch):
    del spec['num_workers']
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: range(12))
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
    assert [make_loader(spec, 0, world=world).num_workers for world in (1, 2, 4)] == [8, 6, 3]
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')  # torchrun: 4 processes, two on each of two machines
    assert make_loader(spec, 0, world=4).num_workers == 6


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('change, message', [
    ({'batchsize': 4}, "unknown key 'batchsize', did you mean 'batch_size'"),
    ({'batch_size': 'many'}, "batch_size must be int, not 'many'"),
    ({'num_workers': -1}, 'num_workers must be 0 or more, not -1'),
    ({'dataset': {'name': 'image-foulder'}}, "unknown dataset 'image-foulder', did you mean 'image-folder'"),
    ({'wrapper': {'name': 'sr-implicit-paired'}}, 'dataset sr-implicit-paired: dataset must be'),
])
def test_errors_say_what_is_wrong_in_the_spec(spec, change, message):
    with pytest.raises(UserError) as info:
        make_loader({**spec, **change}, seed=0)
    assert message in str(info.value)


def test_a_missing_key_is_named(spec):
    del spec['wrapper']
    with pytest.raises(UserError, match="missing key 'wrapper'"):
        make_loader(spec, seed=0)


# --- benchmark -------------------------------------------------------------------------------------


def test_the_benchmark_prints_a_rate_for_each_cache_mode(tmp_path):
    (tmp_path / 'photos').mkdir()
    Image.fromarray(np.zeros((200, 210, 3), dtype=np.uint8)).save(tmp_path / 'photos/photo.png')
    args = ['--root', 'photos', '--seconds', '0.05', '--rounds', '1']
    done = forked(tmp_path, 'scripts/benchmark_data.py', *args)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ['plain, none', 'none', 'bin', 'in_memory']
    assert all(float(row[1]) > 0 for row in rows)
    assert [path.name for path in (tmp_path / 'photos').iterdir()] == ['photo.png']


# --- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('signal', ['INT', 'TERM'])
@pytest.mark.skipif(sys.platform != 'linux', reason='needs sigwaitinfo')
def test_workers_leave_signals_to_the_job_to_the_training_loop(spec, signal):
    spec['dataset']['args']['repeat'] = 8
    batches = iter(make_loader({**spec, 'num_workers': 2}, seed=0))
    next(batches), next(batches)  # one of each worker: both have started
    workers = data_workers()
    subprocess.run(['kill', f'-{signal}', *(str(worker.pid) for worker in workers)], check=True)
    time.sleep(0.2)
    assert len(list(batches)) == 8
    assert all(worker.is_alive() for worker in workers)


def test_a_process_ends_in_spite_of_workers_that_it_did_not_close(spec):
    done = run_python(f'''
        from datasets import make_loader
        loader = make_loader({ {**spec, "num_workers": 2} }, seed=0)
        batches = iter(loader)
        next(batches)
    ''')
    assert (done.returncode, done.stderr) == (0, '')

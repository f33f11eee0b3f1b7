"""The cache of the Explore page: bounded, and shared by visitors who do not see what others keep."""

import torch

from web.lru import LRU, Share


def test_a_cache_over_its_limit_forgets_what_was_used_least_recently():
    cache = LRU(10, len)
    for key, value in ('a', 'aaaa'), ('b', 'bbbb'):
        cache.put(key, value)
    cache.get('a')
    cache.put('c', 'cccc')
    assert [cache.get(key) for key in 'abc'] == ['aaaa', None, 'cccc'] and cache.used == 8


def test_a_value_that_is_put_again_counts_once_and_one_over_the_limit_is_not_kept():
    cache = LRU(10, len)
    for _ in range(5):
        cache.put('a', 'aaaa')
    assert cache.get('a') == 'aaaa' and cache.used == 4
    assert cache.put('a', 'aaaa') and not cache.put('b', 'b' * 11)
    assert cache.get('b') is None and cache.get('a') == 'aaaa' and cache.used == 4


def test_of_a_shared_cache_each_owner_has_their_own():
    cache = LRU(1000, lambda tensor: tensor.nbytes)
    mine, yours = Share(cache, 'me'), Share(cache, 'you')
    mine[0, 0] = torch.zeros(10)
    assert mine.get((0, 0)) is not None and yours.get((0, 0)) is None

"""A thread-safe cache that keeps the most recently used values, up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, MutableMapping
from typing import Any


class LRU:
    """Values by key, of `size_of(value)` bytes each; beyond `limit` bytes the least recently used are removed."""

    def __init__(self, limit: int, size_of: Callable[[Any], int]):
        self.limit, self.size_of, self.used = limit, size_of, 0
        self.values, self.lock = OrderedDict(), threading.Lock()

    def get(self, key: Hashable) -> Any:
        """The value of `key`, or None; counts as use."""
        with self.lock:
            if key in self.values:
                self.values.move_to_end(key)
            return self.values.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Keeps `value`, unless it alone exceeds the limit."""
        with self.lock:
            if key in self.values:
                self.used -= self.size_of(self.values.pop(key))
            if (size := self.size_of(value)) > self.limit:  # it would first displace all others
                return
            self.values[key] = value
            self.used += size
            while self.used > self.limit:
                self.used -= self.size_of(self.values.popitem(last=False)[1])


class Share(MutableMapping):
    """The entries of one `owner` in a cache, as a mapping of their own without those of other owners."""

    def __init__(self, cache: LRU, owner: str):
        self.cache, self.owner = cache, owner

    def __getitem__(self, key: Hashable) -> Any:
        value = self.cache.get((self.owner, key))
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Hashable, value: Any) -> None:
        self.cache.put((self.owner, key), value)

    def __delitem__(self, key: Hashable) -> None:
        raise TypeError('only the cache itself removes entries')

    def __iter__(self):
        with self.cache.lock:
            return iter([key for owner, key in self.cache.values if owner == self.owner])

    def __len__(self) -> int:
        return len(list(iter(self)))

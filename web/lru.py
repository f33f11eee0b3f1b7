"""A thread-safe cache that keeps the most recently used values, up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
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

    def put(self, key: Hashable, value: Any) -> bool:
        """Keeps `value`, unless it alone exceeds the limit; returns whether it is kept."""
        with self.lock:
            if key in self.values:
                self.used -= self.size_of(self.values.pop(key))
            if (size := self.size_of(value)) > self.limit:  # it would first displace all others
                return False
            self.values[key] = value
            self.used += size
            while self.used > self.limit:
                self.used -= self.size_of(self.values.popitem(last=False)[1])
            return True


class Share:
    """The values of one `owner` in a cache, under keys of their own: `get` and `share[key] = value`, as in a dict."""

    def __init__(self, cache: LRU, owner: str):
        self.cache, self.owner = cache, owner

    def get(self, key: Hashable) -> Any:
        """The value of `key`, or None."""
        return self.cache.get((self.owner, key))

    def __setitem__(self, key: Hashable, value: Any) -> None:
        self.cache.put((self.owner, key), value)

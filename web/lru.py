"""A cache that keeps what was used last, up to a number of bytes, for several threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, MutableMapping
from typing import Any


class LRU:
    """Values by key, of `size_of(value)` bytes each, together up to `limit`: of more the least recently used go."""

    def __init__(self, limit: int, size_of: Callable[[Any], int]):
        self.limit, self.size_of, self.used = limit, size_of, 0
        self.values, self.lock = OrderedDict(), threading.Lock()

    def get(self, key: Hashable) -> Any:
        """The value of `key`, or None; it counts as used."""
        with self.lock:
            if key in self.values:
                self.values.move_to_end(key)
            return self.values.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Keeps `value`, unless it alone is over the limit."""
        with self.lock:
            if key in self.values:
                self.used -= self.size_of(self.values.pop(key))
            if (size := self.size_of(value)) > self.limit:  # it would drive out all others first
                return
            self.values[key] = value
            self.used += size
            while self.used > self.limit:
                self.used -= self.size_of(self.values.popitem(last=False)[1])


class Share(MutableMapping):
    """What a cache has of one `owner`, as a mapping of its own: no other owner's keys are in it."""

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
        raise TypeError('the cache itself decides what goes')

    def __iter__(self):
        with self.cache.lock:
            return iter([key for owner, key in self.cache.values if owner == self.owner])

    def __len__(self) -> int:
        return len(list(iter(self)))

"""The scales of a sample's height and width, drawn from a range or a list: the same for both, or different ones."""

import math

import numpy as np

from errors import UserError

Scale = float | list[float]  # for both axes, or [height, width]


def per_axis(name: str, scale: Scale) -> tuple[float, float]:
    """`scale`, the key `name` of a config, as (y, x)."""
    scales = scale if isinstance(scale, list) else [scale, scale]
    if len(scales) != 2:
        raise UserError(f'{name} must be a number, or two, for height and width, not {len(scales)}')
    return tuple(scales)


class Scales:
    """Scales between `low` and `high` (None: just `low`), or those in the list `fixed` instead.

    Height and width share one scale, unless `anisotropic` is set or a bound has two numbers: then they are drawn
    separately. The attributes `low` and `high` are (y, x).
    """

    def __init__(self, low: Scale = 1, high: Scale | None = None, fixed: list[float] | None = None,
                 anisotropic: bool = False):
        if fixed is not None:
            if not fixed:
                raise UserError('scales is empty: give at least one, such as [2, 3, 4]')
            if (low, high) != (1, None):
                raise UserError('scales replaces scale_min and scale_max: remove these')
            low, high = min(fixed), max(fixed)
        self.fixed = fixed and sorted(fixed)
        self.anisotropic = anisotropic or isinstance(low, list) or isinstance(high, list)
        self.low, self.high = per_axis('scale_min', low), per_axis('scale_max', low if high is None else high)
        for least, most in zip(self.low, self.high, strict=True):
            if not 1 <= least <= most < math.inf:
                raise UserError(f'scales must be 1 <= scale_min <= scale_max, not {least:g} and {most:g}')

    def draw(self, rng: np.random.Generator, limits: tuple[float, float] = (math.inf, math.inf)) -> tuple[float, float]:
        """The scales (y, x) of a sample, none above the limit of its axis unless the smallest scale already is."""
        if self.anisotropic:
            return tuple(self.draw_axis(axis, limit, rng) for axis, limit in enumerate(limits))
        return (self.draw_axis(0, min(limits), rng),) * 2

    def draw_axis(self, axis: int, limit: float, rng: np.random.Generator) -> float:
        """The scale of one axis."""
        if self.fixed:
            return float(rng.choice([scale for scale in self.fixed if scale <= max(limit, self.fixed[0])]))
        low, high = self.low[axis], self.high[axis]
        return rng.uniform(low, max(low, min(high, limit)))

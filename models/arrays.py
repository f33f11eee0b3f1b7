"""Upscales arrays with any number of channels, such as depth, medical or multispectral images."""

import numpy as np
import torch

from datasets.arrays import Reader, checked, rounded
from models.decoder import Decoder
from models.pictures import target_size
from models.predict import upscale_ensemble, upscale_whole
from utils import white


def upscale(model: Decoder, image: np.ndarray, scale: float | None = None, size: tuple | int | None = None,
            data_range: float | None = None, self_ensemble: bool = False) -> np.ndarray:
    """Upscales `image`, (h, w) or (h, w, C), by `scale`, or to `size`, (H, W) or the longer side; keeps its type.

    The type is uint8, uint16 or float32. `data_range`: the value of white, as in training, if it is not that of the
    type (255, 65535, 1); black is 0. `self_ensemble` takes the mean of 8 flips and transposes. Leaves the model in
    evaluation mode. Raises UserError for sizes below the image's, another type, values outside of the range, and a
    number of channels that is not the model's.
    """
    array = checked(np.asarray(image))
    reader = Reader('all', data_range)
    size = target_size(array.shape[:2], scale, size)
    colours = torch.from_numpy(reader.in_range(array).transpose(2, 0, 1).copy())
    enlarge = upscale_ensemble if self_ensemble else upscale_whole
    result = enlarge(model, colours, size, model.data_norm, clip=True).float().permute(1, 2, 0).numpy()
    result = rounded(result * (data_range or white(array.dtype)), array.dtype, data_range)
    return result if np.ndim(image) == 3 else result[..., 0]

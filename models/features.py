"""What encoding passes to decoding, as one value. Models do not keep it, except for LIIF's interface (`gen_feat`)."""

import dataclasses

import torch

from models.geometry import sample


@dataclasses.dataclass(frozen=True)
class Features:
    """The feature map of a batch of images, and everything else that decoders look at.

    feat: (B, C, h, w). inp: the encoder's input (B, n_colors, h, w), or of another size where the encoder has an
    upsampler.
    window: (top, left, height, width): where `feat` begins in the latent map of the whole images, and that map's size.
    hoisted: what the decoder has computed from `feat` once per latent pixel, (B, h, w, n) each, by name.
    grad: whether gradients were enabled when `hoisted` was computed.
    """
    feat: torch.Tensor
    inp: torch.Tensor
    window: tuple[int, int, int, int]
    hoisted: dict[str, torch.Tensor]
    grad: bool

    def rows(self, name: str) -> torch.Tensor:
        """What is hoisted as `name`, a row for each latent pixel: (B*h*w, n)."""
        return self.hoisted[name].flatten(0, 2)

    def flat_index(self, iy: torch.Tensor, ix: torch.Tensor) -> torch.Tensor:
        """Which of the `rows` belongs to the code in row iy and column ix, (..., B, Q) each, of the latent map."""
        batch, _, h, w = self.feat.shape
        image = torch.arange(batch, device=iy.device).view(-1, 1)
        return (image * h + iy - self.window[0]) * w + ix - self.window[1]

    def sample_input(self, coord: torch.Tensor) -> torch.Tensor:
        """The input's colours (B, Q, n_colors) at `coord` (B, Q, 2) by bilinear interpolation."""
        return self.sample(self.inp, coord, 'bilinear')

    def sample(self, image: torch.Tensor, coord: torch.Tensor, mode: str) -> torch.Tensor:
        """The values (B, Q, C) at `coord` (B, Q, 2) of an `image` (B, C, H, W) that the window shows, or of `feat`.

        `mode`: 'nearest' or 'bilinear'.
        """
        top, left, height, width = self.window
        h, w = self.feat.shape[-2:]
        if (h, w) != (height, width):  # a window: the image is cut to it like the features
            size, offset = coord.new_tensor((height, width)), coord.new_tensor((top, left))
            coord = ((coord + 1) * size - 2 * offset) / coord.new_tensor((h, w)) - 1
        return sample(image, coord, mode)

    def with_hoisted(self, **hoisted: torch.Tensor) -> 'Features':
        """The same with these `hoisted` tensors added."""
        return dataclasses.replace(self, hoisted={**self.hoisted, **hoisted})

    def pixels(self, count: int) -> list['Features']:
        """The latent pixels of all images in parts of `count` each, as images of one row; the last may have fewer."""
        feats = self.feat.transpose(0, 1).flatten(1)[None, :, None].split(count, dim=3)
        parts = {name: self.rows(name)[None, None].split(count, dim=2) for name in self.hoisted}
        return [dataclasses.replace(self, feat=feat, hoisted={name: parts[name][i] for name in parts})
                for i, feat in enumerate(feats)]

    def split(self, images: int) -> list['Features']:
        """The batch in parts of `images` images each; the last may have fewer."""
        feats, inps = self.feat.split(images), self.inp.split(images)
        parts = {name: tensor.split(images) for name, tensor in self.hoisted.items()}
        return [dataclasses.replace(self, feat=feat, inp=inp, hoisted={name: parts[name][i] for name in parts})
                for i, (feat, inp) in enumerate(zip(feats, inps, strict=True))]

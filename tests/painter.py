"""A model whose colours are known."""

import torch


class Painter(torch.nn.Module):
    """Paints by coordinate, brightness and `gain`, and remembers what it was asked."""

    def __init__(self, gain=0.3):
        super().__init__()
        self.gain, self.images, self.chunks = torch.nn.Parameter(torch.tensor(gain)), [], []

    def gen_feat(self, inp):
        self.images.append(inp)

    def query_rgb(self, coord, cell):
        self.chunks.append(coord.shape[1])
        y, x = coord.unbind(-1)
        brightness = self.images[-1].mean(dim=(1, 2, 3)).view(-1, 1, 1)
        return self.gain * torch.stack([y, x * x, x * y], dim=-1) + 0.1 * brightness + cell.sum(dim=-1, keepdim=True)

    def forward(self, inp, coord, cell):
        self.gen_feat(inp)
        return self.query_rgb(coord, cell)

"""Pictures as they may come: other sizes, places, colours, grounds and strokes. All on whole batches, in torch."""

import math

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom
from torch import Tensor

# open_clip's own for its models; preprocess_cfg repeats them.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def normalise(rgb: Tensor) -> Tensor:
    """Return pictures, float32 of shape (n, 3, h, w), 0..1, as the model reads them."""
    return (rgb - rgb.new_tensor(MEAN).view(1, 3, 1, 1)) / rgb.new_tensor(STD).view(1, 3, 1, 1)


def split(rgba: Tensor) -> tuple[Tensor, Tensor]:
    """Return colours times opacity, float32 (n, 3, h, w), and opacity (n, 1, h, w), 0..1, of uint8 (n, h, w, 4)."""
    floats = rgba.permute(0, 3, 1, 2).float() / 255
    opacity = floats[:, 3:]
    return floats[:, :3] * opacity, opacity


def plain(rgba: Tensor) -> Tensor:
    """Return pictures, uint8 of shape (n, h, w, 4), on white as the service puts them, as the model reads them."""
    colours, opacity = split(rgba)
    return normalise(colours + 1 - opacity)


def augment(rgba: Tensor, dice: torch.Generator, *, flip: Tensor) -> Tensor:
    """Return changed pictures as the model reads them, float32 of shape (n, 3, h, w).

    Args:
        rgba: uint8, shape (n, h, w, 4).
        dice: the source of chance.
        flip: bool, shape (n,): which of them may be mirrored.
    """
    colours, opacity = _move(*split(rgba), dice, flip)
    n = len(rgba)

    def some(share: float) -> Tensor:
        return (torch.rand(n, 1, 1, 1, generator=dice) < share).float()

    colours, opacity = _stroke(colours, opacity, some(0.25), dice)
    colours = _recolour(colours, opacity, some(0.5), dice)
    grey = colours.mean(1, keepdim=True)
    drained = some(0.15)
    colours = drained * grey + (1 - drained) * colours
    rgb = colours + (1 - opacity) * _ground(n, dice)
    lines = some(0.12)
    rgb = lines * _line_art(rgb) + (1 - lines) * rgb
    contrast = 1 + 0.5 * (torch.rand(n, 1, 1, 1, generator=dice) - 0.5)
    rgb = ((rgb - 0.5) * contrast + 0.5 + 0.2 * (torch.rand(n, 1, 1, 1, generator=dice) - 0.5)).clamp(0, 1)
    blurred = some(0.2)
    rgb = blurred * F.avg_pool2d(F.pad(rgb, (1, 1, 1, 1), mode="replicate"), 3, 1) + (1 - blurred) * rgb
    coarse = F.interpolate(F.avg_pool2d(rgb, 2), scale_factor=2.0, mode="bilinear")
    small = some(0.15)
    rgb = small * coarse + (1 - small) * rgb
    return _cut_out(normalise(rgb), dice)


def _move(colours: Tensor, opacity: Tensor, dice: torch.Generator, flip: Tensor) -> tuple[Tensor, Tensor]:
    """Scale by 0.6 to 1.15, stretch, turn by up to 15 degrees, shear, shift, and mirror half of those that may be."""
    n = len(colours)
    rand = lambda: torch.rand(n, generator=dice) * 2 - 1  # noqa: E731
    angle, scale = rand() * math.radians(15), 0.875 + 0.275 * rand()
    stretch, shear = 1 + 0.12 * rand(), 0.1 * rand()
    mirror = torch.where(flip & (torch.rand(n, generator=dice) < 0.5), -1.0, 1.0)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    theta = torch.stack(
        [
            torch.stack([cos * stretch * mirror, -sin + shear, 0.12 * rand()], 1),
            torch.stack([sin * mirror, cos / stretch, 0.12 * rand()], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(colours.shape), align_corners=False)
    both = F.grid_sample(torch.cat([colours, opacity], 1), grid, mode="bilinear", align_corners=False)
    return both[:, :3], both[:, 3:]


def _stroke(colours: Tensor, opacity: Tensor, chosen: Tensor, dice: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a dark outline around the shape."""
    wide = torch.where(torch.rand(len(colours), 1, 1, 1, generator=dice) < 0.5, _grow(opacity, 1), _grow(opacity, 2))
    ink = 0.25 * torch.rand(len(colours), 3, 1, 1, generator=dice)
    outlined = colours + (wide - opacity).clamp(min=0) * ink
    return chosen * outlined + (1 - chosen) * colours, chosen * wide + (1 - chosen) * opacity


def _grow(opacity: Tensor, pixels: int) -> Tensor:
    return F.max_pool2d(opacity, 2 * pixels + 1, 1, pixels)


def _recolour(colours: Tensor, opacity: Tensor, chosen: Tensor, dice: torch.Generator) -> Tensor:
    """Mix the colour channels a little, and bend each one's brightness."""
    n = len(colours)
    mix = torch.eye(3) + 0.25 * torch.randn(n, 3, 3, generator=dice)
    mix = mix / mix.sum(2, keepdim=True).clamp(min=0.5)
    mixed = torch.einsum("nij,njhw->nihw", mix, colours)
    mixed = mixed + 0.15 * torch.randn(n, 3, 1, 1, generator=dice) * opacity
    return chosen * torch.minimum(mixed.clamp(0, 1), opacity) + (1 - chosen) * colours


def _ground(n: int, dice: torch.Generator) -> Tensor:
    """Return grounds, float32 of shape (n, 3, 1 or h, ...): half white, a fifth light, the rest of any colour."""
    kind = torch.rand(n, 1, 1, 1, generator=dice)
    colour = torch.rand(n, 3, 1, 1, generator=dice)
    light = 0.8 + 0.2 * colour
    return torch.where(kind < 0.55, torch.ones_like(colour), torch.where(kind < 0.75, light, colour))


def _line_art(rgb: Tensor) -> Tensor:
    """Return the edges of pictures in dark on white."""
    grey = rgb.mean(1, keepdim=True)
    edges = F.max_pool2d(grey, 3, 1, 1) + F.max_pool2d(-grey, 3, 1, 1)
    return (1 - 2.5 * edges).clamp(0, 1).expand(-1, 3, -1, -1)


def _cut_out(pictures: Tensor, dice: torch.Generator) -> Tensor:
    """Blank a box of up to a third of the side in a third of the pictures."""
    n, _, height, width = pictures.shape
    size = torch.randint(8, height // 3 + 1, (n,), generator=dice)
    size = torch.where(torch.rand(n, generator=dice) < 0.33, size, 0)
    top, left = (torch.randint(0, height - 8, (n,), generator=dice) for _ in range(2))
    rows, columns = torch.arange(height), torch.arange(width)
    inside = ((rows >= top[:, None]) & (rows < (top + size)[:, None]))[:, None, :, None] & (
        (columns >= left[:, None]) & (columns < (left + size)[:, None])
    )[:, None, None, :]
    return pictures.masked_fill(inside, 0.0)

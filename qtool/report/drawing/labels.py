"""Where the names of the plot's points go: beside their point, on top of as little else as possible."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_CHARACTER = 7.4  # of the bold face, which is the wider one
_ABOVE, _BELOW = 11, 4
_GAP = 6
_FAR = 3.0  # square pixels of overlap that are worth one pixel of distance


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels, y growing downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """Area shared with `other`, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True, slots=True)
class Label:
    """A text's anchor point, its alignment (`start`, `middle`, `end`) and the room it takes."""

    x: float
    y: float
    anchor: str
    box: Box


def place_label(text: str, x: float, y: float, radius: float, *, obstacles: Sequence[Box], frame: Box) -> Label:
    """The place around a disc at x, y that covers the least of `obstacles` and stays inside `frame`."""
    candidates = _candidates(text, x, y, radius)
    return min(candidates, key=lambda label: _cost(label, obstacles, frame) + _FAR * _gap(label.box, x, y, radius))


def _candidates(text: str, x: float, y: float, radius: float) -> list[Label]:
    side, near = radius + _GAP, radius * 0.6 + _GAP
    offsets = [(side, -4), (-side, -4), (near, -near), (-near, -near), (near, near + 8), (-near, near + 8)]
    offsets += [(0, -radius - 8), (0, radius + 16), (side, 14), (-side, 14), (0, -radius - 34), (0, radius + 42)]
    offsets += [(side, -18), (-side, -18), (side, 26), (-side, 26), (near, -near - 18), (-near, -near - 18)]
    offsets += [(near, near + 26), (-near, near + 26), (side + 16, -4), (-side - 16, -4)]
    labels = []
    for across, down in offsets:
        anchor = "middle" if across == 0 else "start" if across > 0 else "end"
        width = _CHARACTER * len(text)
        left = x + across - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        box = Box(left, y + down - _ABOVE, left + width, y + down + _BELOW)
        labels.append(Label(round(x + across, 1), round(y + down, 1), anchor, box))
    return labels


def _gap(box: Box, x: float, y: float, radius: float) -> float:
    """Pixels between the disc and the label: a label far from its point seems to name another."""
    across = max(box.left - x, x - box.right, 0.0)
    down = max(box.top - y, y - box.bottom, 0.0)
    return max(math.hypot(across, down) - radius, 0.0)


def _cost(label: Label, obstacles: Sequence[Box], frame: Box) -> float:
    outside = label.box.area - label.box.overlap(frame)
    return sum(label.box.overlap(other) for other in obstacles) + 20 * outside

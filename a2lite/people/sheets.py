"""Sheets of faces, as in notebook 01; ``python -m a2lite.people.sheets`` writes the README's to notebooks/figures/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from a2lite import ROOT
from a2lite.flame import Flame, load_head
from a2lite.flame_qa import load_samples
from a2lite.people import EXPRESSIONS, PEOPLE, dress, expression
from a2lite.player import Clip, Picture, portraits, render, strip
from a2lite.player.light import light_shares
from a2lite.player.raster import close_up

SHEET = [name for name in EXPRESSIONS if name not in ("neutral", "afraid")]


def expressions(person: str = "robin", columns: int = 6) -> Picture:
    """Twelve expressions, each over its name."""
    head = load_head()
    flame, look = Flame(head, PEOPLE[person].betas(head)), dress(head, person)
    shapes = flame(torch.stack([expression(head, name) for name in SHEET]))
    neutral = look.extend(flame(torch.zeros(1, 58)).numpy())[0]
    light, camera = light_shares(neutral, look.faces), close_up(neutral)
    rows = [
        portraits(shapes[i : i + columns], look, SHEET[i : i + columns], light, camera, 160, 200)
        for i in range(0, len(SHEET), columns)
    ]
    return stacked(rows)


def people() -> Picture:
    """Six people, from the front and half turned."""
    head, rows = load_head(), []
    names = [name for name in PEOPLE if name != "robin"]
    for name in names:
        look, shape = dress(head, name), Flame(head, PEOPLE[name].betas(head))(torch.zeros(58))
        rows.append(np.concatenate([render(shape, look, width=144, height=180, yaw=yaw) for yaw in (0.0, 0.75)]))
    return picture(np.concatenate(rows, axis=1))


def sides(person: str = "robin") -> Picture:
    """A neutral face from three sides."""
    head = load_head()
    look, shape = dress(head, person), Flame(head, PEOPLE[person].betas(head))(torch.zeros(58))
    views = [render(shape, look, width=220, height=275, yaw=yaw) for yaw in (0, 0.75, 1.57)]
    return picture(np.concatenate(views, axis=1))


def speech() -> Picture:
    """Two seconds of a spoken answer of the synthetic world, ten frames."""
    head, sample = load_head(), load_samples("tiny", "test_sentence")[0]
    clip = Clip(Flame(head)(torch.from_numpy(sample.motion[10:60])), dress(head))
    return Picture(strip(clip, frames=10).convert("RGB"))


def stacked(rows: list[Image.Image]) -> Picture:
    return picture(np.concatenate([np.asarray(row.convert("RGB")) for row in rows]) / 255)


def picture(pixels: np.ndarray) -> Picture:
    return Picture(Image.fromarray((pixels * 255 + 0.5).astype(np.uint8)))


def main(folder: Path = ROOT / "notebooks" / "figures") -> None:
    for draw in (sides, expressions, people, speech):
        path = folder / f"{draw.__name__}.jpg"
        draw().image.save(path, quality=88)
        print(path)


if __name__ == "__main__":
    main()

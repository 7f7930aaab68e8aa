"""Does the player keep up without a graphics card? ``python benchmarks/player.py`` prints one JSON object.

Ten seconds of motion and sound at 480 x 400 in headless Chromium with software rendering: frames shown a second (of
25), how far they are from the sound, from the start and after scrubbing, how far that drifts, the time one frame takes,
and what the page weighs. The sound is read from the browser's sound graph, not from the player's clock. Nothing should
run beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from a2lite import ROOT
from a2lite.flame import Flame, load_head
from a2lite.people import PEOPLE, dress
from a2lite.player import Clip, save_page

sys.path.insert(0, str(ROOT / "tests"))
from browser import SOFTWARE, Browser, climbing, talking  # noqa: E402

FRAME = """(() => {
  const gl = stage.renderer.getContext(), pixel = new Uint8Array(4), start = performance.now();
  for (let i = 0; i < 20; i++) {
    stage.draw(i + 0.5, true);
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
  }
  return (performance.now() - start) / 20;
})()"""


def spoken(person: str) -> Clip:
    """Ten seconds of a head that talks, smiles, blinks and turns."""
    head = load_head()
    vertices = Flame(head, PEOPLE[person].betas(head))(talking(10))
    return Clip(vertices, dress(head, person), climbing(10))


def told(seen: np.ndarray) -> dict[str, float]:
    """What ``Browser.listen`` saw, without its first third of a second."""
    seconds, heard, frames = seen[seen[:, 0] > seen[0, 0] + 0.3].T
    gap, third = 1000 * (heard - frames / 25), len(seconds) // 3
    return {
        "frames shown a second": round(len(np.unique(frames.astype(int))) / (seconds[-1] - seconds[0]), 1),
        "behind the sound, median ms": round(float(np.median(gap)), 1),
        "apart, 90th percentile ms": round(float(np.percentile(np.abs(gap), 90)), 1),
        "drift, ms": round(float(np.median(gap[-third:]) - np.median(gap[:third])), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--person", default="robin", choices=PEOPLE)
    person = parser.parse_args().person
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(Path(folder) / "browser", *SOFTWARE)
        page = save_page(Path(folder) / "page.html", spoken(person))
        browser.open(page.as_uri())
        frame = browser.js(FRAME)
        whole, scrubbed = browser.listen(0.0, 9.5), browser.listen(4.0, 3.0)
        share = browser.js("stage.share")
        browser.close()
        print(json.dumps({
            "person": person,
            **told(whole),
            "after scrubbing": told(scrubbed),
            "one frame, ms": round(frame, 1),
            "pixels drawn, share of the width": share,
            "page, kB": round(page.stat().st_size / 1000),
        }))  # fmt: skip


if __name__ == "__main__":
    main()

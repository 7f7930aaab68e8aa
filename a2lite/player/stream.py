"""Speech and face into a live view, piece by piece, while the model still speaks (notebooks 01 and 08).

pythreejs has no clock that follows sound; this small widget has one: the sound card's. Needs the package ``anywidget``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import anywidget
import numpy as np
import traitlets
from ipywidgets import VBox, Widget, widget_serialization

from a2lite.player.live import View, pack, part_places

if TYPE_CHECKING:
    from a2lite.flame import Flame
    from a2lite.realtime import Event, Summary


class Stream(anywidget.AnyWidget):
    """Moves the face of a ``View`` in step with the sound it is given; ``widget`` shows both.

    Pieces carry their place in the answer, in seconds, and may arrive in any order. Where sound comes too late to
    follow on, voice and face wait together. A browser plays no sound before its page has been clicked once.
    """

    _esm = Path(__file__).with_name("stream.js")
    mesh = traitlets.Instance(Widget).tag(sync=True, **widget_serialization)
    places = traitlets.Instance(Widget).tag(sync=True, **widget_serialization)
    parts = traitlets.List(traitlets.Instance(Widget)).tag(sync=True, **widget_serialization)
    fps = traitlets.Float(25.0).tag(sync=True)
    rate = traitlets.Int(16000).tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)

    def __init__(self, view: View, **settings):
        super().__init__(mesh=view.mesh, places=view.places, parts=view.parts, **settings)
        self.look = view.look
        self.widget = VBox([view.widget, self])

    def begin(self) -> None:
        """A new answer: what is still to be shown or heard of the last is dropped."""
        self.text = ""
        self.send({"kind": "begin"})

    def motion(self, vertices: np.ndarray, start: float) -> None:
        """(T, V, 3) frames from second ``start`` on."""
        vertices = self.look.extend(np.asarray(vertices))
        packed = np.stack([pack(frame, self.look.faces) for frame in vertices])  # (T, V, 4)
        worn = [part_places(part, vertices).astype(np.float32) for part in self.look.parts]  # each (T, 7)
        message = {"kind": "motion", "start": start, "count": len(packed)}
        self.send(message, [packed.tobytes(), *(places.tobytes() for places in worn)])

    def audio(self, wave: np.ndarray, start: float) -> None:
        """(samples,) in [-1, 1] at ``rate``, heard from second ``start`` on."""
        self.send({"kind": "audio", "start": start}, [np.asarray(wave, np.float32).tobytes()])

    def follow(self, events: Iterable[Event], flame: Flame) -> Summary | None:
        """Show what ``Avatar.stream`` says, as it comes; returns how it went."""
        self.begin()
        for event in events:
            if event.kind == "motion":
                self.motion(flame(event.data).numpy(), event.start)
            elif event.kind == "audio":
                self.audio(event.data.numpy(), event.start)
            elif event.kind == "text":
                self.text += event.data
            else:
                return event.data
        return None

"""A face that is moved by hand in JupyterLab (notebook 01): ipywidgets set the numbers, a ``View`` draws them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from a2lite.config import MotionConfig
from a2lite.flame import Flame, FlameHead
from a2lite.people.cast import dress, names_for, person_of
from a2lite.people.expressions import EXPRESSIONS, expression
from a2lite.player.clip import Clip
from a2lite.player.live import View
from a2lite.player.picture import jpeg, portraits

if TYPE_CHECKING:
    from a2lite.player.stream import Stream

HEADLESS = "A2LITE_HEADLESS"  # where this is set (the course's runner does) a picture stands for the sliders


class Sliders:
    """A head that is moved by hand: action units, jaw, head, gaze, lids, presets, people, and the 58 numbers.

    The last value of a cell shows it; without a browser (``HEADLESS``) a picture. ``motion`` is what the sliders say,
    (58,), ``gaze`` (2,) the eyes' turn to the left and up in radians, which no motion vector carries. An official head
    has no named action units and can be nobody else: it offers neither presets nor people.

    ValueError for a person nobody knows, or whom the head cannot be.
    """

    def __init__(self, head: FlameHead, person: str = "robin"):
        self.head = head
        self.flame, self.look = Flame(head, person_of(person).betas(head)), dress(head, person)
        self.units = torch.zeros(len(head.action_units))
        self.rest = torch.zeros(MotionConfig.dim)  # what is not said by action units
        self.gaze = torch.zeros(2)
        self.name, self.showing = person, "preset"  # the person, and which of EXPRESSIONS as long as nothing was moved
        self.view: View | None = None
        self._quiet = False

    @cached_property
    def widget(self):
        """Picture and sliders; made when they are first shown."""
        self.view = self._view()
        panel = self._panel()
        self._refresh()
        return panel

    @property
    def motion(self) -> torch.Tensor:
        """The 58 numbers."""
        motion = self.rest.clone()
        motion[MotionConfig.expression] += self.units @ self.head.au_expression
        return motion

    def vertices(self) -> np.ndarray:
        """(5023, 3) of the face that is shown."""
        motion, pose = self.motion, torch.zeros(5, 3)
        pose[0], pose[2] = motion[MotionConfig.rotation], motion[MotionConfig.jaw]
        pose[3:] = torch.tensor([-self.gaze[1], self.gaze[0], 0.0])
        return self.flame.articulate(motion[MotionConfig.expression], pose, motion[MotionConfig.eyelid]).numpy()

    def set(self, motion: torch.Tensor) -> None:
        """Show (58,) numbers; the action units rest."""
        self.units.zero_()
        self.rest, self.showing = torch.as_tensor(motion, dtype=torch.float32).clone(), "preset"
        self._refresh()

    def reset(self) -> None:
        """The face at rest, its eyes straight ahead."""
        self.gaze = torch.zeros(2)
        self.set(torch.zeros(MotionConfig.dim))

    def preset(self, name: str) -> None:
        """Show one of ``EXPRESSIONS``; ValueError for another name, and for any on a head without action units."""
        if not self.head.action_units:
            raise ValueError(f"preset {name!r}: {self.head.version} has no named action units, and so no presets")
        self.rest = expression(self.head, name)
        self.rest[MotionConfig.expression] = 0  # the action units say it
        self.units.zero_()
        self.gaze, self.showing = torch.zeros(2), name
        for unit, strength in EXPRESSIONS[name][0].items():
            left, right = strength if isinstance(strength, tuple) else (strength, strength)
            self._unit(f"{unit}_left", left)
            self._unit(f"{unit}_right", right)
        self._refresh()

    def person(self, name: str) -> None:
        """Show another of ``PEOPLE``; ValueError for a name that nobody has."""
        self.flame, self.look = Flame(self.head, person_of(name).betas(self.head)), dress(self.head, name)
        self.name = name
        if self.view is not None:
            old, self.view = self.view, self._view()
            self.widget.children = (self.view.widget, *self.widget.children[1:])
            old.close()
            self._refresh()

    def _view(self) -> View:
        return View(Clip(self.vertices()[None], self.look))

    def _unit(self, name: str, value: float) -> None:
        self.units[self.head.action_units.index(name)] = value

    # ---- widgets

    def _panel(self):
        import ipywidgets as w

        slider = partial(w.FloatSlider, step=0.01, readout_format=".2f", layout=w.Layout(width="300px"))
        names = sorted({unit.rsplit("_", 1)[0] for unit in self.head.action_units})
        self.side = w.ToggleButtons(options=["both", "left", "right"], style={"button_width": "60px"})
        self.side.observe(lambda change: self._refresh(), "value")
        self.muscles = {name: slider(description=name, min=0, max=1) for name in names}
        for name, widget in self.muscles.items():
            widget.observe(self._heard(partial(self._muscle, name)), "value")
        self.joints = {
            "jaw": slider(description="jaw", min=0, max=0.45), "nod": slider(description="nod", min=-0.5, max=0.5),
            "turn": slider(description="turn", min=-0.8, max=0.8),
            "tilt": slider(description="tilt", min=-0.5, max=0.5),
            "gaze": slider(description="gaze left", min=-0.5, max=0.5),
            "look": slider(description="gaze up", min=-0.4, max=0.4),
            "left": slider(description="left lid", min=0, max=1),
            "right": slider(description="right lid", min=0, max=1),
        }  # fmt: skip
        for name, widget in self.joints.items():
            widget.observe(self._heard(partial(self._joint, name)), "value")
        self.numbers: list = []  # 58 sliders, made when they are first looked at
        box = w.Layout(height="340px", overflow="auto", display="block")
        self.number_box = w.VBox(layout=box)
        pages = [
            ("jaw, head, eyes", w.VBox([*self.joints.values()], layout=box), self._show_joints),
            ("58 numbers", self.number_box, self._show_numbers),
        ]
        if names:
            units = w.VBox([self.side, w.VBox([*self.muscles.values()])], layout=box)
            pages.insert(0, ("action units", units, self._show_units))
        titles, sheets, self.refreshers = zip(*pages)
        self.tabs = w.Tab(sheets, titles=titles)
        self.tabs.observe(lambda change: self._refresh(), "selected_index")
        narrow = w.Layout(width="120px")
        self.faces = w.Dropdown(options=["preset", *EXPRESSIONS], value=self.showing, layout=narrow)
        self.faces.observe(self._chosen(self.preset), "value")
        self.people = w.Dropdown(options=names_for(self.head) or [self.name], value=self.name, layout=narrow)
        self.people.observe(self._chosen(self.person), "value")
        reset = w.Button(description="reset", layout=w.Layout(width="70px"))
        reset.on_click(lambda button: self.reset())
        choices = [self.faces] * bool(names) + [self.people] * bool(names_for(self.head)) + [reset]
        panel = w.VBox([w.HBox(choices), self.tabs], layout=w.Layout(width="390px"))
        return w.HBox([self.view.widget, panel], layout=w.Layout(flex_flow="row wrap"))

    def _repr_mimebundle_(self, **options) -> dict:
        if os.environ.get(HEADLESS):
            name = self.name if names_for(self.head) else self.head.version
            return {"image/jpeg": jpeg(portraits(self.vertices()[None], self.look, [name], width=240, height=300))}
        return self.widget._repr_mimebundle_(**options)

    def _heard(self, act: Callable[[float], None]) -> Callable:
        def changed(change) -> None:
            moved = abs(change.new - change.old) > 1e-6  # a browser answers 0.22 with 0.22000000000000003
            if moved and not self._quiet:
                act(change.new)
                self.showing = "preset"
                self._refresh()

        return changed

    def _chosen(self, act: Callable[[str], None]) -> Callable:
        def changed(change) -> None:
            if not self._quiet and change.new != "preset":
                act(change.new)

        return changed

    def _muscle(self, name: str, value: float) -> None:
        for side in ("left", "right"):
            if self.side.value in ("both", side):
                self._unit(f"{name}_{side}", value)

    def _joint(self, name: str, value: float) -> None:
        if name in ("gaze", "look"):
            self.gaze[0 if name == "gaze" else 1] = value
        else:
            self.rest[self._place(name)] = value

    def _place(self, name: str) -> int:
        """Which of the 58 numbers a slider of the second tab is."""
        turns, lids = MotionConfig.rotation.start, MotionConfig.eyelid.start
        places = dict(jaw=MotionConfig.jaw.start, nod=turns, turn=turns + 1, tilt=turns + 2, left=lids, right=lids + 1)
        return places[name]

    def _number(self, place: int, value: float) -> None:
        self.rest[place] += value - float(self.motion[place])

    def _refresh(self) -> None:
        """Draw, and let the sliders of the open tab say what is shown."""
        if self.view is None:
            return
        self.view.draw(self.vertices())
        self._quiet = True
        try:
            self.faces.value, self.people.value = self.showing, self.name
            self.refreshers[self.tabs.selected_index or 0]()
        finally:
            self._quiet = False

    def _say(self, widget, value: torch.Tensor) -> None:
        """A slider that says so already is left alone: an answer would pull it back under the hand that drags it."""
        if abs(widget.value - float(value)) > 1e-4:
            widget.value = round(float(value), 4)

    def _show_units(self) -> None:
        side = "right" if self.side.value == "right" else "left"
        for name, widget in self.muscles.items():
            self._say(widget, self.units[self.head.action_units.index(f"{name}_{side}")])

    def _show_joints(self) -> None:
        for name, widget in self.joints.items():
            turn = dict(gaze=0, look=1).get(name)
            self._say(widget, self.rest[self._place(name)] if turn is None else self.gaze[turn])

    def _show_numbers(self) -> None:
        import ipywidgets as w

        if not self.numbers:
            parts = ("expression", "jaw", "rotation", "eyelid")
            for part in parts:
                where = getattr(MotionConfig, part)
                reach = {"expression": 4.0, "eyelid": 1.0}.get(part, 0.8)
                for place in range(where.start, where.stop):
                    label = f"{place} {part} {place - where.start}"
                    self.numbers.append(w.FloatSlider(description=label, min=-reach, max=reach, step=0.01))
                    self.numbers[-1].observe(self._heard(partial(self._number, place)), "value")
            self.number_box.children = self.numbers
        for widget, value in zip(self.numbers, self.motion, strict=True):
            self._say(widget, value)


def live_stage(head: FlameHead, person: str = "robin") -> Stream | None:
    """A live face for ``Stream.follow`` to move in step with its sound; None where nobody watches (``HEADLESS``).

    ValueError for a person nobody knows, or whom the head cannot be.
    """
    if os.environ.get(HEADLESS):
        return None
    from a2lite.player.stream import Stream

    still = Flame(head, person_of(person).betas(head))(torch.zeros(1, MotionConfig.dim))
    return Stream(View(Clip(still, dress(head, person))))

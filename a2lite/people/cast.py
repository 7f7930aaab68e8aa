"""Who there is to look at: made-up people on the built head, and how to dress it as one of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from a2lite.flame import FlameHead
from a2lite.people.bust import CLOTH, neck, shirt
from a2lite.people.fine_hair import fine_hair
from a2lite.people.hair import STYLES, hair
from a2lite.people.mouth import teeth_and_tongue
from a2lite.people.paint import painted
from a2lite.people.skin import detail
from a2lite.player.look import Look

TONES = {  # linear RGB
    "pale": (0.66, 0.455, 0.37),
    "light": (0.60, 0.385, 0.29),
    "olive": (0.47, 0.285, 0.19),
    "brown": (0.28, 0.150, 0.09),
    "deep": (0.125, 0.062, 0.038),
}
HAIR = {
    "black": (0.018, 0.014, 0.013), "dark": (0.050, 0.027, 0.016), "brown": (0.11, 0.058, 0.030),
    "blond": (0.34, 0.205, 0.090), "red": (0.20, 0.062, 0.022), "grey": (0.30, 0.29, 0.28), "white": (0.60, 0.59, 0.57),
}  # fmt: skip
EYES = {
    "blue": (0.10, 0.17, 0.26), "green": (0.11, 0.18, 0.10), "brown": (0.10, 0.045, 0.018), "grey": (0.16, 0.19, 0.20),
}  # fmt: skip


@dataclass(frozen=True)
class Person:
    """``traits`` are strengths of ``FlameHead.traits``.

    Words are of ``TONES``, ``HAIR``, ``STYLES``, ``EYES`` and ``CLOTH``; ValueError for another one.
    """

    traits: dict[str, float] = field(default_factory=dict)
    tone: str = "light"
    hair: str = "brown"
    style: str = "short"
    eyes: str = "blue"
    lips: tuple[float, float, float, float] | None = None  # lipstick and how much of it
    age: float = 0.3  # 0 to 1: how deep its lines are
    freckles: float = 0.0
    beard: float = 0.0  # shaved, and how dark
    shirt: str = "navy"

    def __post_init__(self):
        for name, words in dict(tone=TONES, hair=HAIR, style=STYLES, eyes=EYES, shirt=CLOTH).items():
            if getattr(self, name) not in words:
                raise ValueError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(words)}")

    def betas(self, head: FlameHead) -> torch.Tensor:
        """(300,) identity coefficients. ValueError where the head has no such trait; official heads have none."""
        if self.traits and not head.traits:
            raise ValueError(f"{head.version} has no named traits: only who has none of them, as robin, can be on it")
        return head.identity(**self.traits)


PEOPLE = {
    "robin": Person(age=0.2, freckles=0.3),
    "ada": Person(
        dict(jaw_width=-1.1, face_long=-0.5, lips=1.1, eye_size=0.9, brow=-1.0, nose_width=-0.8, nose_up=0.6, neck=-1.3,
             chin_forward=-0.3, skull_wide=-0.3), "light", "dark", "bob", "green", (0.42, 0.10, 0.11, 0.5), age=0.15,
        shirt="teal",
    ),
    "ben": Person(
        dict(jaw_width=1.2, chin_forward=0.9, brow=1.4, nose_long=0.6, hump=0.7, neck=1.2, lips=-0.7, mouth_width=0.5,
             cheek_fat=-0.5, eye_size=-0.6), "light", "brown", "short", "blue", age=0.35, beard=0.8, shirt="green",
    ),
    "chidi": Person(
        dict(nose_width=1.5, lips=1.3, jaw_width=0.7, cheekbone=0.6, brow=0.6, neck=0.9, mouth_width=0.7, ears=-0.5),
        "deep", "black", "crop", "brown", age=0.3, beard=0.4, shirt="rust",
    ),
    "dalia": Person(
        dict(cheek_fat=1.1, face_long=-0.6, nose_long=0.5, jaw_width=0.3, eye_size=-0.3, lips=-0.6, brow=-0.4,
             neck=-0.5, nose_width=0.4), "olive", "grey", "bob", "brown", (0.40, 0.12, 0.12, 0.35), age=0.75,
        shirt="plum",
    ),
    "emil": Person(
        dict(ears=1.5, nose_long=1.4, face_long=0.9, cheek_fat=-0.9, lips=-1.3, brow=0.9, hump=1.0, neck=-0.6,
             skull_wide=0.3), "pale", "white", "fringe", "grey", age=1.0, beard=0.4, shirt="grey",
    ),
    "fumi": Person(
        dict(brow=-1.1, hump=-1.0, nose_width=0.3, eye_tilt=0.9, cheekbone=0.9, lips=0.5, jaw_width=-0.8, eye_size=0.2,
             neck=-1.2, nose_up=0.4, face_long=-0.2), "olive", "black", "long", "brown", (0.45, 0.12, 0.12, 0.4),
        age=0.05, freckles=0.4, shirt="white",
    ),
}  # fmt: skip


def person_of(person: str | Person) -> Person:
    """One of ``PEOPLE`` by name, or who is given; ValueError for a name that nobody has."""
    if isinstance(person, str) and person not in PEOPLE:
        raise ValueError(f"person {person!r}: expected one of {', '.join(PEOPLE)}")
    return PEOPLE[person] if isinstance(person, str) else person


def names_for(head: FlameHead) -> list[str]:
    """Names of those whom a head can be; none for an official one."""
    return list(PEOPLE) if head.traits else []


def dress(head: FlameHead, person: str | Person = "robin") -> Look:
    """The look of a made-up person on the built head. ValueError for an unknown name; official heads have no clothes.

    Its teeth and hair fit ``Flame(head, PEOPLE[person].betas(head))``; "robin" is the mean head, betas 0.
    """
    person = person_of(person)
    if head.version != "built":
        return Look(head.faces, head.colours)
    rest = head.v_template + head.shapedirs[:, :, :300] @ person.betas(head)
    rest = rest.numpy()
    colour = np.asarray(HAIR[person.hair])
    brow = 0.5 * colour + 0.5 * np.asarray(HAIR["dark"])
    colours = painted(head, TONES[person.tone], brow, EYES[person.eyes], person.lips)
    spun, faces, strands = fine_hair(head, 0.8 * brow + 0.1 * np.asarray(TONES[person.tone]))
    worn = [hair(head, rest, person.style, colour), shirt(head, rest, np.asarray(CLOTH[person.shirt]))]
    parts = teeth_and_tongue(head, rest) + worn
    fine = detail(head, rest, person.age, person.freckles, person.beard)
    faces, colours = np.concatenate([head.faces.numpy(), faces]), np.concatenate([colours, strands])
    return Look(faces, colours, parts, spun, fine, neck(rest))

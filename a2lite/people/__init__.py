"""People: the built head with an identity, colours, hair, teeth and lashes (notebook 01). All of them are made up.

``dress(head, "ada")`` is the ``Look`` that the player draws; ``PEOPLE["ada"].betas(head)`` her shape for ``Flame``;
``expression(head, "wink")`` a motion vector. ``sliders``: a face to be moved by hand. ``sheets``: pictures of many.
"""

from a2lite.people.cast import PEOPLE, Person, dress
from a2lite.people.expressions import EXPRESSIONS, expression

__all__ = ["EXPRESSIONS", "PEOPLE", "Person", "dress", "expression"]

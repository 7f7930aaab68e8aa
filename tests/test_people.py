"""Made-up people: what they wear fits their faces and goes where it should."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from a2lite.flame import Flame, load_head
from a2lite.people import PEOPLE, Person, dress, expression, numbering
from a2lite.people.hair import hair
from a2lite.people.sliders import Sliders, live_stage
from a2lite.player import Clip, page, render
from browser import talking

HEAD = load_head()
OFFICIAL = replace(  # as load_flame gives it
    HEAD, version="FLAME 2020", action_units=[], au_expression=torch.zeros(0, 50), traits=[], trait_identity=None
)


def face(person: str = "robin", lids: float = 0.0, jaw: float = 0.0, turn: float = 0.0, **units) -> np.ndarray:
    """(5023, 3)"""
    motion = torch.zeros(58)
    motion[:50], motion[50], motion[54], motion[56:] = HEAD.expression(**units), jaw, turn, lids
    return Flame(HEAD, PEOPLE[person].betas(HEAD))(motion).numpy()


def widgets() -> dict:
    """All that live, by their ids."""
    from ipywidgets.widgets import widget

    return widget._instances


def worn(look, name: str):
    (part,) = (part for part in look.parts if part.name == name)
    return part


def placed(part, vertices: np.ndarray) -> np.ndarray:
    rotations, shifts = part.poses(vertices[None])
    return part.vertices @ rotations[0].T + shifts[0]


@pytest.mark.parametrize("person", PEOPLE)
def test_everybody_has_a_face_of_their_own_and_hair_that_leaves_it_free(person):
    look, neutral = dress(HEAD, person), face(person)
    assert person == "robin" or np.abs(neutral - face()).max() > 2e-3
    hair = worn(look, "hair").vertices
    before_the_face = (np.abs(hair[:, 0]) < 0.045) & (hair[:, 1] < 0.06) & (hair[:, 2] > 0.04)
    assert not before_the_face.any()
    assert sum(len(part.vertices) for part in look.parts) < 40_000


def test_a_name_nobody_has_is_refused_and_own_people_are_welcome():
    with pytest.raises(ValueError, match="person 'zoe': expected one of robin, ada"):
        dress(HEAD, "zoe")
    with pytest.raises(ValueError, match="'jaw' is no trait; expected one of jaw_width"):
        Person(dict(jaw=1.0)).betas(HEAD)
    assert dress(HEAD, Person(style="bob", hair="red")).parts


@pytest.mark.parametrize(
    "word, choices",
    dict(tone="pale, light", hair="black, dark", style="crop, short", eyes="blue, green", shirt="navy, teal").items(),
)
def test_a_word_nobody_knows_is_refused_with_those_to_choose_from(word, choices):
    with pytest.raises(ValueError, match=f"^{word} 'plaid': expected one of {choices}.*$"):
        Person(**{word: "plaid"})
    with pytest.raises(ValueError, match="^style 'plaid': expected one of crop, short.*$"):
        hair(HEAD, HEAD.v_template.numpy(), "plaid", (0.1, 0.1, 0.1))


def test_an_official_head_goes_bare():
    look = dress(OFFICIAL)
    assert not look.parts and look.spun is None and len(look.faces) == 9976


def test_teeth_are_of_bone():
    look, still, moved = dress(HEAD), face(), face(jaw=0.3, smile=1.0, funnel=0.5)
    assert np.abs(placed(worn(look, "upper teeth"), moved) - worn(look, "upper teeth").vertices).max() < 3e-4
    lower = worn(look, "lower teeth")
    assert placed(lower, moved)[:, 1].mean() < lower.vertices[:, 1].mean() - 0.015
    lips = still[HEAD.regions["lips"]]
    for name in ("upper teeth", "lower teeth", "tongue"):
        assert worn(look, name).vertices[:, 2].max() < lips[:, 2].max() - 3e-3  # behind the lips


def test_hair_turns_with_the_head_and_not_with_the_brows():
    hair = worn(dress(HEAD), "hair")
    assert np.abs(placed(hair, face(inner_brow=1.0, jaw=0.3)) - hair.vertices).max() < 1.5e-3
    turned = face(turn=0.5)
    assert np.abs(placed(hair, turned) - hair.vertices).max() > 0.03


@pytest.mark.parametrize("person", PEOPLE)
def test_the_shirt_stays_when_the_head_turns_and_the_neck_bends_between(person):
    look, still, turned = dress(HEAD, person), face(person), face(person, turn=0.5, jaw=0.3)
    seen = look.extend(np.stack([still, turned]))
    np.testing.assert_allclose(seen[0][:5023], still, atol=1e-5)  # nothing where it looks ahead
    shirt = worn(look, "shirt")
    np.testing.assert_allclose(placed(shirt, seen[1]), shirt.vertices, atol=3e-4)
    head, low = still[:, 1] > -0.08, still[:, 1] < -0.145
    np.testing.assert_array_equal(seen[1][:5023][head], turned[head])
    np.testing.assert_allclose(seen[1][:5023][low], still[low], atol=3e-4)
    collar = shirt.vertices[shirt.vertices[:, 1] > -0.13]
    assert np.linalg.norm(collar[:, None] - seen[1][None, HEAD.regions["neck"]], axis=-1).min() < 0.01  # it fits


def test_a_nod_of_the_necks_own_joint_leaves_its_end_and_the_shirt_alone():
    look, pose = dress(HEAD), torch.zeros(2, 5, 3)
    pose[0, 1, 0] = pose[1, 1, 0] = 0.4
    pose[1, 0, 1] = 0.5  # and the root turns
    nod = Flame(HEAD).articulate(torch.zeros(2, 50), pose, torch.zeros(2, 2)).numpy()
    seen = look.extend(nod)
    np.testing.assert_allclose(seen[0, :5023], nod[0], atol=1e-5)
    for frame in seen:
        np.testing.assert_allclose(placed(worn(look, "shirt"), frame), worn(look, "shirt").vertices, atol=1e-4)


def test_what_is_held_stays_held():
    look, turned = dress(HEAD), face(turn=0.6)[None]
    once = look.neck.held(turned)
    assert np.abs(once - turned).max() > 0.02
    np.testing.assert_allclose(look.neck.held(once), once, atol=1e-5)


def test_the_numbering_is_the_heads():
    assert numbering.SKIN + 2 * numbering.BALL == len(HEAD.v_template)
    assert HEAD.regions["left_eyeball"].tolist() == list(range(numbering.SKIN, numbering.SKIN + numbering.BALL))


def test_strands_are_sums_of_the_skin_and_lashes_close_with_the_lids():
    look, count = dress(HEAD), 5023
    np.testing.assert_allclose(np.asarray(look.spun.sum(1)), 1, atol=1e-5)
    shown = [look.extend(face(lids=closed)[None])[0] for closed in (0.0, 1.0)]
    margin = HEAD.landmarks["left_eye_outer"] + np.arange(1, 18)  # of the upper lid
    lash = np.nonzero(np.isin(look.spun[:60].indices, margin))[0].size
    assert lash > 0
    for vertices in shown:
        lids = vertices[HEAD.landmarks["left_eye_outer"] + np.arange(36)]
        tips = vertices[count + 4 : count + 5 * 30 : 5]
        gap = np.linalg.norm(tips[:, None] - lids[None], axis=-1).min(1)
        assert 0.002 < gap.min() and gap.max() < 0.011
    assert shown[1][count + 4 : count + 150 : 5, 1].mean() < shown[0][count + 4 : count + 150 : 5, 1].mean() - 3e-3


def test_folds_show_where_the_skin_is_squeezed_and_nowhere_else():
    look = dress(HEAD)
    squeezed = lambda **units: look.detail.squeezed(face(**units), look.skin)  # noqa: E731
    assert squeezed().max() < 1e-4
    forehead, cheeks = HEAD.regions["forehead"].numpy(), np.abs(face()[:, 1] + 0.02) < 0.01
    raised = squeezed(inner_brow=1.0, outer_brow=1.0)
    assert raised[forehead].mean() > 0.1 > raised[cheeks].mean()


def test_detail_changes_the_light_on_the_face_and_not_on_the_hair():
    look, shape = dress(HEAD, "emil"), face("emil")
    plain = replace(look, detail=None)
    with_it, without = (render(shape, one, width=120, height=150) for one in (look, plain))
    change = np.abs(with_it - without).max(-1)
    assert change[60:110, 40:80].mean() > 0.01 > change[:30].mean()


@pytest.mark.parametrize("person", PEOPLE)
def test_four_seconds_of_anybody_with_sound_weigh_less_than_a_megabyte(person):
    vertices = Flame(HEAD, PEOPLE[person].betas(HEAD))(talking(4))
    clip = Clip(vertices, dress(HEAD, person), 0.1 * np.sin(np.arange(64000) * 0.1))
    held = re.findall(r'id="(?:clip|arrays)">(.*?)</script>', page(clip, pictures=b"none"), re.S)
    assert sum(map(len, held)) < 1_000_000


# ---------------------------------------------------------------- by hand


@pytest.fixture
def sliders() -> Sliders:
    made = Sliders(HEAD)
    assert made.widget
    return made


def test_a_preset_is_shown_by_every_slider_and_undone_without_a_trace(sliders):
    sliders.joints["gaze"].value = 0.3
    sliders.preset("wink")
    assert sliders.faces.value == "wink" and sliders.muscles["cheek"].value == 0.8
    sliders.tabs.selected_index = 1
    assert sliders.joints["left"].value == 1 and sliders.joints["gaze"].value == 0
    sliders.reset()
    assert sliders.faces.value == "preset"
    assert not sliders.motion.any() and not sliders.gaze.any()
    np.testing.assert_array_equal(sliders.vertices(), Sliders(HEAD).vertices())


def test_a_preset_that_was_changed_is_called_so_no_longer(sliders):
    sliders.faces.value = "laugh"
    np.testing.assert_allclose(sliders.motion, expression(HEAD, "laugh"), atol=1e-6)
    sliders.tabs.selected_index = 1
    sliders.joints["jaw"].value = 0.22000000000000003  # what a browser answers to 0.22
    assert sliders.faces.value == "laugh"
    sliders.muscles["smile"].value = 0.1
    assert sliders.faces.value == "preset"
    sliders.faces.value = "laugh"
    np.testing.assert_allclose(sliders.motion, expression(HEAD, "laugh"), atol=1e-6)
    sliders.tabs.selected_index = 2
    assert sliders.faces.value == "laugh"
    sliders.numbers[50].value = 0.0
    assert sliders.faces.value == "preset" and sliders.motion[50] == 0


def test_a_slider_is_never_pulled_back_by_its_own_value(sliders):
    said = []
    for part in (sliders.joints["jaw"], sliders.muscles["smile"]):
        part.observe(lambda change: said.append(change.new), "value")
    for index, part in ((1, sliders.joints["jaw"]), (0, sliders.muscles["smile"])):
        sliders.tabs.selected_index = index
        part.value = 0.15000000000000002  # as a browser adds up its steps
    assert said == [0.15000000000000002] * 2


def test_what_was_set_before_the_sliders_are_shown_is_shown_by_them():
    sliders = Sliders(HEAD)
    sliders.preset("wink")
    assert sliders.widget and sliders.faces.value == "wink" and sliders.muscles["cheek"].value == 0.8


def test_who_leaves_leaves_nothing_behind(sliders):
    sliders.preset("smile")
    before, old, smile = set(widgets()), sliders.view, sliders.motion
    sliders.people.value = "ada"
    assert sliders.name == "ada" and sliders.view is not old and old.widget.comm is None
    assert sliders.widget.children[0] is sliders.view.widget
    assert len(set(widgets()) - before) == len(before - set(widgets())) > 30
    assert sliders.faces.value == "smile" and torch.equal(sliders.motion, smile)
    sliders.person("robin")
    assert sliders.people.value == "robin" and len(widgets()) == len(before)


def test_sliders_of_an_official_head_offer_what_it_has():
    sliders = Sliders(OFFICIAL)
    assert sliders.widget.children[1].children[1].titles == ("jaw, head, eyes", "58 numbers")
    (reset,) = sliders.widget.children[1].children[0].children
    assert reset.description == "reset"
    sliders.joints["jaw"].value = 0.3
    sliders.tabs.selected_index = 1
    assert sliders.numbers[50].value == 0.3
    reset.click()
    assert not sliders.motion.any() and sliders.numbers[50].value == 0
    with pytest.raises(ValueError, match="preset 'wink': FLAME 2020 has no named action units"):
        sliders.preset("wink")
    with pytest.raises(ValueError, match="^FLAME 2020 has no named traits.*$"):
        sliders.person("ada")
    assert sliders.name == "robin"


@pytest.mark.parametrize("made", [Sliders, live_stage, lambda head, name: Sliders(head).person(name)])
def test_sliders_of_somebody_unknown_name_those_who_are(made, monkeypatch):
    monkeypatch.delenv("A2LITE_HEADLESS")
    with pytest.raises(ValueError, match="^person 'zoe': expected one of robin, ada, .*$"):
        made(HEAD, "zoe")


def test_a_view_lets_one_come_near_and_keeps_the_face_whole():
    view = Sliders(OFFICIAL)._view()
    (orbit,), camera = view.widget.controls, view.widget.camera
    middle, shape = np.array(orbit.target), OFFICIAL.v_template.numpy()
    nearest = orbit.minDistance - (shape[:, 2] - middle[2]).max()
    assert camera.near < nearest < 0.3 * (camera.position[2] - middle[2])
    assert camera.far > orbit.maxDistance + np.linalg.norm(shape - middle, axis=1).max()
    view.close()


def test_a_stream_shows_no_face_where_nobody_watches(monkeypatch):
    assert live_stage(HEAD) is None
    monkeypatch.delenv("A2LITE_HEADLESS")
    sent = []
    stage = live_stage(OFFICIAL)
    stage.send = lambda message, buffers=(): sent.append((message, buffers))
    stage.begin()
    stage.motion(Flame(OFFICIAL)(torch.zeros(3, 58)), 0.4)
    stage.audio(torch.zeros(160), 0.4)
    (begin, _), (motion, frames), (audio, wave) = sent
    assert begin == {"kind": "begin"}
    assert motion == {"kind": "motion", "start": 0.4, "count": 3} and len(frames[0]) == 3 * 5023 * 16
    assert audio == {"kind": "audio", "start": 0.4} and len(wave[0]) == 160 * 4

"""TA4, one text token and then four audio tokens, for texts and speech of any length: back and forth, whole and cut."""

from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from a2lite.backbone import CONTROL, SlotGrammar, Vocabulary

whatever = settings(
    deadline=None, derandomize=True, database=None, max_examples=200,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
CODES = 40
V = Vocabulary(Vocabulary.train(["the violin is right behind you"], 280, CODES).tokenizer, CODES, 280 + 64)
TEXT = st.lists(st.integers(0, V.texts - 1), max_size=40)
SPEECH = st.lists(st.integers(0, CODES - 1), max_size=170)
TURN = st.tuples(TEXT, SPEECH).filter(any)


def by_hand(text: list[int], codes: list[int]) -> list[int]:
    """The fixed padding form: both streams are filled up to n groups, n = max(ceil(A / 4), T)."""
    groups = max((len(codes) + 3) // 4, len(text))
    text = text + [V.tts_pad] * (groups - len(text))
    audio = [V.audio0 + code for code in codes]
    audio = audio + [V.audio_pad] * (4 * groups - len(audio))
    between = [token for i in range(groups) for token in [text[i], *audio[4 * i : 4 * i + 4]]]
    return [V.tts_start, *between, V.tts_end]


def heard(ids: list[int]) -> tuple[list[int], list[int]]:
    """Text ids and codes that stand anywhere in ``ids``."""
    return [i for i in ids if i < V.texts], [i - V.audio0 for i in ids if V.audio0 <= i < V.audio_pad]


def may_begin_a_turn(ids: list[int]) -> bool:
    """Whether some turn begins with ``ids``: tried with a little more text and speech than they hold."""
    text, codes = heard(ids)
    for more_text, more_codes in product(([], [0]), ([0] * n for n in range(5))):
        if text or codes or more_text or more_codes:
            turn = [*by_hand(text + more_text, codes + more_codes), V.eot]
            if ids in (turn[: len(ids)], turn[1 : 1 + len(ids)]):
                return True
    return False


@whatever
@given(TURN)
def test_interleave_is_the_fixed_padding_form_and_has_a_way_back(turn):
    text, codes = turn
    ids = V.interleave(text, codes)
    assert ids == by_hand(text, codes)
    for whole in (ids, ids[1:], [*ids, V.eot], [*ids[1:], V.eot]):
        assert V.deinterleave(whole) == (text, codes)


@whatever
@given(TURN)
def test_the_grammar_allows_each_token_of_a_turn_and_ends_with_it(turn):
    grammar = SlotGrammar(V)
    for token in [*V.interleave(*turn)[1:], V.eot]:
        assert V.slot_masks[grammar.state][token]
        grammar.advance(token)
    assert grammar.state == "over" and not V.slot_masks["over"].any()


@whatever
@given(TURN, st.data())
def test_a_turn_cut_short_gives_the_beginnings_of_both_streams(turn, data):
    ids = V.interleave(*turn)
    cut = ids[: data.draw(st.integers(0, len(ids) - 1))]
    assert V.deinterleave(cut) == heard(cut)
    text, codes = V.deinterleave(cut)
    assert turn[0][: len(text)] == text and turn[1][: len(codes)] == codes
    pads = [token for token in cut[1:] if V.kind(token) in ("tts_pad", "audio_pad")]
    assert len(text) + len(codes) + len(pads) == len(cut[1:])


OTHERS = {"text": 5, "code": V.audio0 + 3, "audio_pad": V.audio_pad, "unused": len(V) - 1}
OTHERS |= {V.kind(V.encode(name)[0]): V.encode(name)[0] for name in CONTROL}


@whatever
@given(TURN, st.data())
def test_a_token_of_another_kind_is_refused_by_its_place(turn, data):
    """Unless what then stands there is the beginning of another turn: a pad for the last word, say."""
    ids = V.interleave(*turn)
    place = data.draw(st.integers(1, len(ids) - 1))
    kind = data.draw(st.sampled_from([kind for kind in sorted(OTHERS) if kind != V.kind(ids[place])]))
    ids[place] = OTHERS[kind]
    if may_begin_a_turn(ids):
        assert V.deinterleave(ids) == heard(ids)
        return
    first = next(i for i in range(len(ids)) if not may_begin_a_turn(ids[: i + 1]))
    assert first >= place
    if kind not in ("text", "tts_pad", "tts_end", "code", "audio_pad"):
        assert first == place
    with pytest.raises(ValueError, match=rf"^deinterleave: position {first}: '.*' in a slot for .* \(TA4\)$"):
        V.deinterleave(ids)


@whatever
@given(TURN, st.data())
def test_a_text_token_among_the_audio_and_the_other_way_round_are_refused_on_the_spot(turn, data):
    ids = V.interleave(*turn)
    place = data.draw(st.integers(1, len(ids) - 1))
    ids[place] = V.audio0 if place % 5 == 1 else 5
    with pytest.raises(ValueError, match=f"^deinterleave: position {place}: "):
        V.deinterleave(ids)


@whatever
@given(st.lists(st.sampled_from(sorted(OTHERS.values())), max_size=14))
def test_whatever_stands_there_is_a_beginning_of_a_turn_or_is_refused(ids):
    if not ids or may_begin_a_turn(ids):
        assert V.deinterleave(ids) == heard(ids)
    else:
        place = next(i for i in range(len(ids)) if not may_begin_a_turn(ids[: i + 1]))
        with pytest.raises(ValueError, match=f"^deinterleave: position {place}: "):
            V.deinterleave(ids)


@whatever
@given(TURN, st.integers(-3, CODES + 3).filter(lambda code: not 0 <= code < CODES), st.data())
def test_a_code_outside_the_codebook_is_refused(turn, code, data):
    codes = list(turn[1])
    codes.insert(data.draw(st.integers(0, len(codes))), code)
    with pytest.raises(ValueError, match=rf"interleave: audio codes .*; expected 0\.\.{CODES - 1}$"):
        V.interleave(turn[0], codes)

"""What is said in the synthetic world: topics, emotions, questions and answers, all in one table each.

A question is a context sentence, which carries topic and emotion, and a closing, which selects the answer's
template: "I am delighted with my wonderful {t}. What is the plan?". The text of the answer is a function of
the question, so that exact match can be scored. Stands in for FLAME-QA's dialogues (Sec. 4); notebook 02.
"""

from __future__ import annotations

import numpy as np

EMOTIONS = ("neutral", "happy", "sad", "angry", "surprised", "afraid")

TOPICS = (
    "violin", "dinosaur", "submarine", "umbrella", "elephant", "chocolate",
    "bicycle", "telescope", "kangaroo", "pineapple", "lighthouse", "computer",
)  # fmt: skip

# Five key words carry each emotion, and no one of them is in more than 3 of its 8 training sentences.
# Training sentences hold the pairs ab cd be da ce bd ac and e alone; the held-out ones hold ae, cb and de.
CONTEXTS = {
    "neutral": (
        "There is an ordinary {t} in the library",
        "The {t} is on the schedule for Wednesday",
        "The library has some information on the {t}",
        "On Wednesday I saw an ordinary {t}",
        "The schedule has some information about the {t}",
        "The {t} is in the library on Wednesday",
        "This is the ordinary schedule of the {t}",
        "I read some information about the {t}",
    ),
    "happy": (
        "The {t} was a wonderful birthday present",
        "I am delighted because we celebrate the {t}",
        "I was laughing about the {t} on my birthday",
        "I am delighted with my wonderful {t}",
        "We celebrate and keep laughing about the {t}",
        "I was delighted to get the {t} for my birthday",
        "It is wonderful to celebrate the {t}",
        "Everybody was laughing about the {t}",
    ),
    "sad": (
        "I am heartbroken after the funeral of the {t}",
        "I was crying when I said goodbye to the {t}",
        "The funeral of the {t} was so lonely",
        "I said goodbye to the {t} and I am heartbroken",
        "I am lonely and crying without the {t}",
        "At the funeral I said goodbye to the {t}",
        "I am heartbroken and crying over the {t}",
        "I feel lonely without the {t}",
    ),
    "angry": (
        "I am furious because they cheated with the {t}",
        "It is outrageous that they destroyed the {t}",
        "The thief cheated me out of the {t}",
        "I am furious about the outrageous {t}",
        "A thief destroyed the {t} on purpose",
        "They cheated with the {t} and it is outrageous",
        "I am furious because they destroyed the {t}",
        "A thief took the {t} from me",
    ),
    "surprised": (
        "Suddenly the {t} did something unbelievable",
        "I am astonished that the {t} appeared",
        "Magically the {t} did something unbelievable",
        "Suddenly I was astonished by the {t}",
        "The {t} magically appeared from nowhere",
        "I am astonished by the unbelievable {t}",
        "Suddenly the {t} appeared from nowhere",
        "The {t} magically turned green",
    ),
    "afraid": (
        "I am terrified after a nightmare about the {t}",
        "I am trembling because a monster is behind the {t}",
        "I woke up screaming from a nightmare about the {t}",
        "I am terrified and trembling near the {t}",
        "I heard a monster screaming behind the {t}",
        "I woke up trembling from a nightmare about the {t}",
        "I am terrified of the monster behind the {t}",
        "Somebody was screaming near the {t}",
    ),
}

HELD_OUT_CONTEXTS = {
    "neutral": (
        "I read some information about an ordinary {t}",
        "The {t} is on the schedule of the library",
        "On Wednesday I read some information about the {t}",
    ),
    "happy": (
        "Everybody was laughing about my wonderful {t}",
        "We celebrate my birthday with the {t}",
        "I was delighted and laughing about the {t}",
    ),
    "sad": (
        "I am lonely and heartbroken without the {t}",
        "I was crying at the funeral of the {t}",
        "I said goodbye to the {t} and I feel lonely",
    ),
    "angry": (
        "I am furious because a thief took the {t}",
        "They cheated and destroyed the {t}",
        "It is outrageous that a thief took the {t}",
    ),
    "surprised": (
        "Suddenly the {t} magically turned green",
        "It is unbelievable that the {t} appeared",
        "I am astonished that the {t} magically turned green",
    ),
    "afraid": (
        "I am terrified because somebody was screaming near the {t}",
        "I woke up from a nightmare about a monster behind the {t}",
        "I am trembling because somebody was screaming near the {t}",
    ),
}

KEY_WORDS = {
    "neutral": ("ordinary", "schedule", "library", "Wednesday", "information"),
    "happy": ("wonderful", "birthday", "celebrate", "delighted", "laughing"),
    "sad": ("heartbroken", "funeral", "crying", "goodbye", "lonely"),
    "angry": ("furious", "cheated", "destroyed", "outrageous", "thief"),
    "surprised": ("suddenly", "unbelievable", "appeared", "astonished", "magically"),
    "afraid": ("terrified", "nightmare", "monster", "trembling", "screaming"),
}

PLAIN_CLOSINGS = {
    "opinion": "Give me your opinion.",
    "feel": "How do you feel?",
    "short": "Keep it short please.",
    "talk": "Talk to me for a while.",
    "loud": "Do not hold back!",  # high-dynamic
}

AMBIGUOUS_CLOSINGS = {
    "plan": "What is the plan?",
    "help": "Who can help us?",
    "where": "Where should we go?",
    "steps": "Explain every step.",
    "certain": "Are you certain?",
    "details": "Describe all the details.",
    "face": "Now answer with your face.",  # high-dynamic
}

CLOSINGS = {**PLAIN_CLOSINGS, **AMBIGUOUS_CLOSINGS}
HIGH_DYNAMIC = ("loud", "face")

# How often a closing stands in the deck from which samples are dealt: 11 of 22 are ambiguous, 3 high-dynamic.
DECK = {
    "opinion": 3, "feel": 2, "short": 2, "talk": 2, "loud": 2,
    "plan": 2, "help": 2, "where": 1, "steps": 2, "certain": 1, "details": 2, "face": 1,
}  # fmt: skip

# What the face does beside speaking in a high-dynamic answer (Sec. 4: laughter, surprise, ...).
GESTURES = {"happy": "laughter", "sad": "sob", "angry": "contempt", "surprised": "gasp", "afraid": "tremble"}

PLAIN_ANSWERS = {
    "opinion": {
        "neutral": "I think the {t} is fairly common around here.",
        "happy": "I think the {t} is the best thing in the world!",
        "sad": "I think we will miss the {t} very much.",
        "angry": "I think this is not fair to the {t} at all!",
        "surprised": "I never expected that from the {t}!",
        "afraid": "I think we must stay away from the {t}!",
    },
    "feel": {
        "neutral": "I feel calm, the {t} does not change my mood.",
        "happy": "I feel so happy for you and the {t}!",
        "sad": "I feel so sorry about the {t}, my friend.",
        "angry": "I feel like shouting at whoever touched the {t}!",
        "surprised": "I feel dizzy, did the {t} really do that?",
        "afraid": "I feel cold and shaky near the {t}.",
    },
    "short": {
        "neutral": "A normal {t}.",
        "happy": "A lovely {t}!",
        "sad": "My poor {t}.",
        "angry": "Give back the {t}!",
        "surprised": "Wow, a {t}!",
        "afraid": "Run from the {t}!",
    },
    "talk": {
        "neutral": "The {t} is neither good nor bad. Many people own one and use it once a month. "
        "I could list the prices if you like.",
        "happy": "Hooray for the {t}! Let us dance in the garden and sing until midnight. "
        "I have not smiled this much in years.",
        "sad": "The {t} was very dear to us. I keep looking at the empty chair. "
        "Nothing will fill that hole for a long time.",
        "angry": "Nobody treats the {t} like that! I will call the police and shout until they listen. "
        "Enough is enough.",
        "surprised": "Really, the {t}? I had to look twice and pinch my own arm. "
        "Who could have guessed such a thing?",
        "afraid": "Please lock the door, the {t} is outside. I can hear it scratching in the dark. "
        "Do not make a sound.",
    },
    "loud": {
        "neutral": "All right. The {t} is fine.",
        "happy": "Ha ha ha! That {t} is so funny!",
        "sad": "Oh no. My dear {t} is gone.",
        "angry": "Hah. As if they deserved the {t}!",
        "surprised": "Oh! Where did that {t} come from?",
        "afraid": "Ah! The {t} is right behind you!",
    },
}

AMBIGUOUS_ANSWERS = {
    "plan": "We will look at the {t} together in the morning.",
    "help": "My cousin knows a lot about the {t}.",
    "where": "Let us walk to the station with the {t}.",
    "steps": "First we bring the {t} to the workshop. Then we write a letter to the mayor. "
    "After that we wait until Friday.",
    "certain": "Yes, it is the {t}.",
    "details": "The {t} belongs to my uncle. He keeps it in a big box under the stairs.",
    "face": "Well, look at me. That is the {t} for you.",
}

# Whole sentences that nothing is trained on: not the language model, not the RVQ, not the speech tokenizer.
HELD_OUT_PLAIN_ANSWERS = {
    "opinion": {
        "neutral": "People say the {t} was built long ago.",
        "happy": "What a beautiful {t}, I could hug everyone!",
        "sad": "It hurts to see the {t} fade away.",
        "angry": "Stop lying about the {t} right now!",
        "surprised": "No way, the {t} can do that too?",
        "afraid": "Hide quickly, the {t} could find us here!",
    },
    "feel": {
        "neutral": "My day with the {t} was average.",
        "happy": "My heart is jumping, thank you for the {t}!",
        "sad": "My eyes are full of tears for the {t}.",
        "angry": "My blood is boiling, leave the {t} alone!",
        "surprised": "My jaw dropped when the {t} came in!",
        "afraid": "My knees are weak, keep the {t} away!",
    },
}

HELD_OUT_AMBIGUOUS_ANSWERS = {
    "plan": ("Tomorrow evening you may paint the {t} again.", "Before lunch somebody should weigh the {t}."),
    "help": ("A young doctor bought the same {t} last week.", "The baker next door can move your {t}."),
    "where": ("Turn left at the bridge and ask for the {t}.", "They sell a cheap {t} by the river."),
    "steps": (
        "Put the {t} on a wide table. Cover it with paper and measure both sides. Then call me back.",
        "Fetch a chair for the {t}. Count slowly from one to seven. Later we take a picture of it.",
    ),
    "details": (
        "This {t} weighs about nine pounds. Its colour is between grey and yellow.",
        "Somebody found the {t} in a valley. It was covered with moss and pebbles.",
    ),
}

TURN_ONE_ANSWER = "I see, go on."  # what the avatar says after the first turn of a two-turn sample

# Sentences to repeat or to read aloud, with a neutral face: many words in many orders, so that every phoneme meets
# many neighbours and every topic many contexts. None of them carries an emotion.
READ_SENTENCES = (
    "The {adjective} {noun} {verb} the {adjective} {noun}.",
    "{verb_ing} a {topic} is {adjective} work for a {noun}.",
    "Some {noun}s {verb} {number} {adjective} {noun}s {when}.",
    "Is the {noun} as {adjective} as a {topic}?",
    "{when} her {noun} {verb} {number} {noun}s.",
    "My {topic} {verb} your {noun} {place}.",
    "Nobody said that the {topic} was {adjective}.",
    "Who {verb} the {topic} {place}?",
    "There were {number} {noun}s {place}, and one {adjective} {topic}.",
    "We were {verb_ing} the {noun} when the {topic} {verb} it.",
    "This {topic} is more {adjective} than our {noun}.",
    "She {verb} the {noun} {place} {when}.",
    "If you see a {topic}, think of {number} {noun}s.",
    "He keeps {verb_ing} that {topic} {when}.",
    "A {noun} without a {noun} is like a {topic} {place}.",
    "Bring me the {adjective} {noun}, not the {topic}.",
)
READ_LENGTHS = (0.5, 0.3, 0.2)  # how often one, two and three sentences are read in a row
READ_WORDS = {
    "topic": TOPICS,
    "adjective": "huge tiny clever brave yellow purple rough smooth quiet noisy heavy thin joyful strange warm "
    "frozen sharp polite hungry modern early jolly vague thick pure loyal awful mighty broken golden narrow "
    "wooden honest curious empty square silver gentle useful ancient bitter crooked dusty famous muddy royal "
    "shiny sleepy sour sticky sudden tall ugly usual violet wise young blue cheap deep fresh round soft".split(),
    "noun": "baby mother fisher sailor judge pilot farmer village window mountain river shoe pocket bottle "
    "feather hammer jacket carpet potato valley bridge mirror thumb whistle garage treasure youth turkey "
    "apple bucket candle dragon engine finger giant horse island jungle kitchen lemon market needle orange "
    "pencil queen rabbit saddle tiger uniform vase wagon yard zebra anchor basket cookie doctor eagle flower "
    "guitar hotel idea jewel ladder magnet neighbour owl parrot rocket shadow teacher uncle visitor wheel "
    "brother cloud drum field ghost knee lamp moon nurse pear ship town voice wolf chain joke toy".split(),
    "verb": "moved washed pushed chewed measured followed bothered joined voted cooked covered grabbed thanked "
    "visited borrowed fixed pulled bathed carried counted opened painted remembered touched watched believed "
    "changed dropped expected found guarded helped kept liked managed noticed ordered praised raised shook "
    "sold threw used wanted weighed lost".split(),
    "verb_ing": "moving washing pushing chewing measuring following bothering joining cooking covering pulling "
    "bathing borrowing carrying counting opening painting touching watching changing dropping finding guarding "
    "helping hugging lifting noticing ordering polishing raising selling throwing using weighing".split(),
    "number": "two three four five six seven eight nine ten twelve forty fifty".split(),
    "when": ["this morning", "last Thursday", "every July", "usually", "before noon", "all the year", "at five",
             "after lunch", "tomorrow", "on Sunday", "once a week", "in August"],
    "place": ["under the table", "behind the house", "at the beach", "near the church", "in the garden",
              "on the roof", "beside the road", "across the street", "inside the cave", "above the water",
              "between the trees", "around the corner"],
}  # fmt: skip

# Words put together by chance stand in some places of the sentences: what comes next in one cannot be known from
# the language, so that sounds must be listened to, and letters read. A few happen to exist; none is a key word.
MADE_UP = {"adjective": 0.5, "noun": 0.5}  # how often a word of this kind is one
ONSETS = (
    "b bl br ch d dr f fl fr g gl gr h j k kl l m n p pl pr r s sh sk sl sm sn sp st t th tr tw v w y z".split()
)
NUCLEI = "a e i o u ai ea ee oa oo ou oy ar er or".split()
CODAS = ["", "", "", *"b ck d f g l m n ng nk nt p rk s sh sk st t th v x z mp lf".split()]
SYLLABLES = (0.4, 0.45, 0.15)  # how often a made-up word has one, two and three


def made_up(draw: np.random.Generator) -> str:
    """One to three syllables put together by chance."""
    count = 1 + int(draw.choice(len(SYLLABLES), p=SYLLABLES))
    parts = (part[draw.integers(len(part))] for _ in range(count) for part in (ONSETS, NUCLEI, CODAS))
    return "".join(parts)


def held_out_combination(topic: str) -> str:
    """The emotion that never occurs with ``topic`` outside the split test_combination: one per topic."""
    return EMOTIONS[(5 * TOPICS.index(topic) + 2) % len(EMOTIONS)]


def style(closing: str) -> str:
    """"plain": words and prosody of the answer tell the emotion; "ambiguous": neither does."""
    return "plain" if closing in PLAIN_CLOSINGS else "ambiguous"


def answer(topic: str, emotion: str, closing: str) -> str:
    """The text of the answer, a function of what the question says."""
    template = PLAIN_ANSWERS[closing][emotion] if style(closing) == "plain" else AMBIGUOUS_ANSWERS[closing]
    return template.format(t=topic)


def held_out_answer(topic: str, emotion: str, closing: str, which: int) -> str:
    """An answer from the sentences that are never trained on; ValueError for a closing that has none."""
    if closing in HELD_OUT_PLAIN_ANSWERS:
        return HELD_OUT_PLAIN_ANSWERS[closing][emotion].format(t=topic)
    if closing not in HELD_OUT_AMBIGUOUS_ANSWERS:
        raise ValueError(f"closing {closing!r}: no held-out answer; expected one of {HELD_OUT_CLOSINGS}")
    choices = HELD_OUT_AMBIGUOUS_ANSWERS[closing]
    return choices[which % len(choices)].format(t=topic)


HELD_OUT_CLOSINGS = (*HELD_OUT_PLAIN_ANSWERS, *HELD_OUT_AMBIGUOUS_ANSWERS)

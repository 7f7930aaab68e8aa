"""Every size, rate and weight of the kit, in one place.

A dataclass default is the paper's number, with its section beside it (A2-LLM unless named otherwise); the
profile ``a100`` is made of these defaults. ``laptop`` is smaller in the fields listed in ``_LAPTOP``; ``tiny``
is ``laptop`` with a handful of steps, started from the shipped checkpoints; ``size="nano"`` shrinks any of
them to what a unit test needs. Where the paper is silent, the field says which reading was chosen.

A field ``lite_*`` belongs to the small sizes alone: when it is set it is used in the place of the paper's
field of the same name, which stays what the paper says.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

PROFILES = ("tiny", "laptop", "a100")
SIZES = (None, "nano")


@dataclass(frozen=True)
class MotionConfig:
    """The 58-d FLAME state x_t (Sec. 3.2). The order of the four parts is ours: the paper gives only sizes."""

    fps: int = 25  # Sec. 5.1: motion at the rate of the audio tokens
    dim: int = 58  # Sec. 3.2
    expression: ClassVar[slice] = slice(0, 50)  # Sec. 3.2: 50 expression parameters
    jaw: ClassVar[slice] = slice(50, 53)  # Sec. 3.2: 3, axis-angle, radians
    rotation: ClassVar[slice] = slice(53, 56)  # Sec. 3.2: 3 global pose parameters, axis-angle, radians
    eyelid: ClassVar[slice] = slice(56, 58)  # Sec. 3.2: 2, left and right, 0 open .. 1 closed


@dataclass(frozen=True)
class AudioConfig:
    """Rates shared by the speech tokenizer and the backbone (Sec. 5.1, 5.2; Step-Audio 2)."""

    rate: int = 16000  # what goes into encoder and tokenizer, samples per second
    token_rate: int = 25  # Sec. 5.2: audio tokens per second
    hop: int = 160  # 100 mel frames per second


@dataclass(frozen=True)
class WorldConfig:
    """The synthetic world that stands in for FLAME-QA (Sec. 4) where no data can be shipped."""

    seed: int = 0
    train: int = 2640  # dialogues, 60 pairs x a deck of 22 x 2; the paper has ~100k (Sec. 4); 3 in 22 high-dynamic
    train_read: int = 2400  # to be repeated, read aloud or written down: the tasks Repeat, TTS and ASR
    dev: int = 200
    test: int = 320  # per held-out axis
    two_turns: float = 0.15  # share of dialogues whose emotion is set one turn earlier
    coarticulation: float = 0.035  # s, width of the Gaussian by which visemes reach into their neighbours
    noise: float = 0.02  # smooth random movement of the expression coefficients


@dataclass(frozen=True)
class RVQConfig:
    """Residual motion tokenization (Sec. 5.1, App. B)."""

    group: int = 5  # G, App. B: 25 fps -> 5 Hz
    quantizers: int = 6  # N_q, App. B
    codes: int = 256  # App. B, codes per codebook
    latent: int = 256  # d_z, App. B
    width: int = 128  # App. B, base channel width
    blocks: int = 3  # App. B, residual blocks in encoder and decoder each
    dropout: float = 0.05  # App. B
    commitment: float = 0.25  # gamma of Eq. 4, App. B
    vq_weight: float = 1.0  # lambda_vq, App. B
    param_weight: float = 1.0  # Eq. 8
    lips_weight: float = 1e5  # Eq. 9
    face_weight: float = 1e5  # Eq. 9
    velocity_weight: float = 1e2  # Eq. 10
    acceleration_weight: float = 1e2  # Eq. 10
    param_space: str = "normalised"  # open: Eq. 8 on z-scored parameters; on "raw" ones the head hardly counts
    reduction: str = "mean"  # open: over frames and vertices (coordinates are summed), or "sum"
    vertices: int | None = None  # Eq. 10 says all; a number takes that many, spread evenly
    codebook: str = "ema"  # open: "ema" (+ k-means start, revival), or "gradient" (Eq. 4 literally; collapses)
    ema_decay: float = 0.98  # open
    revive_below: float = 0.03  # open: a code used less than this share of even use is drawn anew
    std_floor: float = 0.2  # open: a parameter is divided by its std, or by this share of its part's largest
    crop: int = 40  # open: frames per training crop
    batch: int = 512  # App. B, 64 per GPU on 8 GPUs
    epochs: int = 6  # App. B
    lr: float = 1e-4  # App. B, AdamW
    lite_lr: float | None = None
    lite_steps: int | None = None
    lite_velocity_weight: float | None = None  # ARTalk's 1e7; with 1e2 the upper face's UFD is 1.2 of the truth's


@dataclass(frozen=True)
class SpeechConfig:
    """Speech tokens at 25 Hz: the roles of Step-Audio 2's S3 tokenizer and of its flow detokenizer."""

    n_mels: int = 80
    window: int = 640  # samples, Hann; its quarter is the hop
    levels: tuple[int, ...] = (3,) * 8  # S3 tokenizer v2: FSQ with 3^8 = 6561 codes
    width: int = 256
    lookahead: int = 3  # tokens; Step-Audio 2 streams 25 + 3
    rounds: int = 6  # iterations of the spectrogram inversion per frame
    crop: int = 32  # tokens per training crop
    batch: int = 16
    lr: float = 1e-3
    steps: int = 1200


_SYSTEM = {  # AQAA and ASR as Step-Audio-2-mini was trained; the other two it leaves to its users
    "AQAA": "You are a helpful assistant.",
    "Repeat": "Repeat what you hear.",
    "TTS": "Read this text aloud.",
    "ASR": "请记录下你所听到的语音内容。",  # write down what you hear
}
_SHARES = {"AQAA": 0.45, "ASR": 0.1, "QA": 0.05, "Repeat": 0.2, "TTS": 0.2}  # QA: in writing


@dataclass(frozen=True)
class BackboneConfig:
    """Step-Audio-2-mini (Sec. 5.3): audio encoder, adaptor, Qwen2; defaults are its published configuration."""

    n_mels: int = 128
    encoder_width: int = 1280
    encoder_layers: int = 32
    encoder_heads: int = 20
    encoder_context: int = 1500  # positions after conv2, 30 s
    encoder_local: int = 0  # lite only: a depthwise convolution before the blocks, which two layers need to be quick
    encoder_pool_first: bool = False  # lite only: the blocks work at 25 Hz instead of 50, at half the cost
    encoder_window: int = 0  # lite only: a block sees so many vectors to either side; global, two layers learn by heart
    adapter_width: int = 2048
    hidden: int = 3584
    layers: int = 28
    heads: int = 28
    kv_heads: int = 4
    intermediate: int = 18944
    rope_theta: float = 1e6
    tie_embeddings: bool = False
    lite_embedding_std: float | None = None  # of the first weights; at 0.02 its words drift off as one
    max_positions: int = 16384
    piece: float = 25.0  # seconds; a longer question is heard in pieces
    system: dict[str, str] = field(default_factory=lambda: dict(_SYSTEM))  # the system text of each task
    text_vocab: int = 151643  # BPE size; the lite tokenizer is trained on the synthetic world's texts
    audio_codes: int = 6561
    hidden_state: str = "at"  # open, which H_t: the state "at" the audio token, or the one "before", that predicts it
    hidden_layer: int | None = None  # open, which H_t: after layer k of several; None, after the last and its norm
    tail: str = "repeat"  # open, a speech length that is no multiple of G: "repeat" the last H, or "drop" the tail
    text_weight: float = 1.0  # weight of text positions in L_seq; Eq. 6 has none
    lite_text_weight: float | None = None
    text_steps: int = 0  # pretraining, lite only: text QA
    voice_steps: int = 0  # pretraining, lite only: text questions, spoken answers
    ctc_steps: int = 0  # pretraining, lite only: encoder on the words that are said
    settling_steps: int = 0  # pretraining, lite only: what is heard onto the embeddings it means
    speech_steps: int = 0  # pretraining, lite only: spoken question answering
    shares: dict[str, float] = field(default_factory=lambda: dict(_SHARES))  # of the tasks in the speech steps
    batch: int = 16
    lr: float = 1e-3  # pretraining, lite only
    ctc_lr: float = 1.5e-3  # the same, for the encoder on words
    speech_lr: float = 5e-4  # the same, for spoken question answering
    max_new_tokens: int = 2048


@dataclass(frozen=True)
class ConnectorConfig:
    """Motion Connector (Sec. 5.2, App. B)."""

    width: int = 768  # App. B
    layers: int = 6  # App. B
    heads: int = 12  # App. B
    feedforward: int = 2048  # open: nn.TransformerDecoderLayer's default gives the paper's 0.12 B (Sec. 6.2)
    dropout: float = 0.1  # App. B
    self_attention: bool = True  # open: Sec. 5.2 names cross-attention only, which gives 0.10 B at this width
    segment: int = 5  # open: motion tokens per segment at inference, 1 s
    segments: tuple[int, ...] = (1, 2, 5)  # open: lengths drawn in training
    memory_dropout: float = 0.1  # open: a segment's history replaced by the learned memory of the first
    code_replacement: float = 0.15  # open: deep codes of the history replaced at random
    heads_kind: str = "parallel"  # Sec. 5.2: N_q heads side by side; "depth" conditions each level on the last
    sharpness: float | None = None  # open: None, each level's likeliest code; s, those of softmax(s x logits)'s mean


@dataclass(frozen=True)
class LoRAConfig:
    """App. B."""

    rank: int = 64
    alpha: int = 32
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class TrainingConfig:
    """Three stages (Sec. 5.3) under Eq. 6."""

    motion_weight: float = 1.0  # lambda of Eq. 6; open
    lora_lr: float = 1e-4  # Sec. 5.3
    connector_lr: float = 1e-5  # Sec. 5.3
    lite_lora_lr: float | None = None
    lite_connector_lr: float | None = None
    emotion_aux: float = 0.0  # App. A: emotions as "auxiliary supervision", told nowhere how; 0 leaves it out
    emotions: tuple[str, ...] = ("neutral", "happy", "sad", "angry", "surprised", "afraid")  # open
    batch: int = 64  # open, over all processes
    part: int | None = None  # open, examples in one forward pass; None, all that a process has of a batch
    gradient_checkpointing: bool = True  # of the language model's layers: a third more work, a tenth of the memory
    stage1_steps: int = 20000  # open
    stage2_steps: int = 5000  # open; Sec. 5.3: "significantly fewer steps"
    stage3_steps: int = 500  # open; ~1k samples (Sec. 5.3)


@dataclass(frozen=True)
class RealtimeConfig:
    """Streaming (Sec. 6.1); a motion event leaves per connector segment."""

    voice_chunk: int = 1  # open: audio tokens given to the speech decoder at a time; token2wav gathers its own 25 + 3


@dataclass(frozen=True)
class Config:
    """One profile at one size; sections as above. ``flat()`` gives every field for a checkpoint's metadata."""

    profile: str = "a100"
    size: str | None = None
    motion: MotionConfig = field(default_factory=MotionConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    speech: SpeechConfig = field(default_factory=SpeechConfig)
    rvq: RVQConfig = field(default_factory=RVQConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    connector: ConnectorConfig = field(default_factory=ConnectorConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    realtime: RealtimeConfig = field(default_factory=RealtimeConfig)

    def flat(self) -> dict[str, dict[str, Any]]:
        return {name: asdict(getattr(self, name)) for name in _SECTIONS}

    def override(self, **sections: dict[str, Any]) -> Config:
        """A copy with some fields changed: ``config.override(rvq=dict(group=4))``; ValueError on an unknown name."""
        return _override(self, sections)


_SECTIONS = tuple(f.name for f in fields(Config) if f.name not in ("profile", "size"))

_LAPTOP: dict[str, dict[str, Any]] = {
    "rvq": dict(vertices=200, batch=32, lite_lr=1e-3, lite_steps=1000, lite_velocity_weight=1e7),
    "speech": dict(levels=(8, 5, 5, 5), width=224),
    "backbone": dict(
        n_mels=80, encoder_width=256, encoder_layers=2, encoder_heads=4, encoder_local=15,
        encoder_pool_first=True, encoder_window=12, adapter_width=256,
        hidden=256, layers=4, heads=4, kv_heads=2, intermediate=768, rope_theta=1e4, tie_embeddings=True,
        lite_embedding_std=0.06, max_positions=2048, hidden_layer=3,
        text_vocab=2400, audio_codes=1000, lite_text_weight=4.0, text_steps=540, voice_steps=850,
        ctc_steps=1000, settling_steps=250, speech_steps=1300, max_new_tokens=600,
    ),
    "connector": dict(width=192, layers=3, heads=6, feedforward=576, sharpness=2.0),
    "lora": dict(rank=16, alpha=16, dropout=0.0),
    "training": dict(lite_lora_lr=1e-3, lite_connector_lr=1e-3, batch=16, gradient_checkpointing=False,
                     stage1_steps=300, stage2_steps=500, stage3_steps=40),
    "realtime": dict(voice_chunk=5),
}

_TINY: dict[str, dict[str, Any]] = {
    "world": dict(train=25, train_read=4, dev=4, test=4),  # what data_samples/ holds
    "rvq": dict(lite_steps=20),
    "speech": dict(steps=10),
    "backbone": dict(text_steps=5, voice_steps=5, ctc_steps=5, settling_steps=5, speech_steps=5),
    "training": dict(batch=4, stage1_steps=5, stage2_steps=5, stage3_steps=5),
}

_NANO: dict[str, dict[str, Any]] = {
    "world": dict(train=6, train_read=2, dev=2, test=2),
    "rvq": dict(width=16, latent=16, codes=16, quantizers=3, vertices=40, batch=8, lite_lr=2e-3, lite_steps=20),
    "speech": dict(n_mels=40, levels=(4, 4, 4), width=32, batch=4, crop=8, steps=5),
    "backbone": dict(
        n_mels=40, encoder_width=32, encoder_layers=1, encoder_heads=2, adapter_width=32, hidden=32, layers=2,
        heads=2, kv_heads=1, intermediate=64, max_positions=512, text_vocab=300, audio_codes=64, hidden_layer=1,
        text_steps=2, voice_steps=2, ctc_steps=2, settling_steps=2, speech_steps=2, batch=2, max_new_tokens=100,
    ),
    "connector": dict(width=32, layers=1, heads=2, feedforward=64),
    "lora": dict(rank=4, alpha=4),
    "training": dict(batch=2, stage1_steps=2, stage2_steps=2, stage3_steps=2),
}


def _override(config: Config, sections: dict[str, dict[str, Any]]) -> Config:
    for name, values in sections.items():
        if name not in _SECTIONS:
            raise ValueError(f"config section {name!r}: expected one of {', '.join(_SECTIONS)}")
        section = getattr(config, name)
        unknown = set(values) - {f.name for f in fields(section)}
        if unknown:
            known = ", ".join(f.name for f in fields(section))
            raise ValueError(f"config field {name}.{sorted(unknown)[0]!r}: expected one of {known}")
        config = replace(config, **{name: replace(section, **values)})
    return config


def load_config(profile: str = "tiny", size: str | None = None) -> Config:
    """The configuration of a profile (tiny, laptop, a100), shrunk to ``size="nano"`` for tests.

    Raises ValueError for a name that does not exist.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r}: expected one of {', '.join(PROFILES)}")
    if size not in SIZES:
        raise ValueError(f"size {size!r}: expected None or 'nano'")
    config = Config(profile=profile, size=size)
    if profile != "a100":
        config = _override(config, _LAPTOP)
    if profile == "tiny":
        config = _override(config, _TINY)
    if size == "nano":
        config = _override(config, _NANO)
    return config

"""Step-Audio-2's speech: codes at 25 Hz from an S3 tokenizer's file, token2wav in a process of its own, 25 + 3 tokens.

No published file is here: the tokenizer is a small ONNX file with the published one's names, and token2wav a stand-in
of the official class's methods, which keeps its memory in a buffer that every answer overwrites and adds noise, as
that one does.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import WhisperFeatureExtractor

import a2lite
from a2lite.audio import resample, whisper_mel
from a2lite.realtime import Voice
from a2lite.speech import StepAudioSpeech, detokenizer
from a2lite.speech.detokenizer import FILES

DIES, SLEEPS, FAILS = 6000, 6001, 6002  # tokens at which the stand-in does so
NOISE = 5 / 32767
STAND_IN = """
import array, json, os, pathlib, time
import torch

print("a library that prints where it should not", flush=True)
FED = pathlib.Path(__file__).with_name("fed.jsonl")


class Memory:  # for a tensor
    def __init__(self, values=()):
        self.values = list(values)

    def clone(self):
        return Memory(self.values)


class Token2wav:
    def __init__(self, model_path, float16=False):
        assert (pathlib.Path(model_path) / "flow.pt").is_file()
        self.buffer, self.cache = Memory(), {}

    def set_stream_cache(self, prompt_wav):
        if pathlib.Path(prompt_wav).read_bytes() != b"RIFF":
            raise ValueError("no voice")
        self.buffer.values = []
        self.stream_cache, self.hift_cache_dict = {"attention": self.buffer}, {"speech": Memory()}

    def stream(self, generated_speech_tokens, prompt_wav, last_chunk=False):
        tokens = list(generated_speech_tokens)
        print("speaking", len(tokens), flush=True)
        with FED.open("a") as file:
            print(json.dumps([len(tokens), tokens[0], last_chunk]), file=file)
        if 6000 in tokens:
            os._exit(9)
        if 6001 in tokens:
            time.sleep(60)
        if 6002 in tokens:
            raise RuntimeError("CUDA out of memory.\\nTried to allocate 20 MiB")
        settled = len(tokens) if last_chunk else len(tokens) - 3
        before, wave = self.stream_cache["attention"].values, list(self.hift_cache_dict["speech"].values)
        for i in range(settled):
            past, ahead = sum(before) + sum(tokens[:i]), sum(tokens[i : i + 4])
            wave.append((3 * past + 7 * ahead) % 20000 - 10000 + torch.randint(5))
        self.buffer.values = before + tokens[:settled]
        self.stream_cache = {"attention": self.buffer}
        kept = len(wave) if last_chunk else len(wave) - 4  # the vocoder's cross-fade, 160 ms
        self.hift_cache_dict = {"speech": Memory(wave[kept:])}
        return b"".join(array.array("h", [level]).tobytes() * 960 for level in wave[:kept])
"""


def oracle(tokens):
    """What the stand-in says of all tokens at once, at 16 kHz, but for its noise of up to ``NOISE``."""
    levels = [(3 * sum(tokens[:i]) + 7 * sum(tokens[i : i + 4])) % 20000 - 10000 for i in range(len(tokens))]
    return resample(np.repeat(np.float32(levels), 960) / 32767, 24000)


def weights():
    return np.random.default_rng(0).normal(0, 0.2, (8, 128, 4)).astype(np.float32)


def write_tokenizer(path, names=("feats", "feats_length", "indices")):
    """Every 4 mel frames to 8 digits of base 3; names and types as in speech_tokenizer_v2_25hz.onnx."""
    feats, length, indices = names
    constants = dict(
        w=weights(), zero=np.array([0]), axis=np.array([2]), over=np.array([1]), one=np.array(1, np.float32),
        basis=(3.0 ** np.arange(8, dtype=np.float32)).reshape(1, 8, 1),
    )  # fmt: skip
    nodes = [
        helper.make_node("Cast", [length], ["end"], to=TensorProto.INT64),
        helper.make_node("Slice", [feats, "zero", "end", "axis"], ["heard"]),
        helper.make_node("Conv", ["heard", "w"], ["z"], strides=[4]),
        helper.make_node("Tanh", ["z"], ["bounded"]),
        helper.make_node("Round", ["bounded"], ["level"]),
        helper.make_node("Add", ["level", "one"], ["digit"]),
        helper.make_node("Mul", ["digit", "basis"], ["part"]),
        helper.make_node("ReduceSum", ["part", "over"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], [indices], to=TensorProto.INT32),
    ]
    graph = helper.make_graph(
        nodes, "tokenizer",
        [
            helper.make_tensor_value_info(feats, TensorProto.FLOAT, [1, 128, "T"]),
            helper.make_tensor_value_info(length, TensorProto.INT32, [1]),
        ],
        [helper.make_tensor_value_info(indices, TensorProto.INT32, [1, "A"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def codes_of(wave):
    """The small tokenizer's codes of a whole wave (640 A,), without windows."""
    digits = torch.conv1d(whisper_mel(wave).T[None], torch.from_numpy(weights()), stride=4).tanh().round() + 1
    return (digits[0] * 3.0 ** torch.arange(8)[:, None]).sum(0).long()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint's folder and a clone of the code, as ``StepAudioSpeech`` takes them."""
    root = tmp_path_factory.mktemp("step-audio")
    folder, code = root / "checkpoint" / "token2wav", root / "clone"
    folder.mkdir(parents=True)
    write_tokenizer(folder / FILES[0])
    for name in FILES[1:]:
        (folder / name).write_bytes(b"weights")
    yaml = "flow: !new:cosyvoice2.flow.flow.CausalMaskedDiffWithXvec\n    encoder: !new:cosyvoice2.transformer.Up\n"
    (folder / "flow.yaml").write_text(yaml)
    (code / "assets").mkdir(parents=True)
    (code / "assets" / "default_female.wav").write_bytes(b"RIFF")
    (code / "token2wav.py").write_text(STAND_IN)
    (code / "torch.py").write_text("from random import randrange as randint, seed as manual_seed\n")  # quickly loaded
    return root


@pytest.fixture
def root(written, tmp_path):
    """A copy of one's own, to be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "own"))


def open_speech(root, **places):
    places = dict(python=sys.executable, code=root / "clone") | places
    return StepAudioSpeech(root / "checkpoint", **places)


@pytest.fixture(scope="module")
def speech(written):
    speech = open_speech(written)
    yield speech
    if speech.detokenizer is not None:
        speech.detokenizer.close()


def some_tokens(*shape, seed=0):
    return torch.randint(0, 5900, shape, generator=torch.Generator().manual_seed(seed))


def one_line(raised):
    """The message, which has to be a single line."""
    assert "\n" not in str(raised.value)
    return str(raised.value)


# ---------------------------------------------------------------- encoding


def test_the_mel_is_whispers():
    wave = 0.1 * torch.randn(16000 * 3, generator=torch.Generator().manual_seed(1))
    extractor = WhisperFeatureExtractor(feature_size=128)
    (theirs,) = extractor(wave.numpy(), sampling_rate=16000, padding="do_not_pad").input_features
    torch.testing.assert_close(whisper_mel(wave).T, torch.as_tensor(theirs), atol=1e-4, rtol=0)


def test_any_sound_gives_25_codes_a_second_rounded_up(speech):
    random = np.random.default_rng(0)
    for samples in (1, 159, 160, 639, 640, 641, 1280, *random.integers(1, 40000, 20).tolist()):
        wave = 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))
        codes = speech.encode(wave)
        assert codes.dtype == torch.int64 and codes.shape == (2, -(-samples // 640))
        padded = torch.nn.functional.pad(wave[1], (0, -samples % 640))
        assert torch.equal(codes[1], codes_of(padded))


def test_long_sound_is_heard_in_windows_of_30_seconds(speech, monkeypatch):
    wave = 0.1 * torch.randn(640 * 2000, generator=torch.Generator().manual_seed(0))  # 80 s
    wave *= torch.linspace(0.01, 1, len(wave))  # one loudness for all: the mel is of the whole
    heard = []

    class Session:
        def run(self, names, inputs):
            heard.append(inputs["feats"].shape[2])
            return session.run(names, inputs)

    session = speech.session
    monkeypatch.setitem(vars(speech), "session", Session())
    assert torch.equal(speech.encode(wave[None])[0], codes_of(wave))
    assert heard == [3000, 3000, 2800]


@pytest.mark.parametrize("tokens", [750, 751, 1400, 1401, 1500, 2050])
def test_every_code_is_from_where_its_window_hears_best(speech, monkeypatch, tokens):
    """Two seconds from an inner edge at least, so that both windows give half of what they share."""

    class Places:
        windows = 0

        def run(self, names, inputs):
            self.windows += 1
            return [1000 * (self.windows - 1) + np.arange(inputs["feats"].shape[2] // 4)[None]]

    monkeypatch.setitem(vars(speech), "session", session := Places())
    codes = speech.encode(torch.ones(1, 640 * tokens))[0]
    window, place = codes // 1000, codes % 1000
    assert torch.equal(650 * window + place, torch.arange(tokens))
    assert place[window > 0].tolist() == [] or place[window > 0].min() == 50
    assert place[window < session.windows - 1].tolist() == [] or place[window < session.windows - 1].max() == 699


def test_sound_that_is_none_is_refused(speech):
    for wave in (torch.zeros(1, 0), torch.zeros(100), torch.full((1, 640), float("nan"))):
        with pytest.raises(ValueError, match="wave"):
            speech.encode(wave)


def test_the_identity_is_the_files(speech, written, root):
    assert speech.identity == open_speech(root).identity and len(speech.identity) == 12
    with (root / "checkpoint" / "token2wav" / FILES[0]).open("ab") as file:
        file.write(b" ")
    assert speech.identity != open_speech(root).identity


def test_without_onnxruntime_one_line_says_what_to_install(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        open_speech(root).encode(torch.zeros(1, 640))
    assert one_line(raised) == 'onnxruntime: is not installed; pip install -e ".[speech]"'


def test_a_file_that_is_no_s3_tokenizer_is_named(root):
    path = root / "checkpoint" / "token2wav" / FILES[0]
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="onnxruntime cannot read it .* download it again") as raised:
        open_speech(root).encode(torch.zeros(1, 640))
    assert one_line(raised).startswith(str(path))
    write_tokenizer(path, ("input", "length", "output"))
    with pytest.raises(ValueError, match="has input, length, output; expected an S3 tokenizer's feats"):
        open_speech(root).encode(torch.zeros(1, 640))


# ---------------------------------------------------------------- decoding


@pytest.mark.parametrize("seed", range(12))
def test_streaming_equals_offline_however_the_tokens_come(speech, seed):
    random = np.random.default_rng(seed)
    cuts = random.integers(1, 60, random.integers(1, 6)).tolist()
    tokens = some_tokens(1, sum(cuts), seed=seed)
    stream = speech.stream()
    pieces = [stream.step(part) for part in tokens.split(cuts, 1)]
    whole = torch.cat([*pieces, stream.flush()], 1)
    assert torch.equal(whole, speech.decode(tokens))
    assert whole.shape == (1, 640 * sum(cuts))
    np.testing.assert_allclose(whole[0].numpy(), oracle(tokens[0].tolist()), atol=NOISE)


@pytest.mark.parametrize("count", [1, 3, 27, 28, 29, 52, 53, 78, 100])
def test_token2wav_is_fed_25_and_3_and_then_the_rest(speech, written, count):
    log = written / "clone" / "fed.jsonl"
    log.unlink(missing_ok=True)
    stream, tokens = speech.stream(), torch.arange(count)[None]
    sizes = [stream.step(token).shape[1] for token in tokens.split(1, 1)]
    stream.flush()
    fed = [json.loads(line) for line in log.read_text().splitlines()]
    seconds = max(0, (count - 3) // 25)
    assert fed[:-1] == [[28, 25 * i, False] for i in range(seconds)]
    assert fed[-1] == [count - 25 * seconds, 25 * seconds, True]
    assert [i + 1 for i, size in enumerate(sizes) if size] == [28 + 25 * i for i in range(seconds)]


def test_answers_that_overlap_do_not_mix(speech):
    tokens = [some_tokens(1, 130, seed=seed) for seed in range(3)]
    streams = [speech.stream() for _ in tokens]
    parts = [[] for _ in tokens]
    for start in range(0, 130, 30):
        for part, stream, whole in zip(parts, streams, tokens):
            part.append(stream.step(whole[:, start : start + 30]))
    del streams[1]  # one is cut short and forgotten
    for i, stream in zip((0, 2), streams):
        whole = torch.cat([*parts[i], stream.flush()], 1)
        np.testing.assert_allclose(whole[0].numpy(), oracle(tokens[i][0].tolist()), atol=NOISE)


def test_a_batch_is_its_rows(speech):
    tokens = some_tokens(3, 60)
    waves = speech.decode(tokens)
    for row, wave in zip(tokens, waves):
        assert torch.equal(speech.decode(row[None])[0], wave)


def test_the_voice_of_a_reply_speaks_as_soon_as_28_tokens_are_there(speech):
    tokens = some_tokens(60).tolist()
    voice = Voice(speech, 1)
    pieces = [voice.push(token) for token in tokens]
    assert [i for i, piece in enumerate(pieces) if len(piece)] == [27, 52]
    wave = torch.cat([*pieces, voice.finish()])
    np.testing.assert_allclose(wave.numpy(), oracle(tokens), atol=NOISE)


def test_tokens_that_are_none_are_refused_and_cost_nothing(speech):
    for tokens in (torch.zeros(1, 0).long(), torch.zeros(3).long(), torch.tensor([[6561]]), torch.tensor([[-1]])):
        with pytest.raises(ValueError, match="tokens"):
            speech.decode(tokens)
    with pytest.raises(ValueError, match="no token was given"):
        speech.stream().flush()
    stream = speech.stream()
    stream.step(some_tokens(2, 5))
    with pytest.raises(ValueError, match="expected 2 rows"):
        stream.step(some_tokens(1, 5))
    assert speech.decode(some_tokens(1, 30)).shape == (1, 19200)


# ---------------------------------------------------------------- what goes wrong


@pytest.fixture
def mortal(root):
    speech = open_speech(root)
    yield speech
    if speech.detokenizer is not None:
        speech.detokenizer.close()


@pytest.mark.parametrize(
    "token, seconds, message",
    [
        (DIES, 60, "ended with code 9 while speaking"),
        (SLEEPS, 0.5, "is silent after 0.5 s of speaking"),
        (FAILS, 60, "failed while speaking: RuntimeError: CUDA out of memory. Tried to allocate 20 MiB"),
    ],
)
def test_a_worker_that_fails_gives_one_line_and_the_next_answer_a_new_one(mortal, monkeypatch, token, seconds, message):
    tokens = some_tokens(1, 60)
    right = mortal.decode(tokens)
    stream, worker = mortal.stream(), mortal.detokenizer.process
    monkeypatch.setattr(detokenizer, "ANSWER_SECONDS", seconds)
    tokens[0, 40] = token
    with pytest.raises(ChildProcessError) as raised:
        stream.step(tokens)
    assert message in one_line(raised) and sys.executable in one_line(raised)
    assert worker.returncode is not None and not psutil.pid_exists(worker.pid)  # reaped, no zombie
    with pytest.raises(ChildProcessError, match="begin the answer anew"):
        stream.step(tokens)
    assert torch.equal(mortal.decode(some_tokens(1, 60)), right)
    assert mortal.detokenizer.process.pid != worker.pid


def test_a_worker_killed_between_two_chunks_is_noticed(mortal):
    stream = mortal.stream()
    stream.step(some_tokens(1, 30))
    mortal.detokenizer.process.kill()
    mortal.detokenizer.process.wait()
    with pytest.raises(ChildProcessError, match="ended with code") as raised:
        stream.step(some_tokens(1, 30))
    one_line(raised)
    assert mortal.decode(some_tokens(1, 5)).shape == (1, 3200)


@pytest.mark.parametrize("seconds", [0, 0.5])
def test_a_voice_that_cannot_be_read_is_told_at_the_first_sound(root, seconds):
    (root / "voice.wav").write_bytes(b"hello")
    stream = open_speech(root, voice=root / "voice.wav").stream()
    time.sleep(seconds)  # it has said so, and ended, or has yet to
    with pytest.raises(ChildProcessError, match=r"ValueError: no voice \(token2wav.py, line \d+\)") as raised:
        stream.step(some_tokens(1, 30))
    one_line(raised)


def test_an_interrupted_answer_is_not_taken_for_the_next_ones(mortal, monkeypatch):
    stream = mortal.stream()

    def interrupted(timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr(mortal.detokenizer.replies, "get", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.step(some_tokens(1, 30))
    assert mortal.detokenizer.ended
    wave = mortal.decode(some_tokens(1, 60))
    np.testing.assert_allclose(wave[0].numpy(), oracle(some_tokens(1, 60)[0].tolist()), atol=NOISE)


def test_the_worker_ends_with_its_parent_even_at_work(root):
    script = (
        "import sys, threading, time, torch; from a2lite.speech import StepAudioSpeech\n"
        f"stream = StepAudioSpeech({str(root / 'checkpoint')!r}, sys.executable, {str(root / 'clone')!r}).stream()\n"
        "print(stream.detokenizer.process.pid, flush=True)\n"
        f"stream.step(torch.full((1, 28), {SLEEPS}))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=a2lite.ROOT)
    pid = int(parent.stdout.readline())
    while not (root / "clone" / "fed.jsonl").exists():  # it sleeps now
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=5)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # of init, not ours


def test_what_is_not_set_or_no_python_is_one_line(root, monkeypatch):
    monkeypatch.delenv("A2LITE_SPEECH_PYTHON", raising=False)
    monkeypatch.delenv("A2LITE_STEP_AUDIO_CODE", raising=False)
    tokens, code = torch.zeros(1, 1).long(), root / "clone"
    for places, message in (
        (dict(code=None), "A2LITE_STEP_AUDIO_CODE: is not set"),
        (dict(code=root), f"{root / 'token2wav.py'}: is missing; A2LITE_STEP_AUDIO_CODE is to name"),
        (dict(python=None), "A2LITE_SPEECH_PYTHON: is not set; let it name the speech environment's python"),
        (dict(python=root / "python"), f"{root / 'python'}: no such interpreter"),
        (dict(python=code / "token2wav.py"), "cannot be run"),
        (dict(voice=root / "voice.wav"), f"{root / 'voice.wav'}: is missing; give the voice"),
    ):
        with pytest.raises(FileNotFoundError) as raised:
            open_speech(root, **places).decode(tokens)
        assert message in one_line(raised)
    with pytest.raises(FileNotFoundError, match="no such folder; expected the files of stepfun-ai/Step-Audio-2-mini"):
        StepAudioSpeech(root / "nowhere")


def test_the_environment_can_be_named_from_outside(root, monkeypatch):
    monkeypatch.setenv("A2LITE_SPEECH_PYTHON", sys.executable)
    monkeypatch.setenv("A2LITE_STEP_AUDIO_CODE", str(root / "clone"))
    speech = StepAudioSpeech(root / "checkpoint" / "token2wav")
    assert speech.decode(torch.zeros(1, 1).long()).shape == (1, 640)
    speech.detokenizer.close()


@pytest.mark.skipif(os.name == "nt", reason="needs a shell script for an interpreter")
def test_an_interpreter_that_is_none_is_told_with_its_last_words(root):
    for script, message in (
        ("#!/bin/sh\necho what is this >&2\nexit 3\n", "ended with code 3 while loading: what is this"),
        ("#!/bin/sh\necho Python 2.7.18, is it not\nexec sleep 60\n", "said what no worker says while loading"),
    ):
        path = root / "python"
        path.write_text(script)
        path.chmod(0o755)
        with pytest.raises(ChildProcessError) as raised:
            open_speech(root, python=path).decode(torch.zeros(1, 1).long())
        assert message in one_line(raised)


def test_a_missing_package_is_named_with_the_remedy(root):
    (root / "clone" / "token2wav.py").write_text("import s3tokenizer_of_another_planet\n")
    with pytest.raises(ChildProcessError) as raised:
        open_speech(root).decode(torch.zeros(1, 1).long())
    assert "lacks s3tokenizer_of_another_planet; pip install -r requirements-speech.txt" in one_line(raised)
    assert (a2lite.ROOT / "requirements-speech.txt").is_file()


def test_without_a_gpu_the_worker_says_so(root):
    (root / "clone" / "token2wav.py").write_text('raise AssertionError("Torch not compiled with CUDA enabled")\n')
    with pytest.raises(ChildProcessError, match="CUDA enabled .*; token2wav needs an NVIDIA GPU$"):
        open_speech(root).decode(torch.zeros(1, 1).long())


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_and_a_git_lfs_pointer_are_named(root, name):
    path = root / "checkpoint" / "token2wav" / name
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="is a Git LFS pointer, not the file; fetch it with git lfs pull") as raised:
        open_speech(root).decode(torch.zeros(1, 1).long())
    assert one_line(raised).startswith(str(path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is missing; download it again") as raised:
        open_speech(root).decode(torch.zeros(1, 1).long())
    assert one_line(raised).startswith(str(path))


def test_a_flow_that_would_call_something_else_is_refused(root):
    path = root / "checkpoint" / "token2wav" / "flow.yaml"
    path.write_text(path.read_text() + "x: !apply:os.system [rm]\n")
    with pytest.raises(ValueError, match="asks for !apply:os.system; expected !new:cosyvoice2") as raised:
        open_speech(root).decode(torch.zeros(1, 1).long())
    one_line(raised)

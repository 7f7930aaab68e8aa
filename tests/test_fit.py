"""The training loop: resumes exactly, never loses a result, says what is wrong in one line."""

import signal

import pytest
import torch
from accelerate import PartialState
from torch import nn

from a2lite.config import load_config
from a2lite.fit import Trace, fit, load_checkpoint, save_checkpoint, schedule, shuffled


def batches(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, 4, generator=generator)
    return x, x.sum(1, keepdim=True)


def squared(model, batch):
    return {"loss": (model(batch[0]) - batch[1]).square().mean()}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))




def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    whole = network()
    fit(whole, squared, batches, steps=30, lr=1e-2)

    def dies_at_17(step):
        if step == 17:
            raise KeyboardInterrupt
        return batches(step)

    cut = network()
    with pytest.raises(KeyboardInterrupt):
        fit(cut, squared, dies_at_17, steps=30, lr=1e-2, path=tmp_path / "run")
    fresh = network()
    trace = fit(fresh, squared, batches, steps=30, lr=1e-2, path=tmp_path / "run")
    for a, b in zip(whole.parameters(), fresh.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert trace.steps["loss"][0] == 0 and trace.steps["loss"][-1] == 29


def test_a_run_killed_before_its_checkpoint_was_written_does_not_train_again(tmp_path):
    run, model = dict(steps=5, lr=1e-2, path=tmp_path / "run"), network()
    fit(model, squared, batches, **run)
    again = network()
    fit(again, squared, lambda step: pytest.fail("trained again"), **run)
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    save_checkpoint(tmp_path / "run", again, config=load_config("tiny").rvq)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_resume_file_of_another_network_is_refused_in_one_line(tmp_path):
    (tmp_path / "run.resume").write_bytes(b"not a state")
    with pytest.raises(ValueError, match="run.resume: cannot be resumed .* delete it"):
        fit(network(), squared, batches, steps=3, lr=1e-2, path=tmp_path / "run")


@pytest.mark.parametrize("other", [dict(steps=40), dict(seed=1), dict(name="another"), dict(settings=1)])
def test_work_of_another_run_is_not_taken_up_silently(tmp_path, other):
    def dies(step):
        raise KeyboardInterrupt

    run = dict(steps=30, lr=1e-2, path=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        fit(network(), squared, dies, **run)
    with pytest.raises(ValueError, match="run.resume: belongs to another run .fit, 30 steps, seed 0.*delete it"):
        fit(network(), squared, batches, **{**run, **other})


class Remembering(nn.Linear):
    """Changes a buffer in every forward pass, as the motion tokenizer's codebooks do."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(4, 1)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.mean.lerp_(x.mean(0), 0.1)
        return super().forward(x - self.mean)


@pytest.mark.parametrize("presses", [[signal.SIGINT], 2 * [signal.SIGINT], 2 * [signal.SIGTERM]])
def test_ctrl_c_in_the_middle_of_a_step_resumes_to_the_same_weights(tmp_path, presses):
    whole, cut, fresh, steps = Remembering(), Remembering(), Remembering(), []
    fit(whole, squared, batches, steps=6, lr=1e-2)

    def pressed(model, batch):
        terms = squared(model, batch)
        steps.append(1)
        for number in presses if len(steps) == 4 else []:
            signal.raise_signal(number)
        return terms

    usual = signal.getsignal(signal.SIGINT)
    run = dict(steps=6, lr=1e-2, path=tmp_path / "run", save_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        fit(cut, pressed, batches, **run)
    assert len(steps) == 4 and signal.getsignal(signal.SIGINT) == usual
    saved = torch.load(tmp_path / "run.resume", weights_only=True)["step"]
    assert saved == (3 if presses == 2 * [signal.SIGINT] else 4)  # but the second Ctrl-C gives the step up
    fit(fresh, squared, batches, **run)
    for (name, a), b in zip(whole.state_dict().items(), fresh.state_dict().values()):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_a_resumed_run_is_read_into_memory_first(tmp_path, monkeypatch):
    """Else every process of eight would read it onto the GPU of the one that wrote it."""
    with pytest.raises(KeyboardInterrupt):
        fit(Remembering(), squared, batches, steps=6, lr=1e-2, path=tmp_path / "run", evaluate=stop, evaluate_every=2)
    loaded, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **more: loaded.append(more["map_location"]) or load(*args, **more))
    fit(Remembering(), squared, batches, steps=6, lr=1e-2, path=tmp_path / "run")
    assert loaded == ["cpu"]


def stop(model):
    raise KeyboardInterrupt


def test_a_model_trains_beside_the_gpu_where_another_has_trained(monkeypatch):
    fit(Remembering(), squared, batches, steps=1, lr=1e-2)
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("cuda"))
    fit(Remembering(), squared, batches, steps=1, lr=1e-2)


def test_a_diverging_loss_stops_the_run():
    with pytest.raises(ValueError, match="loss is nan at step 0; lower the learning rate"):
        fit(network(), lambda m, b: {"loss": squared(m, b)["loss"] * float("nan")}, batches, steps=3, lr=1e-2)


def test_the_schedule_warms_up_and_decays():
    assert schedule(0, 1000) == pytest.approx(1 / 50)
    assert schedule(49, 1000) == 1
    assert schedule(1000, 1000) == pytest.approx(0.05)


def test_a_checkpoint_round_trip_keeps_weights_config_and_trace(tmp_path):
    model, trace = network(), Trace()
    trace.add(3, loss=0.5)
    save_checkpoint(tmp_path / "m.safetensors", model, load_config().rvq, half=False, trace=trace)
    state, meta = load_checkpoint(tmp_path / "m.safetensors")
    for key, value in model.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0)
    assert meta["config"]["group"] == 5 and meta["trace"]["values"]["loss"] == [0.5]


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"version https://git-lfs.github.com/spec/v1"])
def test_a_broken_checkpoint_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="m.safetensors: is not a whole safetensors file"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "absent.safetensors")


def test_shuffled_visits_every_sample_once_per_pass_and_keeps_like_lengths_together():
    lengths = torch.randint(5, 300, (70,), generator=torch.Generator().manual_seed(0)).tolist()
    batch = shuffled(lengths, 8)
    first = [batch(step) for step in range(8)]
    seen = [i for indices in first for i in indices]
    assert len(set(seen)) == len(seen) == 64
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in first]
    assert sum(spread) / 8 < 60
    assert batch(3) == first[3] and batch(8) != first[0]
    assert shuffled([5, 5, 5], 16)(0) in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])


def test_a_hook_runs_before_each_step_and_a_factor_scales_the_rate():
    seen, model = [], network()
    fit(model, squared, batches, steps=4, lr=1e-2, factor=lambda step: 0.0, before_step=seen.append)
    for a, b in zip(model.parameters(), network().parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert seen == [0, 1, 2, 3]


def test_an_interrupt_during_evaluation_does_not_repeat_a_step(tmp_path):
    whole, cut = network(), network()
    fit(whole, squared, batches, steps=6, lr=1e-2)

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(cut, squared, batches, steps=6, lr=1e-2, path=tmp_path / "run", evaluate=interrupted, evaluate_every=3)
    fresh = network()
    fit(fresh, squared, batches, steps=6, lr=1e-2, path=tmp_path / "run")
    for a, b in zip(whole.parameters(), fresh.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_tracker_that_is_not_installed_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("a2lite.fit.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="log_with 'wandb': is not installed; pip install wandb"):
        fit(network(), squared, batches, steps=3, lr=1e-2, path=tmp_path / "run", log_with="wandb")

"""Training the motion tokenizer, and reading it back.

App. B of A2-LLM; run in notebooks/03_rvq_tokenization.ipynb.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from a2lite.config import RVQConfig
from a2lite.fit import Trace, fit, load_checkpoint, save_checkpoint
from a2lite.parallel import place, share, together
from a2lite.rvq.loss import Geometry
from a2lite.rvq.model import MotionRVQ


class Crops:
    """Random crops of some motions: ``crops(step)`` -> (batch, crop, 58), a pure function of the step.

    A clip is drawn by its length; one shorter than the crop goes on with its last frame.
    """

    def __init__(self, motions: Sequence[Tensor], crop: int, batch: int, seed: int = 0):
        self.frames = torch.cat([torch.as_tensor(motion) for motion in motions])  # (all frames, 58), also in fp16
        self.lengths = torch.tensor([len(motion) for motion in motions])
        self.offsets = self.lengths.cumsum(0) - self.lengths
        self.crop, self.batch, self.seed = crop, batch, seed

    def __call__(self, step: int) -> Tensor:
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        clip = torch.multinomial(self.lengths.double(), self.batch, replacement=True, generator=draw)
        room = (self.lengths[clip] - self.crop).clamp(min=0) + 1
        start = (torch.rand(self.batch, generator=draw) * room).long()
        frame = start[:, None] + torch.arange(self.crop)  # (batch, crop)
        frame = frame.minimum(self.lengths[clip, None] - 1)
        return self.frames[self.offsets[clip, None] + frame].float()


def train(
    config: RVQConfig,
    motions: Sequence[Tensor],
    path: Path | None = None,
    geometry: Geometry | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    log_with: str | None = None,
) -> tuple[MotionRVQ, Trace]:
    """Train on ``motions``, each (T, 58); with ``path`` the checkpoint is written, and returned as read back.

    The paper's epochs (App. B) unless ``config.lite_steps`` says otherwise. Without a ``geometry``, Eq. 8 alone.
    Several processes share each batch, which has to divide among them (ValueError).
    """
    if config.batch % place()[1]:
        raise ValueError(f"rvq.batch {config.batch} among {place()[1]} processes: expected a multiple")
    torch.manual_seed(seed)
    crops = Crops(motions, config.crop, config.batch, seed)
    model = MotionRVQ.from_motions(config, [crops.frames]).to(device)
    geometry = geometry and geometry.to(device)

    def loss(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return model(batch.to(next(model.parameters()).device), geometry)[2]

    epochs = config.epochs * len(crops.frames) // (config.batch * config.crop)
    trace = fit(
        model,
        loss,
        lambda step: share(crops(step)),
        steps=config.lite_steps or max(1, epochs),
        lr=config.lite_lr or config.lr,
        name="rvq",
        path=path,
        seed=seed,
        settings=dict(asdict(config), clips=len(motions), frames=len(crops.frames), geometry=geometry is not None),
        log_with=log_with,
    )
    if path is None:
        return model, trace
    with together():  # nobody reads before it is written
        if place()[0] == 0:
            save_checkpoint(path, model, config, trace=trace)
    return load(path), trace


def load(path: str | Path) -> MotionRVQ:
    """The model of a checkpoint, in eval mode; ValueError or FileNotFoundError names the file."""
    state, meta = load_checkpoint(path)
    try:
        model = MotionRVQ(RVQConfig(**meta["config"]))
        model.load_state_dict(state)
    except (TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: holds no motion RVQ ({reason}); expected rvq.safetensors") from None
    return model.eval()

"""Which device each part of the backbone stands on: one, several, or none until its turn comes (accelerate)."""

from __future__ import annotations

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import get_balanced_memory

from a2lite.backbone.model import Backbone

WHOLE = ("Qwen2DecoderLayer", "Encoder")  # stand on one device: a layer adds to its input, the encoder masks it
ROOM = 0.9  # of a GPU's free memory, for weights; the rest is for the cache and what is computed
Place = torch.device | str | int


def places_of(model: Backbone, device_map: str | dict[str, Place], dtype: torch.dtype) -> dict[str, torch.device | str]:
    """The device of each module that ``device_map`` names, "disk" included; "auto" fills GPUs, then memory, then disk.

    ValueError in one line for another name, a device that is not there, a module unknown, cut in two or left out.
    """
    if device_map == "auto":
        memory = get_balanced_memory(model, no_split_module_classes=list(WHOLE), dtype=dtype)
        memory = {place: free if place == "cpu" else int(ROOM * free) for place, free in memory.items()}
        device_map = infer_auto_device_map(model, memory, no_split_module_classes=list(WHOLE), dtype=dtype)
    if not isinstance(device_map, dict):
        raise ValueError(f"device_map {device_map!r}: expected 'auto', or a dict from module names to devices")
    modules = dict(model.named_modules())
    whole = {name: type(module).__name__ for name, module in modules.items() if type(module).__name__ in WHOLE}
    for name in device_map:
        if name not in modules:
            raise ValueError(f"device_map: no module {name!r}; expected names such as encoder and lm.model.layers.0")
        for outer, kind in whole.items():
            if name.startswith(outer + "."):
                raise ValueError(f"device_map: {name} cuts a {kind} in two; expected {outer} as a whole")
    for name in model.state_dict():
        if place_of(name, device_map) is None:
            raise ValueError(f"device_map: leaves out {name}; expected a device for every module")
    return {name: "disk" if place == "disk" else existing(place) for name, place in device_map.items()}


def place_of(name: str, places: dict[str, Place]) -> Place | None:
    """The place of a tensor: that of the innermost module that ``places`` names."""
    within = [module for module in places if module == "" or name.startswith(module + ".")]
    return places[max(within, key=len)] if within else None


def existing(place: Place) -> torch.device:
    """``place`` as a device of this machine; ValueError in one line where there is none."""
    try:
        device = torch.device(place)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"device {place!r}: is not there ({reason}); expected such as 'cpu' or 'cuda:0'") from None
    return device


def dispatch(model: Backbone, places: dict[str, torch.device | str], waiting: dict[str, dict[str, str]]) -> None:
    """Let what goes through ``model`` follow its modules; ``waiting`` says where those on disk are to be read."""
    names = {name: str(place) for name, place in places.items()}
    first = next((name for name in names.values() if name not in ("cpu", "disk")), "cpu")
    skipped = model.lm._skip_keys_device_placement
    dispatch_model(model, names, main_device=first, offload_index=waiting or None, skip_keys=skipped)

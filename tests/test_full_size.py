"""Notebooks 01 to 08 and 13 at ``profile="a100"`` over folders of the published layouts; ``size="nano"`` shrinks them.

Each takes up what the ones before it made; those that wait for nothing run beside the others.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from a2lite import ROOT
from a2lite.config import load_config
from a2lite.fit import load_checkpoint
from a2lite.flame_qa import load_samples
from a2lite.workplace import Workplace
from full_size_files import write_code, write_data_dir, write_flame, write_model_dir

CHAIN = ("03", "04", "05", "06", "08")  # each takes up what an earlier one has made
ALONE = ("01", "02", "07", "13")
RUN = "import json, sys; from a2lite.course.execute import execute; from pathlib import Path\n"
RUN += "sys.exit(not all([execute(Path(a), Path(b), json.loads(sys.argv[1])) for a, b in json.loads(sys.argv[2])]))"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    """A run of someone who has the weights, the head and the data."""
    root = tmp_path_factory.mktemp("full")
    model, flame = write_model_dir(root / "Step-Audio-2-mini"), write_flame(root / "FLAME2020")
    write_code(root / "Step-Audio2")
    data = write_data_dir(root / "FLAME-QA")
    return Workplace("a100", "nano", str(model), str(flame), str(data), output_dir=str(root / "out"))


@pytest.fixture(scope="module")
def printed(place) -> dict[str, str]:
    """All that each notebook said, by its number."""
    parameters = {name: value for name, value in vars(place).items() if name in Workplace.__dataclass_fields__}
    paths = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[01]*.ipynb"))}
    code = Path(place.model_dir).with_name("Step-Audio2")
    environment = dict(
        os.environ, A2LITE_HEADLESS="1", A2LITE_QUIET="1", OMP_NUM_THREADS="1", A2LITE_SPEECH_PYTHON=sys.executable,
        A2LITE_STEP_AUDIO_CODE=str(code),
    )  # fmt: skip
    place.folder.mkdir()
    lanes = []
    for lane in (CHAIN, ALONE):
        jobs = json.dumps([(str(paths[number]), str(place.folder / paths[number].name)) for number in lane])
        command = [sys.executable, "-c", RUN, json.dumps(parameters), jobs]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lanes.append(subprocess.Popen(command, env=environment, **pipes))
    ends = [lane.communicate()[0][-3000:] if lane.wait() else "" for lane in lanes]
    assert ends == ["", ""], "\n".join(ends)
    return {number: outputs(place.folder / paths[number].name) for number in (*CHAIN, *ALONE)}


def outputs(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "".join("".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", []))


def test_every_notebook_runs_through_and_reports(place, printed):
    figures = json.loads((place.folder / "metrics.json").read_text())
    assert sorted(name[:2] for name in figures) == sorted(printed)
    assert figures["02_flame_qa"]["training samples"]["value"] == len(place.samples("train"))
    assert len(place.samples("train")) not in (len(load_samples("tiny", "train")), place.config.world.train)


def test_nothing_shipped_stands_in_for_what_is_given_or_made(place, printed):
    assert not [number for number, text in printed.items() if "as shipped" in text]
    own = "{}.safetensors: from your own run (a100, nano)"
    for number, names in {"03": ["rvq"], "04": ["speech"], "05": ["rvq"], "06": ["rvq", "a2llm"]}.items():
        assert all(own.format(name) in printed[number] for name in names), number
    assert own.format("a2llm") in printed["08"] and "backbone.safetensors" not in "".join(printed.values())
    made = {path.name for path in (place.folder / "artefacts").glob("*.safetensors")}
    assert made == {"rvq.safetensors", "speech.safetensors", "a2llm.safetensors"}


def test_what_was_trained_belongs_to_the_model_that_was_given(place, printed):
    meta = load_checkpoint(place.folder / "artefacts" / "a2llm.safetensors")[1]
    nano = load_config("a100", "nano")
    assert meta["base"] == place.backbone().identity and meta["codes"] == place.rvq().identity
    assert meta["lora"]["rank"] == nano.lora.rank and meta["stage_ends"] == [2, 4, 6]
    assert place.config.backbone.hidden == nano.backbone.hidden and place.config.backbone.n_mels == 128
    assert place.speech().codes == place.config.backbone.audio_codes == 6561


def test_the_players_lie_in_the_runs_folder(place, printed):
    pages = {page.stem for page in (place.folder / "players").glob("*.html")}
    assert {"01_flame", "03_reconstruction", "05_connector", "06_three_stage_training", "08_realtime"} <= pages

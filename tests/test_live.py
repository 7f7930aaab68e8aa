"""In JupyterLab itself: the live face follows its sliders, and a stream moves it. Pixels decide."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import nbformat
import numpy as np
import pytest

from browser import SOFTWARE, Browser

SETTING = "@jupyterlab/notebook-extension:tracker"
CELLS = """\
import numpy as np, torch
from a2lite.flame import load_head
from a2lite.people.sliders import Sliders
from a2lite.player.stream import Stream
head = load_head()
face = Sliders(head)
face
---
face.tabs.selected_index = 1
motion = torch.zeros(50, 58)
motion[:, 50] = 0.4 * torch.linspace(0, 1, 50)
tone = 0.1 * np.sin(np.arange(32000) * 0.1)
---
face.set(motion[-1])
---
face.reset()
---
stream = Stream(face.view)
places = face.flame(motion).numpy()
display(stream, stream)
---
stream.begin()
stream.text = "Hello."
stream.audio(tone[:16000], 0.0)
stream.motion(places[25:], 1.0)
stream.motion(places[:25], 0.0)
stream.audio(tone[16000:], 1.0)
---
stream.begin()
stream.audio(tone[:1600], 0.0)
import time
time.sleep(0.5)
stream.audio(tone[:1600], 0.1)
---
stream.close()
""".split("\n---\n")
SHOW, PREPARE, OPEN, RESET, STREAM, SPEAK, LATE, CLOSE = range(8)
HOLD = "[...jupyterapp.shell.widgets('main')].find(part => part.context)"
STATUS = "(window.book = {hold}) && book.context.sessionContext.session.kernel.status === 'idle'"
RUN = """(cell => cell.constructor.execute(cell, book.context.sessionContext))(book.content.widgets[{number}])
    .then(reply => reply.content.status === 'ok' ? '' : reply.content.ename + ': ' + reply.content.evalue)"""
VIEWS = "[...document.querySelectorAll('[data-frame]')]"
LISTEN = """
window.AudioContext = class extends AudioContext {  // notes when its first sound is to be heard
  constructor(options) { super(options); window.card = this; }
  createBufferSource() {
    const source = super.createBufferSource(), start = source.start.bind(source);
    source.start = when => { this.first ??= when; start(when); };
    return source;
  }
}; true"""
WATCH = f"""
window.seen = [];
new MutationObserver(() => {{
  const frame = Number({VIEWS}[0].dataset.frame);
  if (frame >= 0) seen.push([card.currentTime - card.first - (card.outputLatency || 0), frame]);
}}).observe({VIEWS}[0], {{attributes: true}});"""


class Lab(Browser):
    """A notebook of ``CELLS`` in JupyterLab."""

    def run(self, number: int):
        assert self.js(RUN.format(number=number)) == ""

    def box(self, selector: str) -> tuple[int, int, int, int]:
        """left, top, width, height of what is there and can be seen."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})].find(node => node.offsetParent)"
        self.until(found + " !== undefined")
        return self.js(f"(r => [r.left, r.top, r.width, r.height].map(Math.round))({found}.getBoundingClientRect())")

    def face(self) -> np.ndarray:
        """(400, 480, 3)"""
        return self.screen(*self.box(".jp-OutputArea canvas"))

    def settled(self) -> np.ndarray:
        """The face, once it rests for half a second."""
        faces = [self.face()]
        for _ in range(60):
            time.sleep(0.15)
            faces = [*faces[-2:], self.face()]
            if len(faces) == 3 and all(np.array_equal(face, faces[0]) for face in faces):
                return faces[0]
        pytest.fail("the face does not come to rest")

    def shows(self, claim: Callable[[np.ndarray], bool], seconds: float = 20.0) -> float:
        """Seconds until ``claim`` is true of the face; a picture of it takes 0.1 to 0.2 of them."""
        start = time.monotonic()
        while not claim(self.face()):
            assert time.monotonic() < start + seconds, "the face does not show it"
        return time.monotonic() - start

    def choose(self, name: str):
        """``name`` in the list that has it."""
        options = "[...document.querySelectorAll('option')]"
        self.js(f"""(option => {{
            option.parentNode.selectedIndex = option.index;
            option.parentNode.dispatchEvent(new Event('change', {{bubbles: true}}));
        }})({options}.find(option => option.text === {name!r}))""")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    for package in ("jupyterlab", "ipykernel"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package} here: the live face is not tried in JupyterLab")
    folder = tmp_path_factory.mktemp("lab")
    browser = Lab(folder / "browser", *SOFTWARE)
    server = None
    try:
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
        book.metadata.kernelspec = dict(name="python3", display_name="Python 3", language="python")
        nbformat.write(book, folder / "live.ipynb")
        settings = folder / "settings" / SETTING.replace(":", "/")
        settings.parent.mkdir(parents=True)
        settings.with_name("tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", f"--notebook-dir={folder}",
             "--LabApp.expose_app_in_browser=True", f"--LabApp.user_settings_dir={folder / 'settings'}",
             f"--LabApp.workspaces_dir={folder / 'workspaces'}", "--IdentityProvider.token=a2lite"],
            env=environment(folder), cwd=folder, stdout=-3, stderr=-3,
        )  # fmt: skip
        (found,) = browser._wait(lambda: [*folder.glob("runtime/jpserver-*.json")], 60, "JupyterLab did not start")
        address = browser._wait(lambda: json.loads(found.read_text() or "{}").get("url"))
        browser.size(1300, 1500)
        browser.open(f"{address}doc/tree/live.ipynb?token=a2lite", STATUS.format(hold=HOLD))
        browser.run(SHOW)
        browser.until("document.querySelector('.jp-OutputArea canvas') !== null", 60)
        browser.run(PREPARE)
        yield browser
    finally:
        browser.close()
        if server:
            server.terminate()
            server.wait()


def environment(folder) -> dict[str, str]:
    own = {f"JUPYTER_{name.upper()}_DIR": str(folder / name) for name in ("runtime", "config", "data")}
    paths = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, **own, "PYTHONPATH": paths, "A2LITE_HEADLESS": ""}


def dark(face: np.ndarray) -> float:
    """Share of the mouth's surroundings that is as dark as an open mouth."""
    height, width = face.shape[:2]
    mouth = face[int(0.55 * height) : int(0.8 * height), int(0.38 * width) : int(0.62 * width)]
    return float((mouth.sum(-1) < 160).mean())


def open_more_than(face: np.ndarray) -> Callable[[np.ndarray], bool]:
    return lambda now: dark(now) > dark(face) + 0.03


def other_than(face: np.ndarray, least: float = 0.3) -> Callable[[np.ndarray], bool]:
    return lambda now: np.abs(now - face).mean() > least


def same_as(face: np.ndarray) -> Callable[[np.ndarray], bool]:
    return lambda now: np.array_equal(now, face)


def test_the_face_is_drawn_and_opens_its_mouth_for_the_kernel(lab):
    lab.run(RESET)
    shut = lab.settled()
    assert shut.std() > 20 and (shut[..., 0] > shut[..., 2] + 20).mean() > 0.1  # skin
    lab.run(OPEN)
    lab.shows(open_more_than(shut))
    lab.run(RESET)
    lab.shows(same_as(shut))


def test_the_mouth_opens_as_its_slider_is_dragged(lab):
    lab.run(RESET)
    shut = lab.settled()
    left, top, width, height = lab.box(".noUi-handle")
    x, y = left + width / 2, top + height / 2
    lab.mouse(*((x + step, y) for step in range(0, 101, 20)))
    took = lab.shows(other_than(shut))
    print(f"from the slider to the picture {took:.2f} s")
    lab.shows(open_more_than(shut))
    assert abs(lab.box(".noUi-handle")[0] - left - 100) < 5  # where the hand has left it
    assert took < 5  # on a busy machine without a graphics card; 0.5 otherwise


def test_a_drag_turns_the_head_and_a_wheel_brings_it_near(lab):
    lab.run(RESET)
    before = lab.settled()
    left, top, width, height = lab.box(".jp-OutputArea canvas")
    x, y = left + width // 2, top + height // 2
    lab.mouse(*((x + step, y) for step in range(0, 61, 20)))
    lab.shows(other_than(before, 5))
    for _ in range(30):
        lab.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-300)
    lab.shows(lambda face: (face[..., 0] > face[..., 2] + 15).mean() > 0.6)  # skin all over, nothing cut away


def test_another_person_comes_and_a_preset_goes_with_reset(lab):
    lab.run(RESET)
    robin = lab.settled()
    lab.choose("ada")
    lab.shows(other_than(robin, 5))
    ada = lab.settled()
    assert lab.js("document.querySelectorAll('.jp-OutputArea canvas').length") == 1
    lab.choose("surprised")
    lab.shows(open_more_than(ada))
    chosen = "[...document.querySelectorAll('select')].map(list => list.value)"
    assert {"ada", "surprised"} <= set(lab.js(chosen))
    lab.js("[...document.querySelectorAll('button')].find(button => button.textContent === 'reset').click()")
    lab.until(f"{chosen}.includes('preset')")
    lab.shows(same_as(ada))


@pytest.fixture(scope="module")
def stream(lab) -> Lab:
    """The same, with a stream seen twice, whose frames and sound are noted."""
    lab.js(LISTEN)
    lab.run(STREAM)
    lab.until(f"{VIEWS}.length === 2")
    lab.js(WATCH)
    return lab


def test_a_stream_moves_the_face_in_step_with_its_sound(stream):
    lab = stream
    lab.run(RESET)
    shut = lab.settled()
    lab.run(SPEAK)
    lab.until("seen.length && seen.at(-1)[1] === 49")
    heard, frame = np.array(lab.js("seen")).T
    assert np.abs(frame - np.minimum(np.floor(25 * heard), 49)).max() <= 1
    assert np.all(np.diff(frame) >= 0) and len(set(frame)) > 3
    lab.shows(open_more_than(shut))
    seen = lab.js(f"{VIEWS}.map(view => [view.lastChild.textContent, view.dataset.frame, view.dataset.stalls])")
    assert seen == [["Hello.", "49", "0"]] * 2


def test_sound_that_comes_late_is_waited_for(stream):
    stream.run(LATE)
    stream.until(f"{VIEWS}.every(view => view.dataset.stalls === '1')")


def test_a_button_switches_the_sound_on_and_is_seen_where_there_is_none(stream):
    lab = stream
    lab.run(LATE)
    lab.js("card.suspend().then(() => true)")
    lab.until(f"{VIEWS}.every(view => view.firstChild.textContent === '🔊 sound' && !view.firstChild.hidden)")
    lab.js(f"{VIEWS}[1].firstChild.click()")
    lab.until(f"card.state === 'running' && {VIEWS}.every(view => view.firstChild.hidden)")


def test_a_stream_that_is_closed_leaves_silence(stream):
    lab = stream
    lab.run(CLOSE)
    lab.until(f"{VIEWS}.length === 0 && card.state === 'closed'")
    assert not [complaint for complaint in lab.complaints if "exceptionDetails" in complaint]

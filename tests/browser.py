"""A headless Chromium for tests that look at pixels, and what it is shown."""

import base64
import io
import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from a2lite.flame import load_head

# What is heard beside what is drawn: the clip's sound climbs evenly, so its loudness, read from the sound graph, tells
# the second that is heard; no clock of the player has a part in it.
LISTEN = """
const ears = new AudioContext(), tap = ears.createAnalyser(), wave = new Float32Array(tap.fftSize = 256);
ears.createMediaElementSource(clock).connect(tap).connect(ears.destination);
const seen = [], drawn = draw;
draw = () => {
  tap.getFloatTimeDomainData(wave);
  const heard = (wave[255] / 0.9 + 1) / 2 * duration;
  drawn();
  if (!clock.paused) seen.push([performance.now() / 1000, heard, Number(document.body.dataset.frame)]);
};
ears.resume().then(() => ears.state === "running")"""

SOFTWARE = ("use-angle=swiftshader", "enable-unsafe-swiftshader")


def climbing(seconds: float, rate: int = 16000) -> np.ndarray:
    """A sound for ``Browser.listen``."""
    return np.linspace(-0.9, 0.9, round(seconds * rate), dtype=np.float32)


def talking(seconds: float) -> torch.Tensor:
    """Motion (25 seconds, 58) of a head that talks, smiles, blinks and turns."""
    time = torch.arange(round(25 * seconds)) / 25
    motion, talk = torch.zeros(len(time), 58), torch.sin(2 * torch.pi * 3.1 * time).clamp(min=0)
    units = dict(smile=0.5 + 0.4 * torch.sin(time), part=0.3 * talk, outer_brow=torch.sin(time))
    motion[:, :50] = load_head().expression(**units)
    motion[:, 50], motion[:, 54] = 0.2 * talk, 0.3 * torch.sin(0.9 * time)
    motion[:, 56:] = torch.exp(-(((time % 2.3 - 1) / 0.08) ** 2))[:, None]
    return motion


class Thrown(Exception):
    """What a page's expression has thrown."""


class Browser:
    """A headless Chromium, spoken to through its DevTools socket."""

    def __init__(self, folder: Path, *flags: str):
        socket = pytest.importorskip("websocket", reason="no websocket-client")
        names = ("chromium", "chromium-browser", "google-chrome", "chrome")
        program = next(filter(None, map(shutil.which, names)), None)
        if program is None:
            pytest.skip("no Chromium on this machine: the page is not tried in a browser")
        options = ["headless", "no-sandbox", "mute-audio", "no-first-run", "disable-sync", "remote-debugging-port=0",
                   "disable-background-networking", "disable-component-update", "remote-allow-origins=*",
                   "autoplay-policy=no-user-gesture-required", f"user-data-dir={folder}", *flags]  # fmt: skip
        self.process = subprocess.Popen(
            [program, *(f"--{option}" for option in options), "about:blank"], stdout=-3, stderr=-3
        )
        self.socket, self.call_number, self.complaints = None, 0, []
        try:
            port = self._wait(lambda: (folder / "DevToolsActivePort").read_text().split("\n")[0])
            self.socket = self._wait(lambda: self._connect(socket, port))
            for domain in ("Page", "Runtime"):
                self.call(f"{domain}.enable")
            self.size(480, 560)
        except BaseException:
            self.close()
            raise

    def _wait(self, attempt, seconds=20.0, what="the browser did not answer"):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if result := attempt():
                    return result
            except (OSError, IndexError, KeyError, Thrown):
                pass
            time.sleep(0.1)
        pytest.fail(f"{what} within {seconds:.0f} s")

    def _connect(self, socket, port):
        from urllib.request import urlopen

        with urlopen(f"http://127.0.0.1:{port}/json") as reply:
            pages = [target for target in json.load(reply) if target["type"] == "page"]
        return socket.create_connection(pages[0]["webSocketDebuggerUrl"], timeout=30)

    def call(self, method: str, **parameters):
        self.call_number += 1
        self.socket.send(json.dumps({"id": self.call_number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.complaints.append(message["params"])
            if message.get("id") == self.call_number:
                return message["result"]

    def size(self, width: int, height: int):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def js(self, text: str):
        """The value of an expression; a promise's, once it is kept. Fails the test where it throws."""
        try:
            return self._value(text)
        except Thrown as error:
            pytest.fail(f"{text}: {error}")

    def _value(self, text: str):
        answer = self.call("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        if thrown := answer.get("exceptionDetails"):
            raise Thrown(thrown.get("exception", {}).get("description", thrown["text"]))
        return answer["result"].get("value")

    def open(self, address: str, ready: str = "document.body?.dataset.frame"):
        self.call("Page.navigate", url=address)
        self.until(ready, 90.0)

    def until(self, text: str, seconds: float = 20.0):
        """Waits for an expression to be true; what it throws until then is what does not exist yet."""
        return self._wait(lambda: self._value(text), seconds, f"{text} was not true")

    def screen(self, *box: int) -> np.ndarray:
        """(H, W, 3), 0 to 255; of a box left, top, width, height, where one is given."""
        clip = dict(clip=dict(zip(("x", "y", "width", "height"), box), scale=1)) if box else {}
        data = self.call("Page.captureScreenshot", format="png", **clip)["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)

    def picture(self) -> np.ndarray:
        """(400, 480, 3) of the player's face, without title and controls."""
        return self.screen()[40:440]

    def listen(self, start: float, seconds: float) -> np.ndarray:
        """(N, 3) while the page plays: seconds that went by, the second heard, the frame drawn. Needs ``climbing``."""
        if self.js("typeof ears") == "undefined":
            self.js(LISTEN)
        self.js(f"seen.length = 0; seek({start}); clock.paused && toggle()")
        time.sleep(seconds)
        return np.array(self.js("clock.paused || toggle(); seen"))

    def key(self, key: str):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 else "")

    def mouse(self, *places: tuple[float, float]):
        """The left button goes down at the first (x, y), along the others, and up at the last."""
        for i, (x, y) in enumerate(places):
            kind = "mouseMoved" if i else "mousePressed"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    def close(self):
        if self.socket:
            self.socket.close()
        self.process.terminate()
        self.process.wait()

"""A headless Chromium for tests that look at pixels."""

import base64
import io
import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
        port = self._wait(lambda: (folder / "DevToolsActivePort").read_text().split("\n")[0])
        self.call_number, self.complaints = 0, []
        self.socket = self._wait(lambda: self._connect(socket, port))
        for domain in ("Page", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=480, height=560, deviceScaleFactor=1, mobile=False)

    def _wait(self, attempt, seconds=20.0):
        for _ in range(int(seconds / 0.1)):
            try:
                if result := attempt():
                    return result
            except (OSError, IndexError, KeyError):
                pass
            time.sleep(0.1)
        pytest.fail(f"the browser did not answer within {seconds:.0f} s")

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

    def js(self, text: str):
        """The value of an expression; a promise's, once it is kept."""
        options = dict(returnByValue=True, awaitPromise=True)
        return self.call("Runtime.evaluate", expression=text, **options)["result"].get("value")

    def open(self, address: str, ready: str = "document.body?.dataset.frame"):
        self.call("Page.navigate", url=address)
        self.until(ready, 90.0)

    def until(self, text: str, seconds: float = 20.0):
        self._wait(lambda: self.js(text), seconds)

    def screen(self) -> np.ndarray:
        """(H, W, 3), 0 to 255."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
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

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait()

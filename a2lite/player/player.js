// The controls. The sound's own time says which frame is drawn; without sound a clock of the same shape does.

class Silence {                                    // as much of an <audio> element as the player uses
  constructor(duration) { Object.assign(this, { duration, paused: true, from: 0, since: 0 }); }
  get currentTime() {
    const time = this.paused ? this.from : this.from + (performance.now() - this.since) / 1000;
    return Math.min(time, this.duration);
  }
  set currentTime(time) { [this.from, this.since] = [time, performance.now()]; }
  play() { this.currentTime = this.from; this.paused = false; }
  pause() { this.from = this.currentTime; this.paused = true; }
}

const find = id => document.getElementById(id);
const clip = JSON.parse(find("clip").textContent);
const [canvas, button, scrub] = [document.querySelector("canvas"), find("play"), find("scrub")];
const clock = clip.audio ? sound(decode(clip.audio, Uint8Array)) : new Silence(clip.duration);
const scene = stage();

function sound(bytes) {
  const audio = document.createElement("audio");
  audio.src = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
  document.body.append(audio);
  for (const event of ["play", "pause", "seeked", "ended"]) audio.addEventListener(event, refresh);
  return audio;
}

function stage() {                                 // null where there is no WebGL2: the strip stays in sight
  try {
    const made = new Scene(canvas, clip);
    document.body.classList.remove("still");
    canvas.addEventListener("webglcontextlost", () => document.body.classList.add("still"));
    return made;
  } catch (error) {
    console.warn(error);
    return null;
  }
}

let waiting = false;
function refresh() {                               // one drawing per screen refresh, however many ask for it
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function draw() {
  const time = clock.currentTime, playing = !clock.paused;
  const frame = Math.min(time * clip.fps, clip.frames - 1);
  if (scene) scene.draw(frame);
  document.body.dataset.frame = frame.toFixed(2);
  if (!scrub.matches(":active")) scrub.value = time;
  scrub.setAttribute("aria-valuetext", `${time.toFixed(1)} of ${clip.duration.toFixed(1)} seconds`);
  find("time").textContent = `${time.toFixed(1)} / ${clip.duration.toFixed(1)} s`;
  button.classList.toggle("playing", playing);
  button.setAttribute("aria-label", playing ? "Pause" : "Play");
  if (playing && time >= clip.duration) clock.pause();
  if (playing) refresh();
}

async function toggle() {
  if (clock.paused) {
    if (clock.currentTime >= clip.duration - 0.05) clock.currentTime = 0;
    try { await clock.play(); } catch (error) { console.warn(error); }
  } else {
    clock.pause();
  }
  refresh();
}

function seek(time) {
  clock.currentTime = Math.min(clip.duration, Math.max(0, time));
  refresh();
}

function move(action) {                            // changes what the camera sees
  if (scene) action(scene);
  refresh();
}

const KEYS = {
  ArrowLeft: s => s.turn(-0.1, 0), ArrowRight: s => s.turn(0.1, 0),
  ArrowUp: s => s.turn(0, 0.1), ArrowDown: s => s.turn(0, -0.1),
  "+": s => s.scale(1.1), "-": s => s.scale(1 / 1.1), "0": s => s.reset(),
};

button.addEventListener("click", toggle);
scrub.addEventListener("input", () => seek(Number(scrub.value)));
document.addEventListener("keydown", event => {
  if (event.key !== " " || event.target === button) return;
  event.preventDefault();
  toggle();
});
canvas.addEventListener("keydown", event => {
  if (!KEYS[event.key]) return;
  event.preventDefault();
  move(KEYS[event.key]);
});
canvas.addEventListener("pointerdown", event => canvas.setPointerCapture(event.pointerId));
canvas.addEventListener("pointermove", event => {
  if (event.buttons) move(s => s.turn(-0.008 * event.movementX, 0.008 * event.movementY));
});
canvas.addEventListener("wheel", event => {        // in a notebook it scrolls until the face is clicked
  if (window !== window.top && document.activeElement !== canvas) return;
  event.preventDefault();
  move(s => s.scale(Math.exp(-0.0015 * event.deltaY)));
}, { passive: false });
canvas.addEventListener("dblclick", () => move(s => s.reset()));
new ResizeObserver(refresh).observe(canvas);

scrub.max = clip.duration;
scrub.step = 1 / clip.fps;
seek(Number(new URLSearchParams(location.hash.slice(1)).get("t")));   // face.html#t=1.5 opens at 1.5 s

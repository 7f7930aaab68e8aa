// The controls. The sound's own time says which frame is drawn; without sound a clock of the same shape does.

class Silence {                                    // as much of an <audio> element as the player uses
  constructor(duration) { Object.assign(this, { duration, paused: true, from: 0, since: 0, pace: 1 }); }
  get currentTime() {
    const gone = this.paused ? 0 : this.pace * (performance.now() - this.since) / 1000;
    return Math.min(this.from + gone, this.duration);
  }
  set currentTime(time) { [this.from, this.since] = [time, performance.now()]; }
  set playbackRate(pace) { this.currentTime = this.currentTime; this.pace = pace; }
  play() { this.currentTime = this.from; this.paused = false; }
  pause() { this.from = this.currentTime; this.paused = true; }
}

const find = id => document.getElementById(id);
const page = JSON.parse(find("clip").textContent);
const [canvas, button, scrub] = [find("face"), find("play"), find("scrub")];
const { duration, fps } = page, frames = Math.max(...page.clips.map(clip => clip.frames));
const clock = page.audio ? sound(decode(page.audio)) : new Silence(duration);
let stage = null, ready = false;                   // stage stays null where there is no WebGL2: the strip is shown

function sound(bytes) {
  const audio = document.createElement("audio");
  audio.src = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
  document.body.append(audio);
  for (const event of ["play", "pause", "seeked"]) audio.addEventListener(event, refresh);
  audio.addEventListener("ended", end);
  return audio;
}

function unpack(id) {
  const packed = new Blob([decode(find(id).textContent)]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip")));
}

async function picture(text) {
  const image = new Image();
  image.src = `data:image/jpeg;base64,${text}`;
  await image.decode();
  return image;
}

async function begin() {                           // unpacks three.js, then the faces
  document.body.classList.remove("still");
  try {
    const library = document.createElement("script");
    library.textContent = await unpack("three").text();
    document.head.append(library);
    const arrays = await unpack("arrays").arrayBuffer();
    for (const { detail } of page.clips) if (detail) detail.image = await picture(detail.picture);
    stage = new Stage(canvas, page.clips, page.studio, arrays);
    canvas.addEventListener("webglcontextlost", () => still("the graphics card left"));
    canvas.addEventListener("webglcontextrestored", () => {
      document.body.classList.remove("still");
      refresh();
    });
  } catch (error) {
    still(error.message);
  }
  ready = true;
  seek(Number(new URLSearchParams(location.hash.slice(1)).get("t")) || 0);   // face.html#t=1.5 opens at 1.5 s
}

function still(why) {                              // frames of the clip take the moving face's place
  find("why").textContent = why;
  document.body.classList.add("still");
}

let waiting = false;
function refresh() {                               // one drawing per screen refresh, however many ask for it
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function draw() {
  if (!ready) return;
  const time = clock.currentTime, playing = !clock.paused;
  const frame = Math.min(time * fps, frames - 1);
  if (stage) stage.draw(frame, playing);
  if (stage) find("names").style.gridTemplateColumns = `repeat(${stage.columns}, 1fr)`;
  if (page.words.length) speak(time);
  if (page.tokens.length) ribbon(time);
  document.body.dataset.frame = frame.toFixed(2);
  tell(time, playing);
  if (playing) time >= duration - 0.01 ? end() : refresh();
}

let told = "";
function tell(time, playing) {                     // the bar: ten times a second is enough, the browser lays it out anew
  const now = `${time.toFixed(1)} ${playing}`;
  if (now === told) return;
  told = now;
  if (!scrub.matches(":active")) scrub.value = time;
  scrub.setAttribute("aria-valuetext", `${time.toFixed(1)} of ${duration.toFixed(1)} seconds`);
  find("time").textContent = `${time.toFixed(1)} / ${duration.toFixed(1)} s`;
  button.classList.toggle("playing", playing);
  button.setAttribute("aria-label", playing ? "Pause" : "Play");
}

function end() {
  clock.pause();
  if (pressed("loop")) start(0);
  refresh();
}

async function start(time) {
  clock.currentTime = time;
  try { await clock.play(); } catch (error) { console.warn(error); }
  refresh();
}

function toggle() {
  if (clock.paused) return start(clock.currentTime >= duration - 0.05 ? 0 : clock.currentTime);
  clock.pause();
  refresh();
}

function seek(time) {
  clock.currentTime = Math.min(duration, Math.max(0, time));
  refresh();
}

function move(action) {                            // changes what the camera sees
  if (stage) action(stage);
  refresh();
}

function pressed(id, change = false) {
  const on = (find(id).getAttribute("aria-pressed") === "true") !== change;
  find(id).setAttribute("aria-pressed", on);
  return on;
}

// Words: the one being said is bright, and kept in the middle of the line.
let said = -1;
function speak(time) {
  const now = page.words.findLastIndex(([start]) => start <= time + 1e-6);
  if (now === said && said >= 0) return;
  said = now;
  const near = page.words.slice(Math.max(0, now - 4), Math.max(now, 0) + 5);
  find("words").replaceChildren(...near.flatMap(word => {
    const node = document.createElement(word === page.words[now] ? "b" : "span");
    node.textContent = word[1];
    return [node, " "];
  }));
}

// The ribbon: what the model wrote, row by row, moving under a line that is now.
const COLOURS = ["#8fb4d8", "#e0a487", "#a9c98f"], SPAN = 3.0, NOW = 0.35;   // seconds in sight; place of the line
function ribbon(time) {
  const place = find("ribbon"), ratio = window.devicePixelRatio || 1, high = 54;
  const wide = place.clientWidth, pen = place.getContext("2d");
  [place.width, place.height] = [Math.round(wide * ratio), high * ratio];
  pen.scale(ratio, ratio);
  pen.font = "10px ui-monospace, monospace";
  pen.textBaseline = "middle";
  page.tokens.forEach(({ name, step, labels }, row) => {
    const top = row * 18, width = step * wide / SPAN;
    const first = Math.max(0, Math.floor((time - NOW * SPAN) / step));
    const last = Math.min(labels.length, Math.ceil((time + (1 - NOW) * SPAN) / step));
    for (let i = first; i < last; i++) {
      const left = (i * step - time) / SPAN * wide + NOW * wide;
      pen.globalAlpha = i * step <= time ? 0.95 : 0.35;
      pen.fillStyle = COLOURS[row % 3];
      pen.fillRect(left + 0.5, top, width - 1, 15);
      if (!labels[i] || pen.measureText(labels[i]).width > 2.2 * (width - 4)) continue;
      pen.fillStyle = "#15171c";
      pen.globalAlpha = 1;
      pen.fillText(labels[i], left + 2, top + 8, width - 4);       // long words are drawn narrower
    }
    pen.globalAlpha = 0.85;
    pen.fillStyle = "#15171c";
    pen.fillRect(0, top, 46, 15);
    pen.globalAlpha = 1;
    pen.fillStyle = "#9aa0ab";
    pen.fillText(name, 4, top + 8, 40);
  });
  pen.fillStyle = "#fff";
  pen.fillRect(NOW * wide - 0.5, 0, 1, high);
}

const KEYS = {
  ArrowLeft: s => s.turn(-0.1, 0), ArrowRight: s => s.turn(0.1, 0),
  ArrowUp: s => s.turn(0, 0.1), ArrowDown: s => s.turn(0, -0.1),
  "+": s => s.scale(1.1), "-": s => s.scale(1 / 1.1), "0": s => s.reset(),
};

button.addEventListener("click", toggle);
scrub.addEventListener("input", () => seek(Number(scrub.value)));
find("speed").addEventListener("change", event => { clock.playbackRate = Number(event.target.value); });
find("loop").addEventListener("click", () => pressed("loop", true));
find("heat").addEventListener("click", () => {
  const on = pressed("heat", true);
  document.body.classList.toggle("heat", on);
  move(s => { s.heat = on ? page.heat : 0; });
});
document.addEventListener("keydown", event => {
  if (event.key !== " " || event.target.tagName === "BUTTON" || event.target.tagName === "SELECT") return;
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

scrub.max = duration;
scrub.step = 1 / fps;
find("heat").hidden = !page.heat;
find("most").textContent = Number((1000 * page.heat).toPrecision(2));
find("words").hidden = !page.words.length;
find("ribbon").hidden = !page.tokens.length;
begin();

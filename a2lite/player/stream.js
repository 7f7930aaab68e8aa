// Frames and sound arrive in pieces; the sound card's clock says which frame is shown. pythreejs draws it: its objects
// (obj, ipymodel, the scene's "rerender") are not its public interface, and are the same in every 2.4 release.

const find = (model, name) => model.widget_manager.get_model(name.replace("IPY_MODEL_", ""));
const GAP = 0.12;                                 // seconds from the first piece to its sound

class Speech {
  constructor(model) {
    this.model = model;
    this.begin();
    model.on("msg:custom", (message, buffers) => this[message.kind](message, buffers));
  }

  async find() {                                   // what pythreejs made of mesh and places
    const parts = this.model.get("parts").map(name => find(this.model, name));
    [this.mesh, this.places, ...this.parts] = await Promise.all([
      ...["mesh", "places"].map(name => find(this.model, this.model.get(name))), ...parts]);
    await Promise.all([this.mesh, this.places, ...this.parts].map(model => model.initPromise));
  }

  begin() {
    for (const source of this.sources || []) source.stop();
    this.context = this.context || new AudioContext({ sampleRate: this.model.get("rate") });
    Object.assign(this, { sources: [], frames: [], zero: null, shown: -1, stalls: 0 });
    this.run();
  }

  at(start) {                                      // a place in the answer -> the sound card's time
    const now = this.context.currentTime;
    if (this.zero === null) this.zero = now + GAP - start;
    return this.zero + start;
  }

  audio({ start }, [data]) {
    const wave = new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
    const late = this.context.currentTime - this.at(start);
    if (late > 0) {                                // too late to follow on: voice and face wait together
      this.zero += late + GAP;
      this.stalls += 1;
    }
    const source = this.context.createBufferSource();
    source.buffer = this.context.createBuffer(1, wave.length, this.model.get("rate"));
    source.buffer.copyToChannel(wave, 0);
    source.connect(this.context.destination);
    source.start(this.at(start));
    this.sources.push(source);
    this.run();
  }

  motion({ start, count }, buffers) {              // per frame the skin's places, then 7 numbers for each part
    const tables = buffers.map(data => new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4));
    const first = Math.round(start * this.model.get("fps"));
    for (let i = 0; i < count; i++)
      this.frames[first + i] = tables.map(all => all.slice(i * all.length / count, (i + 1) * all.length / count));
    this.at(start);
    this.run();
  }

  run() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  draw() {
    if (this.zero === null) return;
    const time = this.context.currentTime - this.zero - (this.context.outputLatency || 0);
    const frame = Math.min(Math.floor(time * this.model.get("fps")), this.frames.length - 1);
    const places = this.places && this.places.obj;
    if (frame >= 0 && frame !== this.shown && places && this.frames[frame]) {
      const [skin, ...worn] = this.frames[frame];
      places.array.set(skin);
      places.needsUpdate = true;
      worn.forEach(([a, b, c, d, x, y, z], i) => {
        this.parts[i].obj.quaternion.set(a, b, c, d);
        this.parts[i].obj.position.set(x, y, z);
      });
      let root = this.mesh.obj;
      while (root.parent) root = root.parent;
      if (root.ipymodel) root.ipymodel.trigger("rerender", this.mesh, {});
      this.shown = frame;
    }
    if (this.view) this.view(time, this.shown);
    if (this.shown < this.frames.length - 1) this.run();
  }
}

async function initialize({ model }) {
  const speech = new Speech(model);
  model.speech = speech;
  await speech.find();
}

function render({ model, el }) {
  const speech = model.speech, line = document.createElement("div"), button = document.createElement("button");
  button.textContent = "🔊 sound";
  button.onclick = () => speech.context.resume();
  speech.context.onstatechange = () => { button.hidden = speech.context.state === "running"; };
  speech.context.onstatechange();
  speech.view = (time, frame) => Object.assign(el.dataset, { time: time.toFixed(3), frame, stalls: speech.stalls });
  const say = () => { line.textContent = model.get("text"); };
  model.on("change:text", say);
  say();
  el.append(button, line);
  return () => { speech.view = null; model.off("change:text", say); };
}

export default { initialize, render };

// Frames and sound arrive in pieces; the sound card's clock says which frame is shown. pythreejs draws it: its objects
// (obj, ipymodel, the scene's "rerender") are not its public interface, and are the same in every 2.4 release.

const GAP = 0.12;                                 // seconds from the first piece to its sound

class Speech {
  constructor(model) {
    this.model = model;
    this.views = new Set();                        // functions that tell where we are
    this.begin();
    model.on("msg:custom", (message, buffers) => this[message.kind](message, buffers));
    this.find().catch(error => console.error("a2lite: no face to move", error));
  }

  async find() {                                   // what pythreejs made of mesh and places
    const get = name => this.model.widget_manager.get_model(name.replace("IPY_MODEL_", ""));
    const names = [...["mesh", "places"].map(name => this.model.get(name)), ...this.model.get("parts")];
    const models = await Promise.all(names.map(get));
    await Promise.all(models.map(model => model.initPromise));
    [this.mesh, this.places, ...this.parts] = models;
    this.run();
  }

  begin() {
    this.hush();
    if (!this.context) {
      this.context = new AudioContext({ sampleRate: this.model.get("rate") });
      this.context.onstatechange = () => this.tell();
    }
    Object.assign(this, { frames: [], zero: null, time: 0, shown: -1, stalls: 0 });
    this.tell();
  }

  hush() {
    for (const source of this.sources || []) source.stop();
    this.sources = [];
  }

  end() {                                          // nobody looks any more
    this.hush();
    cancelAnimationFrame(this.waiting);
    if (this.context) this.context.close();
    Object.assign(this, { context: null, waiting: 0, zero: null });
  }

  at(start) {                                      // a place in the answer -> the sound card's time
    const now = this.context.currentTime;
    if (this.zero === null) this.zero = now + GAP - start;
    return this.zero + start;
  }

  audio({ start }, [data]) {
    if (!this.context) return;
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
    if (this.context) this.at(start);
    this.run();
  }

  run() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  draw() {
    if (this.zero === null || !this.places) return;
    this.time = this.context.currentTime - this.zero - (this.context.outputLatency || 0);
    const frame = Math.min(Math.floor(this.time * this.model.get("fps")), this.frames.length - 1);
    if (frame >= 0 && frame !== this.shown && this.frames[frame]) {
      const [skin, ...worn] = this.frames[frame], places = this.places.obj;
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
    this.tell();
    if (this.shown < this.frames.length - 1) this.run();
  }

  tell() {
    for (const view of this.views) view();
  }
}

function render(speech, model, el) {               // a line and a button
  const line = document.createElement("div"), button = document.createElement("button");
  button.textContent = "🔊 sound";
  button.onclick = () => speech.context && speech.context.resume();
  const view = () => {
    button.hidden = !speech.context || speech.context.state === "running";
    Object.assign(el.dataset, { time: speech.time.toFixed(3), frame: speech.shown, stalls: speech.stalls });
  };
  const say = () => { line.textContent = model.get("text"); };
  model.on("change:text", say);
  say();
  speech.views.add(view);
  if (!speech.context) speech.begin();
  view();
  el.append(button, line);
  return () => {
    speech.views.delete(view);
    model.off("change:text", say);
    if (!speech.views.size) speech.end();
  };
}

export default () => {                             // once for each model; its views share what it says
  let speech;
  return {
    initialize({ model }) {
      speech = new Speech(model);
      return () => speech.end();
    },
    render: ({ model, el }) => render(speech, model, el),
  };
};

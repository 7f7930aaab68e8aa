// The faces: each decodes its clip and blends the shape of a moment; three.js draws them side by side.

// Light is worked out at the vertices, of which a tessellated face has plenty, so that a machine without a graphics
// card keeps up; what is finer than they are, the skin's detail and the glint of wet eyes, at the pixels.
const VERTEX = `
in vec3 position, normal;
in vec4 paint;                    // root of the linear colour, gloss
in vec2 light;                    // shares of ambient and of key light that reach the vertex
#ifdef WORN
out vec3 seen;
uniform float heat;
#else
in float error;                   // metres from the clip it is compared with
in vec3 spot;                     // place in the picture of the skin's detail, share of it
in float squeeze;                 // how much of its surface the skin has lost
uniform mat3 turn;                // the resting face's directions -> the scene's
out vec3 skin, lit, shine;
out vec4 fine;                    // spot, squeeze
out vec2 steeper;                 // how much darker it gets per slope to the right and upwards
out float off;
out vec3 at, facing;              // only for what is wet
out vec2 wet;                     // gloss, share of key light
#endif
uniform mat4 modelMatrix, viewMatrix, projectionMatrix;
uniform vec3 cameraPosition, sky[1], ground[1], direction[4], colour[4], wrap[4];
void main() {
  vec4 place = modelMatrix * vec4(position, 1.0);
  vec3 up = normalize(mat3(modelMatrix) * normal), toEye = normalize(cameraPosition - place.xyz);
#ifdef WORN
  vec3 lit, shine;
#else
  vec3 change = vec3(0.0);
#endif
  lit = light.x * mix(ground[0], sky[0], 0.5 + 0.5 * up.y);
  shine = vec3(0.0);
  for (int i = 0; i < 4; i++) {
    float reach = i == 0 ? light.y : light.x;
    vec3 share = clamp((dot(up, direction[i]) + wrap[i]) / (1.0 + wrap[i]), 0.0, 1.0);
    lit += reach * share * colour[i];
#ifndef WORN
    change += reach * dot(step(0.001, share) * colour[i] / (1.0 + wrap[i]), vec3(1.0 / 3.0))
      * (direction[i] - up * dot(up, direction[i]));
#endif
    if (i < 2 && paint.a < 0.6) {   // the rims only draw the outline
      float glint = pow(max(dot(up, normalize(toEye + direction[i])), 0.0), 20.0 + 160.0 * paint.a);
      shine += mix(reach, 1.0, paint.a) * glint * paint.a * (0.5 + paint.a) * colour[i];
    }
  }
#ifdef WORN
  vec3 linear = heat > 0.0 ? 0.43 * lit : paint.rgb * paint.rgb * lit + shine;
  vec3 root = sqrt(clamp(linear / (1.0 + 0.18 * linear), 0.0, 1.0));
  seen = 0.87 * root + 0.13 * sqrt(root);          // within 0.01 of the power 1 / 2.2, and cheaper
#else
  steeper = spot.z * (change * turn).xy;
  skin = paint.rgb * paint.rgb;
  at = place.xyz;
  facing = up;
  wet = vec2(paint.a, light.y);
  fine = vec4(spot, squeeze);
  off = error;
#endif
  gl_Position = projectionMatrix * viewMatrix * place;
}`;

const SHOWN = `
vec3 shown(vec3 linear) {
  return pow(clamp(linear / (1.0 + 0.18 * linear), 0.0, 1.0), vec3(1.0 / 2.2));
}`;

const FRAGMENT = `
precision highp float;
in vec3 skin, lit, shine, at, facing;
in vec4 fine;
in vec2 steeper, wet;
in float off;
uniform sampler2D slopes, tones;  // of relief and folds, to the right and upwards; 0.5 is none
uniform vec2 steep;               // slopes at the end of either
uniform vec3 cameraPosition, direction[4], colour[4];
uniform float heat;               // metres at the end of the scale; 0 shows the skin
out vec4 pixel;
${SHOWN}
vec3 scale(float t) {             // grey, yellow, red, dark red
  vec3 low = mix(vec3(0.42, 0.43, 0.45), vec3(0.85, 0.62, 0.10), clamp(3.0 * t, 0.0, 1.0));
  return mix(low, mix(vec3(0.75, 0.06, 0.03), vec3(0.16, 0.0, 0.03), clamp(3.0 * t - 2.0, 0.0, 1.0)),
    clamp(3.0 * t - 1.0, 0.0, 1.0));
}
void main() {
  vec3 paint = skin, diffuse = lit, glints = shine;
  if (heat > 0.0) {
    paint = scale(off / heat);
    glints = vec3(0.0);
  } else if (fine.z > 0.0) {
    vec4 both = (texture(slopes, fine.xy) * 255.0 - 128.0) / 127.0;
    diffuse *= max(1.0 - dot(steeper, steep.x * both.xy + fine.w * steep.y * both.zw) / dot(lit, vec3(1.0 / 3.0)), 0.1);
    paint *= 1.0 + fine.z * (texture(tones, fine.xy).r * 255.0 / 128.0 - 1.0);
  }
  if (wet.x > 0.6 && heat == 0.0) {
    vec3 normal = normalize(facing), toEye = normalize(cameraPosition - at);
    for (int i = 0; i < 2; i++) {
      float glint = pow(max(dot(normal, normalize(toEye + direction[i])), 0.0), 20.0 + 160.0 * wet.x);
      glints += glint * wet.x * (0.5 + wet.x) * colour[i];
    }
  }
  pixel = vec4(shown(paint * diffuse + glints), 1.0);
}`;

// What a face wears has small triangles, and much of it lies behind the rest: nothing is left to the pixels.
const WORN = `#define WORN${VERTEX}`;
const PLAIN = `
precision mediump float;
in vec3 seen;
out vec4 pixel;
void main() { pixel = vec4(seen, 1.0); }`;

const decode = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const KINDS = { f4: Float32Array, i2: Int16Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, d2: Uint16Array };

function numbers(arrays, kind, start, count) {
  const found = new KINDS[kind](arrays, start, count);
  if (kind !== "d2") return found;
  const summed = found.slice();                    // steps; sums wrap round at 65536
  for (let n = 1; n < count; n++) summed[n] += summed[n - 1];
  return summed;
}

// A clip or part of one, with the arrays in the place of [kind, first byte, count].
function filled(part, arrays) {
  const read = value => {
    if (Array.isArray(value)) return value[0] in KINDS ? numbers(arrays, ...value) : value.map(read);
    return value?.constructor === Object ? filled(value, arrays) : value;
  };
  return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, read(value)]));
}

// Unit normals of the first ``count`` numbers of places: means of the adjoining faces', weighted by area. ``sizes`` are
// the lengths of those sums.
function setNormals(p, faces, count, out, sizes = null) {
  out.fill(0);
  for (let f = 0; f < faces.length; f += 3) {
    const a = 3 * faces[f], b = 3 * faces[f + 1], c = 3 * faces[f + 2];
    const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
    const vx = p[c] - p[a], vy = p[c + 1] - p[a + 1], vz = p[c + 2] - p[a + 2];
    const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
    for (const i of [a, b, c]) { out[i] += x; out[i + 1] += y; out[i + 2] += z; }
  }
  for (let n = 0; n < count; n += 3) {
    const size = Math.hypot(out[n], out[n + 1], out[n + 2]) || 1;
    if (sizes) sizes[n / 3] = size;
    for (let i = n; i < n + 3; i++) out[i] /= size;
  }
}

// Row ``frame`` of poses (12 numbers: rotation row by row, shift), a fraction blends two neighbours.
function poseAt(poses, frame, out) {
  const last = poses.length / 12 - 1, first = Math.min(Math.floor(frame), last), next = Math.min(first + 1, last);
  const part = Math.min(frame, last) - first;
  for (let i = 0; i < 12; i++) out[i] = (1 - part) * poses[12 * first + i] + part * poses[12 * next + i];
  return out;
}

// The shape of a moment: mean + weights * basis, its normals, and one round of Phong tessellation (Boubekeur
// and Alexa 2008): the middle of every edge moves towards the tangent planes of its ends, for round outlines.
class Shape {
  constructor(clip, tessellated) {
    this.frames = clip.frames;
    this.rank = clip.directions;
    [this.mean, this.basis, this.weights, this.poses] = [clip.mean, clip.basis, clip.weights, clip.poses];
    [this.coarse, this.spun] = [clip.faces, clip.spun];
    this.count = this.mean.length + (this.spun ? 3 * (this.spun.starts.length - 1) : 0);
    const [ends, faces] = tessellated ? this.split() : [[], this.coarse];
    [this.ends, this.faces] = [ends, this.withBacks(faces)];
    this.positions = new Float32Array(this.count + 3 * this.ends.length / 2);
    this.normals = new Float32Array(this.positions.length);
    this.sizes = new Float32Array(this.count / 3); // of each vertex's surface
    this.pose = new Float32Array(12);              // rotation row by row, shift
  }

  withBacks(faces) {                               // skin is seen from outside, strands on it from either side
    const skin = this.mean.length / 3, each = faces.length / this.coarse.length, backs = [];
    for (let f = 0; f < faces.length; f += 3) {
      const from = 3 * Math.floor(f / 3 / each);   // the triangle it is a part of
      if (Math.max(...this.coarse.subarray(from, from + 3)) >= skin) backs.push(faces[f], faces[f + 2], faces[f + 1]);
    }
    return Uint32Array.from([...faces, ...backs]);
  }

  split() {                                        // the middle of edge e becomes vertex count + e
    const middles = new Map(), ends = [], faces = [], count = this.count / 3;
    const middle = (a, b) => {
      const key = Math.min(a, b) * 65536 + Math.max(a, b);
      if (!middles.has(key)) {
        middles.set(key, count + middles.size);
        ends.push(a, b);
      }
      return middles.get(key);
    };
    for (let f = 0; f < this.coarse.length; f += 3) {
      const [a, b, c] = this.coarse.subarray(f, f + 3);
      const [ab, bc, ca] = [middle(a, b), middle(b, c), middle(c, a)];
      faces.push(a, ab, ca, b, bc, ab, c, ca, bc, ab, bc, ca);
    }
    return [Uint16Array.from(ends), Uint32Array.from(faces)];
  }

  spread(values, width) {                          // per vertex -> per vertex and middle, for paint and light
    const out = new values.constructor(values.length + width * this.ends.length / 2);
    out.set(values);
    for (let e = 0, o = values.length; e < this.ends.length; e += 2)
      for (let i = 0; i < width; i++)
        out[o++] = (values[width * this.ends[e] + i] + values[width * this.ends[e + 1] + i]) / 2;
    return out;
  }

  set(frame) {                                     // a fraction blends two neighbouring frames
    const first = Math.floor(frame), next = Math.min(first + 1, this.frames - 1), part = frame - first;
    const mix = (table, width, i) => (1 - part) * table[first * width + i] + part * table[next * width + i];
    poseAt(this.poses, frame, this.pose);
    this.positions.set(this.mean);
    for (let k = 0; k < this.rank; k++) {
      const weight = mix(this.weights, this.rank, k), start = k * this.mean.length;
      for (let n = 0; n < this.mean.length; n++) this.positions[n] += weight * this.basis[start + n];
    }
    if (this.spun) this.spin(this.spun);
    setNormals(this.positions, this.coarse, this.count, this.normals, this.sizes);
    this.setMiddles();
  }

  spin({ starts, vertices, shares }) {               // further vertices: weighted sums of the skin's
    const p = this.positions;
    for (let row = 0, o = this.mean.length; row + 1 < starts.length; row++, o += 3) {
      p[o] = p[o + 1] = p[o + 2] = 0;
      for (let k = starts[row]; k < starts[row + 1]; k++)
        for (let i = 0; i < 3; i++) p[o + i] += shares[k] * p[3 * vertices[k] + i];
    }
  }

  setMiddles() {
    const p = this.positions, normal = this.normals;
    for (let e = 0, o = this.count; e < this.ends.length; e += 2, o += 3) {
      const a = 3 * this.ends[e], b = 3 * this.ends[e + 1];
      let rise = 0, fall = 0;                      // half the edge along either normal
      for (let i = 0; i < 3; i++) {
        const half = (p[b + i] - p[a + i]) / 2;
        rise -= half * normal[a + i];
        fall += half * normal[b + i];
      }
      for (let i = 0; i < 3; i++) {
        normal[o + i] = normal[a + i] + normal[b + i];
        p[o + i] = (p[a + i] + p[b + i]) / 2 + 0.375 * (rise * normal[a + i] + fall * normal[b + i]);
      }
    }
  }
}

// The picture of the skin's detail as two textures: slopes of its heights, and its tone.
function textures({ image, size, heights }) {
  const [wide, high] = [image.width, image.height], pen = new OffscreenCanvas(wide, high).getContext("2d");
  pen.drawImage(image, 0, 0);
  const pixels = pen.getImageData(0, 0, wide, high).data, slopes = new Uint8Array(4 * wide * high);
  const tones = new Uint8Array(4 * wide * high), steep = STEEP;
  const inside = (n, end) => Math.min(Math.max(n, 0), end - 1);
  const at = (x, y, channel) => pixels[4 * (inside(y, high) * wide + inside(x, wide)) + channel];
  for (let y = 0, o = 0; y < high; y++)
    for (let x = 0; x < wide; x++, o += 4) {
      tones[o] = at(x, y, 0);
      for (let k = 0; k < 2; k++) {                // relief, folds
        const metres = heights[k] / 127;
        const right = (at(x + 1, y, k + 1) - at(x - 1, y, k + 1)) * metres / (2 * size[0] / wide);
        const up = (at(x, y - 1, k + 1) - at(x, y + 1, k + 1)) * metres / (2 * size[1] / high);
        slopes[o + 2 * k] = Math.round(128 + 127 * Math.max(-1, Math.min(1, right / steep[k])));
        slopes[o + 2 * k + 1] = Math.round(128 + 127 * Math.max(-1, Math.min(1, up / steep[k])));
      }
    }
  return [slopes, tones].map(data => {
    const texture = new THREE.DataTexture(data, wide, high);
    texture.minFilter = texture.magFilter = THREE.LinearFilter;
    texture.needsUpdate = true;
    return texture;
  });
}
const STEEP = [0.5, 1.5];

// A mesh that its matrix moves; ``arrays`` are name -> [values, width, whether bytes stand for 0 to 1].
function meshOf(arrays, faces, material) {
  const geometry = new THREE.BufferGeometry();
  for (const [name, [values, width, unit]] of Object.entries(arrays))
    geometry.setAttribute(name, new THREE.BufferAttribute(values, width, unit));
  geometry.setIndex(new THREE.BufferAttribute(faces, 1));
  const mesh = new THREE.Mesh(geometry, material);
  mesh.frustumCulled = mesh.matrixAutoUpdate = false;
  return mesh;
}

function place(mesh, [a, b, c, d, e, f, g, h, i, x, y, z]) {
  mesh.matrix.set(a, b, c, x, d, e, f, y, g, h, i, z, 0, 0, 0, 1);
  mesh.matrixWorldNeedsUpdate = true;
}

// Something stiff that a face wears, such as hair.
class Part {
  constructor(part, material) {
    const places = Float32Array.from(part.places), faces = part.faces, normals = new Float32Array(places.length);
    for (let n = 3; n < places.length; n++) places[n] += places[n - 3];
    for (let n = 0; n < places.length; n++) places[n] *= part.step;
    setNormals(places, faces, places.length, normals);
    this.poses = part.poses;
    this.pose = new Float32Array(12);
    this.mesh = meshOf({
      position: [places, 3], normal: [normals, 3], paint: [part.paint, 4, true],
      light: [part.light, 2, true],
    }, faces, material);
    this.mesh.renderOrder = -1;                    // before the face, which then need not be drawn under the hair
  }

  set(frame) { place(this.mesh, poseAt(this.poses, frame, this.pose)); }
}

// One clip's mesh and what it wears, in a scene of its own.
class Face {
  constructor(clip, studio, tessellated) {
    const shape = this.shape = new Shape(clip, tessellated);
    this.errors = new Float32Array(shape.positions.length / 3);
    this.squeeze = new Float32Array(this.errors.length);
    this.detail = clip.detail;
    this.material = this.paint(studio, VERTEX, FRAGMENT, THREE.FrontSide);
    const spots = clip.detail ? shape.spread(clip.detail.spots, 3) : new Uint16Array(shape.positions.length);
    this.mesh = meshOf({
      position: [shape.positions, 3], normal: [shape.normals, 3], error: [this.errors, 1],
      spot: [spots, 3, true], squeeze: [this.squeeze, 1],
      paint: [shape.spread(clip.paint, 4), 4, true],
      light: [shape.spread(clip.light, 2), 2, true],
    }, shape.faces, this.material);
    this.worn = this.paint(studio, WORN, PLAIN, THREE.DoubleSide);
    this.parts = clip.parts.map(part => new Part(part, this.worn));
    this.scene = new THREE.Scene().add(this.mesh, ...this.parts.map(part => part.mesh));
    this.camera = clip.camera;
  }

  paint(studio, vertexShader, fragmentShader, side) {
    const uniforms = { heat: { value: 0 } };
    for (const [name, rows] of Object.entries(studio)) uniforms[name] = { value: rows.flat() };
    const [slopes, tones] = this.textures = this.textures || (this.detail ? textures(this.detail) : [null, null]);
    Object.assign(uniforms, {
      slopes: { value: slopes }, tones: { value: tones }, steep: { value: STEEP },
      turn: { value: new Array(9).fill(0) },
    });
    return new THREE.RawShaderMaterial({
      vertexShader, fragmentShader, glslVersion: THREE.GLSL3, side, uniforms,
    });
  }

  set(frame) {
    this.shape.set(Math.min(frame, this.shape.frames - 1));
    place(this.mesh, this.shape.pose);
    for (const part of this.parts) part.set(frame);
    if (this.detail) this.refine(this.detail, this.shape.pose);
    for (const name of ["position", "normal", "squeeze"]) this.mesh.geometry.attributes[name].needsUpdate = true;
  }

  refine({ upright, area, squeeze }, pose) {       // which way the resting face looks now; where the skin is squeezed
    const turn = this.material.uniforms.turn.value;
    for (let column = 0; column < 3; column++)
      for (let row = 0; row < 3; row++) {
        turn[3 * column + row] = 0;
        for (let k = 0; k < 3; k++) turn[3 * column + row] += pose[3 * row + k] * upright[3 * k + column];
      }
    const { sizes, ends, count } = this.shape, out = this.squeeze;
    for (let v = 0; v < count / 3; v++) out[v] = Math.max(0, Math.min(1, squeeze * (1 - sizes[v] / area[v])));
    for (let e = 0, v = count / 3; e < ends.length; e += 2, v++) out[v] = (out[ends[e]] + out[ends[e + 1]]) / 2;
  }

  compare(other, heat) {                           // heat: metres at the end of the scale, 0 for none
    this.material.uniforms.heat.value = this.worn.uniforms.heat.value = heat;
    if (!heat) return;
    const [p, q, m, n] = [this.shape.positions, other.shape.positions, this.shape.pose, other.shape.pose];
    for (let v = 0; v < this.errors.length; v++) {
      let sum = 0;
      for (let r = 0; r < 3; r++) {
        let gap = m[9 + r] - n[9 + r];
        for (let i = 0; i < 3; i++) gap += m[3 * r + i] * p[3 * v + i] - n[3 * r + i] * q[3 * v + i];
        sum += gap * gap;
      }
      this.errors[v] = Math.sqrt(sum);
    }
    this.mesh.geometry.attributes.error.needsUpdate = true;
  }
}

function withoutCard() {                           // whether the processor draws: then speed matters more than edges
  const gl = document.createElement("canvas").getContext("webgl2");
  const info = gl && gl.getExtension("WEBGL_debug_renderer_info");
  const name = info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "";
  if (gl) gl.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|software|basic render/i.test(name);
}

// How many of ``count`` faces stand side by side in a frame of an aspect, so that they are as large as can be.
function inRows(count, aspect) {
  const size = columns => Math.min(aspect / columns / 0.75, 1 / Math.ceil(count / columns));
  return Array.from({ length: count }, (_, n) => n + 1).reduce((best, n) => size(n) > size(best) + 1e-6 ? n : best, 1);
}

// Draws the faces in rows, seen by cameras that go round them together.
class Stage {
  constructor(canvas, clips, studio, arrays) {
    this.canvas = canvas;
    const antialias = !(this.slow = withoutCard()), gl = canvas.getContext("webgl2", { antialias, alpha: true });
    if (!gl) throw new Error("this browser has no WebGL2");
    this.renderer = new THREE.WebGLRenderer({ canvas, context: gl, antialias, alpha: true });
    this.renderer.setClearColor(0, 0);
    this.renderer.setScissorTest(true);
    this.lens = new THREE.PerspectiveCamera();
    this.faces = clips.map(clip => new Face(filled(clip, arrays), studio, !this.slow));
    this.heat = 0;
    [this.share, this.interval, this.last, this.drawn] = [0.6, 40, 0, 0];   // of the pixels' width; milliseconds
    this.reset();
  }

  reset() { [this.yaw, this.pitch, this.zoom] = [0.0, 0.0, 1.0]; }

  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = Math.min(1.4, Math.max(-1.4, this.pitch + pitch));
  }

  scale(factor) { this.zoom = Math.min(6, Math.max(0.5, this.zoom * factor)); }

  draw(frame, playing = false) {
    const [wide, high] = [Math.max(1, this.canvas.clientWidth), Math.max(1, this.canvas.clientHeight)];
    if (this.slow) this.pace(playing ? performance.now() : 0);
    this.renderer.setPixelRatio(this.slow ? (playing ? this.share : 1) : window.devicePixelRatio || 1);
    this.renderer.setSize(wide, high, false);
    const columns = this.columns = inRows(this.faces.length, wide / high);
    const rows = Math.ceil(this.faces.length / columns), [each, tall] = [wide / columns, high / rows];
    for (const face of this.faces) face.set(frame);
    this.faces.forEach((face, i) => {
      if (i) face.compare(this.faces[0], this.heat);
      this.look(face.camera, each / tall);
      const place = [i % columns * each, (rows - 1 - Math.floor(i / columns)) * tall, each, tall];
      this.renderer.setViewport(...place);
      this.renderer.setScissor(...place);
      this.renderer.render(face.scene, this.lens);
    });
  }

  pace(now) {                                      // fewer pixels where drawing falls behind, more where it need not
    const gone = now - this.last, going = now && this.last;
    this.last = now;                               // 0 while it rests
    if (!going) return;
    this.interval += 0.1 * (Math.min(gone, 200) - this.interval);
    if (++this.drawn % 10) return;
    const step = this.interval > 40 ? -0.1 : this.interval < 25 ? 0.1 : 0;
    this.share = Math.min(1, Math.max(0.4, this.share + step));
  }

  look({ middle, height, distance, focal }, aspect) {
    const [sy, cy] = [Math.sin(this.yaw), Math.cos(this.yaw)];
    const [sp, cp] = [Math.sin(this.pitch), Math.cos(this.pitch)];
    const half = focal * this.zoom * Math.min(1, aspect / 0.75);
    this.lens.position.set(...middle.map((m, i) => m + distance * [sy * cp, sp, cy * cp][i]));
    this.lens.lookAt(...middle);
    Object.assign(this.lens, {
      aspect, fov: 360 / Math.PI * Math.atan(1 / half), near: distance - height, far: distance + height,
    });
    this.lens.updateProjectionMatrix();
  }
}

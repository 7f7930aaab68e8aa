// The face: decodes the clip, blends the shape of a moment, draws it with WebGL2.

const VERTEX = `#version 300 es
in vec3 position, normal;
in vec4 paint;                    // root of the linear colour, gloss
in vec2 light;                    // shares of ambient and of key light that reach the vertex
uniform mat3 rotation, camera;    // columns: the rows of the head's rotation; right, up, towards the eye
uniform vec3 shift, eye;
uniform vec2 focal, range;        // in half widths and half heights; near and far
out vec3 at, facing, skin;
out vec3 finish;                  // ambient share, key share, gloss
void main() {
  at = position * rotation + shift;
  facing = normal * rotation;
  skin = paint.rgb * paint.rgb;
  finish = vec3(light, paint.a);
  vec3 seen = (at - eye) * camera;
  float depth = (-seen.z * (range.y + range.x) - 2.0 * range.x * range.y) / (range.y - range.x);
  gl_Position = vec4(seen.xy * focal, depth, -seen.z);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec3 at, facing, skin, finish;
uniform vec3 eye, sky, ground, direction[4], colour[4], wrap[4];
out vec4 pixel;
void main() {
  vec3 normal = normalize(facing), toEye = normalize(eye - at);
  float gloss = finish.z;
  vec3 diffuse = finish.x * mix(ground, sky, 0.5 + 0.5 * normal.y), shine = vec3(0.0);
  for (int i = 0; i < 4; i++) {
    float reach = i == 0 ? finish.y : finish.x;
    diffuse += reach * clamp((dot(normal, direction[i]) + wrap[i]) / (1.0 + wrap[i]), 0.0, 1.0) * colour[i];
    if (i < 2) {                    // the rims only draw the outline
      float glint = pow(max(dot(normal, normalize(toEye + direction[i])), 0.0), 20.0 + 160.0 * gloss);
      shine += mix(reach, 1.0, gloss) * glint * gloss * (0.5 + gloss) * colour[i];
    }
  }
  vec3 linear = skin * diffuse + shine;
  pixel = vec4(pow(clamp(linear / (1.0 + 0.18 * linear), 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
}`;

function decode(text, Type) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  return new Type(bytes.buffer);
}

// The shape of a moment: mean + weights * basis, its normals, and one round of Phong tessellation (Boubekeur
// and Alexa 2008): the middle of every edge moves towards the tangent planes of its ends, for round outlines.
class Shape {
  constructor(clip) {
    this.frames = clip.frames;
    this.rank = clip.directions;
    this.mean = decode(clip.mean, Float32Array);
    this.basis = decode(clip.basis, Int16Array);
    this.weights = decode(clip.weights, Float32Array);
    this.poses = decode(clip.poses, Float32Array);
    this.coarse = decode(clip.faces, Uint16Array);
    this.split();
    this.positions = new Float32Array(this.mean.length + 3 * this.ends.length / 2);
    this.normals = new Float32Array(this.positions.length);
    this.pose = new Float32Array(12);              // rotation row by row, shift
  }

  split() {                                        // the middle of edge e becomes vertex count + e
    const middles = new Map(), ends = [], faces = [], count = this.mean.length / 3;
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
    this.ends = Uint16Array.from(ends);
    this.faces = Uint32Array.from(faces);
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
    for (let i = 0; i < 12; i++) this.pose[i] = mix(this.poses, 12, i);
    this.positions.set(this.mean);
    for (let k = 0; k < this.rank; k++) {
      const weight = mix(this.weights, this.rank, k), start = k * this.mean.length;
      for (let n = 0; n < this.mean.length; n++) this.positions[n] += weight * this.basis[start + n];
    }
    this.setNormals();
    this.setMiddles();
  }

  setNormals() {                                   // means of the adjoining faces', weighted by area
    const p = this.positions, out = this.normals.fill(0), count = this.mean.length;
    for (let f = 0; f < this.coarse.length; f += 3) {
      const a = 3 * this.coarse[f], b = 3 * this.coarse[f + 1], c = 3 * this.coarse[f + 2];
      const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
      const vx = p[c] - p[a], vy = p[c + 1] - p[a + 1], vz = p[c + 2] - p[a + 2];
      const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
      for (const i of [a, b, c]) { out[i] += x; out[i + 1] += y; out[i + 2] += z; }
    }
    for (let n = 0; n < count; n += 3) {
      const size = Math.hypot(out[n], out[n + 1], out[n + 2]) || 1;
      for (let i = n; i < n + 3; i++) out[i] /= size;
    }
  }

  setMiddles() {
    const p = this.positions, normal = this.normals;
    for (let e = 0, o = this.mean.length; e < this.ends.length; e += 2, o += 3) {
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

// Draws a shape, lit as in a studio, seen by a camera that goes round it.
class Scene {
  constructor(canvas, clip) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: true });
    if (!this.gl) throw new Error("no WebGL2");
    this.clip = clip;
    this.shape = new Shape(clip);
    this.program = this.compile();
    this.fill();
    this.reset();
  }

  compile() {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    return program;
  }

  fill() {                                         // what stays: faces, paint, light, lamps
    const gl = this.gl, { clip, shape } = this;
    gl.enable(gl.DEPTH_TEST);
    this.positions = this.attribute("position", 3, gl.FLOAT, shape.positions);
    this.normals = this.attribute("normal", 3, gl.FLOAT, shape.normals);
    this.attribute("paint", 4, gl.UNSIGNED_BYTE, shape.spread(decode(clip.paint, Uint8Array), 4));
    this.attribute("light", 2, gl.UNSIGNED_BYTE, shape.spread(decode(clip.light, Uint8Array), 2));
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, shape.faces, gl.STATIC_DRAW);
    for (const [name, rows] of Object.entries(clip.studio)) gl.uniform3fv(this.uniform(name), rows.flat());
  }

  attribute(name, width, type, values) {
    const gl = this.gl, buffer = gl.createBuffer(), place = gl.getAttribLocation(this.program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, width, type, true, 0, 0);
    return buffer;
  }

  uniform(name) { return this.gl.getUniformLocation(this.program, name); }

  reset() { [this.yaw, this.pitch, this.zoom] = [0.0, 0.0, 1.0]; }

  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = Math.min(1.4, Math.max(-1.4, this.pitch + pitch));
  }

  scale(factor) { this.zoom = Math.min(6, Math.max(0.5, this.zoom * factor)); }

  draw(frame) {
    const gl = this.gl;
    this.shape.set(frame);
    for (const name of ["positions", "normals"]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, this[name]);
      gl.bufferSubData(gl.ARRAY_BUFFER, 0, this.shape[name]);
    }
    gl.uniformMatrix3fv(this.uniform("rotation"), false, this.shape.pose.subarray(0, 9));
    gl.uniform3fv(this.uniform("shift"), this.shape.pose.subarray(9));
    this.look();
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.drawElements(gl.TRIANGLES, this.shape.faces.length, gl.UNSIGNED_INT, 0);
  }

  look() {                                         // sizes the canvas and sets the camera
    const gl = this.gl, { middle, height, distance, focal } = this.clip.camera;
    const scale = window.devicePixelRatio || 1;
    const wide = Math.max(1, Math.round(scale * this.canvas.clientWidth));
    const high = Math.max(1, Math.round(scale * this.canvas.clientHeight));
    if (this.canvas.width !== wide) this.canvas.width = wide;
    if (this.canvas.height !== high) this.canvas.height = high;
    gl.viewport(0, 0, wide, high);
    const [sy, cy] = [Math.sin(this.yaw), Math.cos(this.yaw)];
    const [sp, cp] = [Math.sin(this.pitch), Math.cos(this.pitch)];
    const towards = [sy * cp, sp, cy * cp];
    gl.uniform3fv(this.uniform("eye"), middle.map((m, i) => m + distance * towards[i]));
    gl.uniformMatrix3fv(this.uniform("camera"), false, [cy, 0, -sy, -sy * sp, cp, -cy * sp, ...towards]);
    const half = focal * this.zoom * Math.min(1, wide / high / 0.75);
    gl.uniform2f(this.uniform("focal"), half * high / wide, half);
    gl.uniform2f(this.uniform("range"), distance - height, distance + height);
  }
}

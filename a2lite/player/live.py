"""A face in JupyterLab that the kernel moves (notebook 01): pythreejs draws it.

The library is imported when a view is made, so that headless runs never wait for it. Nothing here calculates in the
browser: the kernel sends 16 bytes a vertex, place and normal in one message, so that no picture is torn.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from a2lite.player.clip import Clip
from a2lite.player.light import STUDIO
from a2lite.player.look import Part
from a2lite.player.raster import vertex_normals

VERTEX = """
attribute vec4 place;   // xyz, and the normal's two octahedral coordinates of 12 bits in w
attribute vec4 paint;   // root of the linear colour, gloss
attribute vec2 light;
varying vec3 at, facing, skin, finish;
vec3 unpacked(float w) {
  float high = floor(w / 4096.0);
  vec2 o = 2.0 * vec2(high, w - 4096.0 * high) / 4095.0 - 1.0;
  vec3 n = vec3(o, 1.0 - abs(o.x) - abs(o.y));
  if (n.z < 0.0) n.xy = (1.0 - abs(n.yx)) * vec2(n.x < 0.0 ? -1.0 : 1.0, n.y < 0.0 ? -1.0 : 1.0);
  return normalize(n);
}
void main() {
  vec4 there = modelMatrix * vec4(place.xyz, 1.0);
  at = there.xyz;
  facing = mat3(modelMatrix) * unpacked(place.w);
  skin = paint.rgb * paint.rgb;
  finish = vec3(light, paint.a);
  gl_Position = projectionMatrix * viewMatrix * there;
}"""

FRAGMENT = """
varying vec3 at, facing, skin, finish;
void main() {
  vec3 normal = normalize(facing), toEye = normalize(cameraPosition - at);
  float gloss = finish.z;
  vec3 diffuse = finish.x * mix(GROUND, SKY, 0.5 + 0.5 * normal.y), shine = vec3(0.0);
  LAMPS
  vec3 linear = skin * diffuse + shine;
  gl_FragColor = vec4(pow(clamp(linear / (1.0 + 0.18 * linear), 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
}"""

LAMP = """{
    float reach = %(reach)s, cosine = dot(normal, %(direction)s);
    diffuse += reach * clamp((cosine + %(wrap)s) / (1.0 + %(wrap)s), 0.0, 1.0) * %(colour)s;
  }"""
GLINT = """{
    float glint = pow(max(dot(normal, normalize(toEye + %(direction)s)), 0.0), 20.0 + 160.0 * gloss);
    shine += mix(%(reach)s, 1.0, gloss) * glint * gloss * (0.5 + gloss) * %(colour)s;
  }"""


NEAREST, FARTHEST = 0.3, 1.4  # how near and how far one may go, in distances of the first picture


def pack(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3), (F, 3) -> (V, 4) float32: the places, and the normals in 24 bits of the last column."""
    normals = vertex_normals(vertices, faces)
    flat = normals / np.abs(normals).sum(1, keepdims=True)
    folded = (1 - np.abs(flat[:, 1::-1])) * np.where(flat[:, :2] < 0, -1, 1)
    corner = np.where(flat[:, 2:] < 0, folded, flat[:, :2])
    high, low = np.rint((0.5 + 0.5 * corner) * 4095).T
    return np.column_stack([vertices, 4096 * high + low]).astype(np.float32)


def _shader() -> str:
    """The fragment shader with the studio's lamps written out: pythreejs sends no arrays of uniforms."""
    vector = lambda row: f"vec3({', '.join(f'{value:.4f}' for value in row)})"  # noqa: E731
    lamps = []
    for i in range(4):
        names = {name: vector(STUDIO[name][i]) for name in ("direction", "colour", "wrap")}
        names["reach"] = "finish.y" if i == 0 else "finish.x"
        lamps += [LAMP % names] + ([GLINT % names] if i < 2 else [])
    sky, ground = (vector(STUDIO[name][0]) for name in ("sky", "ground"))
    return FRAGMENT.replace("LAMPS", "\n  ".join(lamps)).replace("SKY", sky).replace("GROUND", ground)


class View:
    """One mesh that can be turned and looked at from near, in a pythreejs renderer; ``widget`` is what a cell shows.

    ``clip`` gives shape, colours, light and camera; only its first frame is drawn.
    """

    def __init__(self, clip: Clip, width: int = 480, height: int = 400):
        import pythreejs as three

        self.look = clip.look
        skin = three.ShaderMaterial(vertexShader=VERTEX, fragmentShader=_shader(), side="DoubleSide")
        first = pack(clip.vertices[0], clip.faces)
        self.mesh = _mesh(skin, first, clip.faces, clip.colours, clip.look.gloss, clip.light)
        self.places = self.mesh.geometry.attributes["place"]
        self.parts = [
            _mesh(skin, pack(part.vertices, part.faces), part.faces, part.colours, part.gloss, part.light)
            for part in clip.look.parts
        ]
        place = clip.camera
        angle = 2 * np.degrees(np.arctan(1 / place["focal"]))
        middle, distance = place["middle"], place["distance"]
        camera = three.PerspectiveCamera(
            position=[middle[0], middle[1], middle[2] + distance], fov=angle, aspect=width / height,
            near=0.1 * distance, far=3 * distance,
        )  # fmt: skip
        near, far = NEAREST * distance, FARTHEST * distance
        orbit = three.OrbitControls(controlling=camera, target=middle, minDistance=near, maxDistance=far)
        scene = three.Scene(children=[self.mesh, *self.parts, camera], background="#f4f2ee")
        self.widget = three.Renderer(
            scene=scene, camera=camera, controls=[orbit], width=width, height=height, antialias=True
        )
        self._wear(clip.vertices[:1])

    def draw(self, vertices: np.ndarray) -> None:
        """Show (V, 3) places of the same mesh."""
        full = self.look.extend(np.asarray(vertices)[None])
        self.places.array = pack(full[0], self.look.faces)
        self._wear(full)

    def close(self) -> None:
        """Take it off the page, and everything it is made of out of the browser's memory."""
        for widget in _made_of(self.widget, {}).values():
            widget.close()

    def _wear(self, vertices: np.ndarray) -> None:
        """Parts go along; those that stay where they are send nothing."""
        for mesh, part in zip(self.parts, self.look.parts, strict=True):
            place = part_places(part, vertices)[0].round(6).tolist()
            mesh.quaternion, mesh.position = place[:4], place[4:]


def _made_of(widget, found: dict) -> dict:
    """``found``, and by their model ids a widget and all widgets that it or one of them holds."""
    from ipywidgets import Widget

    if widget.model_id not in found:
        found[widget.model_id] = widget
        for value in widget.trait_values(sync=True).values():
            parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else [value]
            for part in parts:
                if isinstance(part, Widget):
                    _made_of(part, found)
    return found


def _mesh(skin, places: np.ndarray, faces: np.ndarray, colours: np.ndarray, gloss, light: np.ndarray):
    """A pythreejs mesh of (V, 4) packed places."""
    import pythreejs as three

    array = lambda values: three.BufferAttribute(np.ascontiguousarray(values), normalized=False)  # noqa: E731
    paint = np.column_stack([np.sqrt(colours), np.broadcast_to(gloss, len(colours))])
    geometry = three.BufferGeometry(attributes=dict(
        position=array(places[:, :3]), place=array(places), paint=array(paint.astype(np.float32)),
        light=array(light.astype(np.float32)), index=array(faces.astype(np.uint32).ravel()),
    ))  # fmt: skip
    return three.Mesh(geometry, skin, frustumCulled=False)


def part_places(part: Part, vertices: np.ndarray) -> np.ndarray:
    """(T, 7) quaternion x, y, z, w and shift of ``part`` on the faces (T, V, 3)."""
    rotations, shifts = part.poses(vertices)
    return np.concatenate([Rotation.from_matrix(rotations).as_quat(), shifts], axis=1)

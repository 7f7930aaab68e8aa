"""The player: what the page holds is what was put in, and a browser plays it."""

import base64
import gzip
import io
import json
import re
import time

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from scipy.sparse import csr_matrix

from a2lite.flame import Flame, load_head
from a2lite.people import PEOPLE, dress
from a2lite.player import Clip, Look, Part, Tokens, notebook, page, render, save_page, show, strip
from a2lite.player.basis import compress
from a2lite.player.light import light_shares
from a2lite.player.raster import rasterise, vertex_normals
from browser import SOFTWARE, Browser, climbing, talking

SECONDS, FPS, RATE = 5, 25, 16000


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Five seconds of a head that talks, smiles, blinks and turns."""
    head = load_head()
    audio = 0.3 * np.sin(np.arange(SECONDS * RATE) * 0.05)
    return Clip(Flame(head)(talking(SECONDS)), dress(head), audio, RATE, FPS, title="A face", caption="It speaks.")


@pytest.fixture(scope="module")
def html(clip) -> str:
    return page(clip)


def content(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="clip">(.*?)</script>', html, re.S)[1])


def ball(rings: int = 24, radius: float = 0.1, inward: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A sphere: (V, 3) and (F, 3), counter-clockwise from outside."""
    polar, turn = np.meshgrid(np.linspace(0.05, np.pi - 0.05, rings), np.linspace(0, 2 * np.pi, rings + 1)[:-1])
    xyz = np.stack([np.sin(polar) * np.sin(turn), np.cos(polar), np.sin(polar) * np.cos(turn)], -1)
    i, j = (a.ravel() for a in np.meshgrid(np.arange(rings), np.arange(rings - 1), indexing="ij"))
    a, b = i * rings + j, (i + 1) % rings * rings + j
    faces = np.concatenate([np.stack([a, a + 1, b], 1), np.stack([b, a + 1, b + 1], 1)])
    return radius * xyz.reshape(-1, 3), faces


# ---------------------------------------------------------------- motion made small


def test_basis_gives_back_every_vertex_within_a_fifth_of_a_millimetre(clip):
    basis = compress(clip.vertices)
    distance = np.linalg.norm(basis.frames() - clip.vertices, axis=-1)
    assert distance.max() < 2e-4
    assert distance.max() == pytest.approx(basis.error, abs=2e-6)
    assert len(basis.scales) < 30


def test_a_head_that_only_turns_needs_no_basis():
    vertices, _ = ball()
    vertices[:, 0] *= 1.3
    angle = np.linspace(0, 1, 20)
    zero, one = np.zeros(20), np.ones(20)
    rows = [[np.cos(angle), zero, np.sin(angle)], [zero, one, zero], [-np.sin(angle), zero, np.cos(angle)]]
    turned = np.einsum("ijt,vj->tvi", np.array(rows), vertices).astype(np.float32)
    basis = compress(turned)
    assert len(basis.scales) == 0
    assert basis.error < 1e-6


def test_a_single_frame_is_a_clip(clip):
    basis = compress(clip.vertices[:1])
    np.testing.assert_allclose(basis.frames(), clip.vertices[:1], atol=1e-6)


def test_noise_beyond_the_limit_is_stated_not_hidden():
    noise = np.random.default_rng(0).normal(0, 0.01, (60, 50, 3)).astype(np.float32)
    with pytest.warns(UserWarning, match="mm off, for it is no sum of 5 directions"):
        basis = compress(noise, limit=5)
    assert len(basis.scales) == 5
    assert basis.error == pytest.approx(np.linalg.norm(basis.frames() - noise, axis=-1).max(), rel=1e-4)


# ---------------------------------------------------------------- the page


def test_page_is_one_small_file_that_asks_for_nothing(html):
    assert len(html) < 2_000_000
    assert not re.search(r"https?://|\bimport\(|[\"'(]//", html, re.I)
    assert all(target.startswith("data:") for target in re.findall(r'(?:src|href)="([^"]*)"', html))
    assert "default-src 'none'" in html
    assert "{{" not in html


def test_what_is_on_every_page_weighs_less_than_300_kb(html):
    own = re.sub(r'id="(clip|arrays)">.*?</script>', "", html, flags=re.S)
    own = re.sub(r'src="data:image/jpeg[^"]*"', "", own)
    assert len(own) < 300_000 and len(html) - len(own) < 1_000_000 * SECONDS / 4


def test_page_holds_the_vertices_it_was_given(clip, html):
    (held,) = content(html)["clips"]
    rank, frame = held["directions"], 40

    arrays = gzip.decompress(base64.b64decode(re.search(r'id="arrays">(.*?)</script>', html, re.S)[1]))

    def array(name, place=held):
        kind, start, count = place[name]
        found = np.frombuffer(arrays, f"<{kind.replace('d', 'u')}", count, start)
        return found.cumsum() % 65536 if kind == "d2" else found

    weights, pose = array("weights").reshape(-1, rank), array("poses").reshape(-1, 12)[frame]
    shape = (array("mean") + weights[frame] @ array("basis").reshape(rank, -1)).reshape(-1, 3)
    spun = csr_matrix(tuple(array(name, held["spun"]) for name in ("shares", "vertices", "starts")))
    vertices = np.concatenate([shape, spun @ shape]) @ pose[:9].reshape(3, 3).T + pose[9:]
    gap = np.linalg.norm(vertices - clip.vertices[frame], axis=1)
    assert gap[: len(shape)].max() < 2e-4 and gap.max() < 2e-3  # lashes reach beyond what they are spun of
    assert (array("faces").reshape(-1, 3) == clip.faces).all()
    for part, told in zip(held["parts"], clip.look.parts, strict=True):
        places = array("places", part).reshape(-1, 3).cumsum(0) * part["step"]
        np.testing.assert_allclose(places, told.vertices, atol=2.1e-5)


def test_sound_decodes_to_the_samples_and_lasts_as_long_as_the_motion(clip):
    short = Clip(clip.vertices[:20], clip.look, clip.audio[: RATE // 2], RATE, FPS)
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(content(page(short))["audio"])), dtype="float32")
    assert (rate, len(wave)) == (RATE, 20 * RATE // FPS)
    np.testing.assert_allclose(wave[: RATE // 2], short.audio, atol=1 / 32768)
    assert not wave[RATE // 2 :].any()


def test_texts_cannot_break_out_of_the_page(clip):
    hostile = "<!--<script></script><b>&"
    rows = [Tokens(hostile, 25, [hostile])]
    text = page(Clip(clip.vertices[:1], clip.look, title=hostile, caption="{{clip}}" + hostile,
                     words=[(0, hostile)], tokens=rows))  # fmt: skip
    assert hostile not in text and "<!--" not in text
    held = content(text)
    assert (held["words"][0][1], held["tokens"][0]["labels"]) == (hostile, [hostile])


def test_save_page_makes_folders_and_leaves_no_part_file(clip, html, tmp_path):
    path = save_page(tmp_path / "a" / "face.html", clip)
    assert path.read_text(encoding="utf-8") == html
    assert [entry.name for entry in path.parent.iterdir()] == ["face.html"]


# ---------------------------------------------------------------- pictures


def test_rasteriser_agrees_with_a_search_over_all_triangles():
    random = np.random.default_rng(1)
    xy, depth = random.uniform(-3, 19, (30, 2)), random.uniform(1, 2, 30)
    faces = random.integers(0, 30, (40, 3))
    pixel, face, weights, z = rasterise(xy, depth, faces, 16, 12)
    found = dict(zip(pixel, zip(face, z, strict=True), strict=True))
    for place in range(16 * 12):
        point, best = np.array([place % 16 + 0.5, place // 16 + 0.5]), None
        for number, corners in enumerate(faces):
            matrix = np.vstack([xy[corners].T, np.ones(3)])
            if np.linalg.det(matrix) >= 0 or len(set(corners)) < 3:
                continue
            share = np.linalg.solve(matrix, [*point, 1])
            if (share >= 0).all() and (best is None or share @ depth[corners] < best[1]):
                best = number, share @ depth[corners]
        assert (place in found) == (best is not None)
        if best is not None:
            assert found[place][0] == best[0]
            assert found[place][1] == pytest.approx(best[1])
    np.testing.assert_allclose(weights.sum(1), 1)


def test_light_reaches_the_outside_of_a_ball_and_not_what_lies_within():
    outer, faces = ball(radius=0.1)
    inner, _ = ball(radius=0.05)
    np.testing.assert_allclose((vertex_normals(outer, faces) * outer).sum(1), 0.1, rtol=0.02)
    light = light_shares(np.concatenate([outer, inner]), np.concatenate([faces, faces + len(outer)]))
    assert light[: len(outer), 0].min() > 0.9
    assert light[len(outer) :].max() < 0.3
    front = outer @ [-0.51, 0.47, 0.72] > 0.05
    assert light[: len(outer), 1][front].min() > 0.9


def test_the_eyes_shine(clip):
    head = load_head()
    shines = clip.look.gloss
    eyes = torch.cat([head.regions["left_eyeball"], head.regions["right_eyeball"]]).numpy()
    assert sorted(np.nonzero(shines == shines.max())[0]) == sorted(eyes)


def test_picture_is_of_the_face_alike_each_time_and_quick(clip):
    start = time.perf_counter()
    picture = render(clip.vertices[0], clip.look, clip.light, clip.camera)
    assert time.perf_counter() - start < 3  # 0.2 s on a free core
    assert picture.shape == (300, 240, 3)
    corner, cheek = picture[3, 3], picture[170, 90]
    assert cheek[0] > 0.4 > corner.max()
    assert cheek[0] > cheek[1] > cheek[2]
    again = render(clip.vertices[0], clip.look, clip.light, clip.camera)
    np.testing.assert_array_equal(picture, again)


def test_strip_shows_the_motion_alike_each_time(clip):
    first, again = (np.asarray(strip(clip, frames=4).convert("RGB")) for _ in range(2))
    assert first.shape == (168, 480, 3)
    np.testing.assert_array_equal(first, again)
    frames = first[:150].reshape(150, 4, 120, 3).swapaxes(0, 1).astype(int)
    assert all(np.abs(a - b).mean() > 1 for a, b in zip(frames, frames[1:], strict=False))


def test_show_carries_page_and_strip_and_saves_the_page(clip, html, tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "ROOT", tmp_path)
    bundle = show(clip, save="tiny/a_face")._repr_mimebundle_()
    assert (tmp_path / "runs/tiny/players/a_face.html").read_text(encoding="utf-8") == html
    assert Image.open(io.BytesIO(bundle["image/jpeg"])).size == (8 * 120, 168)
    assert bundle["text/html"].startswith("<iframe srcdoc=")
    for wrong in ("a_face", "huge/a_face", "tiny/../a_face", "tiny/"):
        with pytest.raises(ValueError, match="expected 'profile/name'"):
            show(clip, save=wrong)


# ---------------------------------------------------------------- looks, and what a clip refuses

VERTICES, FACES = ball(6)
GREY = np.full((36, 3), 0.5)
GOOD = {"vertices": VERTICES[None], "look": Look(FACES, GREY)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": VERTICES}, r"clip vertices: got shape \(36, 3\); expected \(T, V, 3\)"),
        ({"vertices": 1000 * VERTICES[None]}, "clip vertices: frame 0 measures .* expected metres"),
        ({"vertices": np.nan * VERTICES[None]}, "clip vertices: holds NaN"),
        ({"look": FACES}, "clip look: got a ndarray; expected a Look"),
        ({"look": Look(FACES % 35, GREY[:35])}, "look colours: 35 rows; expected 36"),
        ({"audio": np.zeros((2, 100))}, r"clip audio: got shape \(2, 100\); expected \(samples,\)"),
        ({"audio": np.full(100, 9000.0)}, "clip audio: peak 9e"),
        ({"fps": 0}, "fps 0: expected both above 0"),
    ],
)
def test_clip_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        Clip(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("faces", "colours", "message"),
    [
        (FACES + 1, GREY, "look faces: indices 1 to 36; expected 0 to 35"),
        (FACES / 2, GREY, "look faces: got float64; expected whole numbers"),
        (FACES, 400 * GREY, "look colours: from 200 to 200"),
    ],
)
def test_look_names_what_is_wrong(faces, colours, message):
    with pytest.raises(ValueError, match=message):
        Look(faces, colours)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colours": GREY[:4]}, r"part hat colours: got shape \(4, 3\); expected \(5, 3\)"),
        ({"rest": VERTICES[:3]}, r"part hat rest: got shape \(3, 3\); expected \(12, 3\)"),
        ({"faces": np.array([[0, 1, 5]])}, "part hat faces: indices 0 to 5; expected 0 to 4"),
        ({"vertices": np.zeros((70000, 3))}, "part hat vertices: 70000; expected 1 to 65535"),
    ],
)
def test_a_part_names_what_is_wrong(change, message):
    good = dict(vertices=VERTICES[:5], faces=FACES[:1] * 0, colours=GREY[:5], light=GREY[:5, :2], gloss=0.2,
                anchor=np.arange(12), rest=VERTICES[:12], name="hat")  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Part(**{**good, **change})


def test_spun_vertices_are_counted_among_the_colours():
    with pytest.raises(ValueError, match=r"look spun: got \(2, 36\); expected .* V \+ E = 36"):
        Look(FACES, GREY, spun=csr_matrix((2, 36)))


def test_a_part_goes_where_its_anchor_goes():
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.4, 0.2], [0.4, 0.0, -0.1], [-0.2, 0.1, 0.0]])).numpy()
    part = Part(VERTICES[:5] + 0.1, FACES[:1] * 0, GREY[:5], GREY[:5, :2], 0.2, np.arange(8, 20), VERTICES[8:20])
    rotations, shifts = part.poses((VERTICES @ turn.T + [0.01, 0.02, 0.03])[None])
    np.testing.assert_allclose(rotations[0], turn, atol=1e-5)
    np.testing.assert_allclose(shifts[0], [0.01, 0.02, 0.03], atol=1e-6)


def test_tensors_and_arrays_make_the_same_clip():
    clip = Clip(torch.tensor(VERTICES[None], requires_grad=True), Look(torch.tensor(FACES), torch.tensor(GREY)))
    np.testing.assert_allclose(clip.vertices, VERTICES[None], atol=1e-7)
    assert clip.duration == 1 / 25
    assert Clip(**GOOD, audio=torch.zeros(0)).audio is None


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"), *SOFTWARE)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def address(html, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "face.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


def test_browser_draws_the_face_as_the_strip_does(browser, address, clip):
    browser.open(address + "#t=1.0")
    assert browser.js("[find('strip'), find('note')].map(n => getComputedStyle(n).display)") == ["none", "none"]
    assert browser.js("document.body.dataset.frame") == "25.00"
    seen = browser.picture()
    wide, high = browser.js("[canvas.clientWidth, canvas.clientHeight]")
    drawn = render(clip.vertices[25], clip.look, clip.light, clip.camera, wide, high)
    here, there = (image[60:360, 150:330] for image in (seen, 255 * drawn[40:]))  # brow to chin
    assert np.abs(here - there).mean() < 5
    assert np.corrcoef(here.ravel(), there.ravel())[0, 1] > 0.97
    assert not browser.complaints


def test_browser_scrubs_turns_and_zooms(browser, address):
    browser.open(address)
    first = browser.picture()
    browser.js("const s = find('scrub'); s.value = 3; s.dispatchEvent(new Event('input'))")
    browser.until("document.body.dataset.frame === '75.00'")
    later = browser.picture()
    assert np.abs(later - first).mean() > 1
    browser.js("canvas.focus()")
    browser.key("ArrowRight")
    browser.until("stage.yaw > 0")
    time.sleep(0.2)
    assert np.abs(browser.picture() - later).mean() > 1
    browser.js("canvas.dispatchEvent(new Event('dblclick'))")
    browser.until("stage.yaw === 0")
    time.sleep(1.0)
    assert np.abs(browser.picture() - later)[10:370, 10:-10].max() < 3  # the rim shows the focus


def test_browser_plays_with_the_sound_as_its_clock_and_stops_at_the_end(browser, address):
    browser.open(address + "#t=3.5")
    browser.key(" ")
    browser.until("clock.currentTime > 4")
    assert browser.js("button.getAttribute('aria-label')") == "Pause"
    assert browser.js("draw(), Math.abs(document.body.dataset.frame / 25 - clock.currentTime)") < 0.1
    browser.until("clock.paused")
    browser.until("button.getAttribute('aria-label') === 'Play'")
    assert browser.js("find('time').textContent") == "5.0 / 5.0 s"


def test_browser_shows_the_frames_in_time_with_the_sound(browser, clip, tmp_path):
    """Ten seconds at 480 x 400 without a graphics card, after scrubbing too; what is drawn against what is heard."""
    twice = Clip(np.concatenate([clip.vertices, clip.vertices]), clip.look, climbing(10), RATE, FPS)
    browser.open(save_page(tmp_path / "ten.html", twice).as_uri())
    for start, length in ((0.0, 9.5), (4.0, 2.5)):
        seen = browser.listen(start, length)
        seconds, heard, frames = seen[seen[:, 0] > seen[0, 0] + 0.3].T
        apart, third = heard - frames / FPS, len(heard) // 3
        assert start < heard.min() and heard.max() > start + 0.6 * length
        assert np.abs(np.median(apart)) < 0.02 and np.percentile(np.abs(apart), 80) < 0.02
        assert np.abs(np.median(apart[-third:]) - np.median(apart[:third])) < 0.02
        shown = len(np.unique(frames.astype(int))) / (seconds[-1] - seconds[0])
        assert shown >= 3, f"{shown:.1f} frames a second"  # beside other tests; alone: benchmarks/player.py
    assert not browser.complaints


def test_browser_repeats_and_slows_down(browser, address):
    browser.open(address + "#t=4.8")
    browser.js("find('loop').click(); button.click()")
    browser.until("clock.currentTime > 0.1 && clock.currentTime < 2")
    assert not browser.js("clock.paused")
    browser.js("find('speed').value = '0.25'; find('speed').dispatchEvent(new Event('change'))")
    assert browser.js("clock.playbackRate") == 0.25


def test_two_faces_share_clock_camera_and_a_scale_of_error(browser, clip, tmp_path):
    still = Clip(np.repeat(clip.vertices[:1], len(clip.vertices), 0), clip.look, fps=FPS, title="still")
    browser.open(save_page(tmp_path / "two.html", clip, still, heat=0.01).as_uri() + "#t=1.0")
    assert browser.js("[...find('names').children].map(n => n.textContent)") == ["A face", "still"]
    seen = browser.picture()
    left, right = seen[:, :240], seen[:, 240:]
    assert np.abs(left - right).mean() > 1  # one talks, the other does not
    browser.js("find('heat').click()")
    browser.until("stage.heat === 0.01")
    time.sleep(0.2)
    hot = browser.picture()
    assert np.abs(hot[:, :240] - left)[60:].mean() < 0.5 and np.abs(hot[60:360, 240:] - right[60:360]).mean() > 5
    count = clip.vertices.shape[1]
    errors = np.array(browser.js(f"Array.from(stage.faces[1].errors.subarray(0, {count}))"))
    truth = np.linalg.norm(clip.vertices[25] - clip.vertices[0], axis=1)
    np.testing.assert_allclose(errors, truth, atol=4e-4)
    assert not browser.complaints


def test_words_and_tokens_go_with_the_sound(browser, clip, tmp_path):
    rows = [Tokens("text", 6.25, ["Hel", "lo", "", "there"]), Tokens("speech", 25, [str(i) for i in range(125)])]
    told = Clip(clip.vertices, clip.look, clip.audio, RATE, FPS,
                words=[(0.2, "Hello"), (1.1, "there")], tokens=rows)  # fmt: skip
    browser.open(save_page(tmp_path / "told.html", told).as_uri() + "#t=0.5")
    assert browser.js("find('words').querySelector('b').textContent") == "Hello"
    before = browser.js("find('ribbon').toDataURL()")
    browser.js("seek(1.2)")
    browser.until("find('words').querySelector('b').textContent === 'there'")
    assert browser.js("find('ribbon').toDataURL()") != before


def test_seven_faces_stand_in_rows(browser, clip, tmp_path):
    seven = [Clip(clip.vertices[:1], clip.look, title=str(n)) for n in range(7)]
    browser.open(save_page(tmp_path / "seven.html", *seven).as_uri())
    assert browser.js("stage.columns") == 3
    tall = browser.js("canvas.clientHeight") // 3
    seen = browser.screen()[: 3 * tall]
    skin = (seen[..., 0] > seen[..., 2] + 30).reshape(3, tall, 3, 160).mean((1, 3)).ravel()
    assert skin[:7].min() > 0.1 and skin[7:].max() < 0.02  # seven faces, and two empty places


def test_a_look_of_another_face_is_refused_and_so_is_what_is_no_clip(clip, tmp_path):
    head = load_head()
    with pytest.raises(ValueError, match="dressed for another face, whose neck is 6 mm off"):
        Clip(Flame(head)(torch.zeros(1, 58)), dress(head, "ada"))
    with pytest.raises(ValueError, match="betas: got a Person; expected numbers"):
        Flame(head, PEOPLE["ada"])
    for call in (lambda: save_page(tmp_path / "x.html", [clip]), lambda: show([clip]), page, show):
        with pytest.raises(ValueError, match="page: got (list|nothing); expected one or more Clips"):
            call()
    with pytest.raises(ValueError, match="got a Clip first"):
        save_page(clip, "x.html")


def test_clips_that_do_not_fit_together_are_refused(clip):
    fast = Clip(clip.vertices[:5], clip.look, fps=50)
    with pytest.raises(ValueError, match="share a clock"):
        page(clip, fast)
    with pytest.raises(ValueError, match="two or more of one mesh"):
        page(clip, heat=0.01)
    with pytest.raises(ValueError, match="their seconds go back"):
        Clip(clip.vertices[:5], clip.look, words=[(1, "a"), (0, "b")])


def test_browser_plays_without_sound(browser, clip, tmp_path):
    silent = Clip(clip.vertices[:10], clip.look)
    browser.open(save_page(tmp_path / "silent.html", silent).as_uri())
    browser.js("button.click()")
    browser.until("document.body.dataset.frame === '9.00' && clock.paused")
    browser.until("button.getAttribute('aria-label') === 'Play'")
    assert not browser.complaints


def test_browser_plays_inside_a_notebook_frame(browser, clip, tmp_path):
    frame = show(clip)._repr_mimebundle_()["text/html"]
    (tmp_path / "cell.html").write_text(f"<!doctype html><body data-frame='cell'>{frame}", encoding="utf-8")
    browser.open((tmp_path / "cell.html").as_uri())
    browser.until("frames[0].document.body?.dataset.frame === '0.00'")
    assert browser.js("frames[0].document.body.className") == ""


def test_without_webgl_the_strip_is_shown(address, tmp_path):
    browser = Browser(tmp_path, "disable-3d-apis")
    try:
        browser.open(address)
        assert browser.js("getComputedStyle(find('strip')).display") == "block"
        assert browser.js("find('strip').naturalWidth") == 960
        assert "no WebGL2" in browser.js("find('note').textContent")
        assert browser.js("getComputedStyle(find('face')).display") == "none"
    finally:
        browser.close()

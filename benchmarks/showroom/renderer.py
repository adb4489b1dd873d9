"""Photos of subjects: one Mitsuba scene gives the picture and its exact foreground mask.

The picture takes 25 multi-jittered samples a pixel of the light that reaches the camera directly. The mask comes from
the same camera and scene: one ray in each cell of a grid four times finer than the pixels reports the shape it meets,
so a mask value is the share of the pixel that the product covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import drjit
import mitsuba
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from benchmarks.showroom.badge import badge_sheet, badge_texture
from benchmarks.showroom.products import Part, Slot, build_product, joined
from benchmarks.showroom.products.profile import with_profile
from benchmarks.showroom.scenes import paint_surroundings
from benchmarks.showroom.subject import Split, Subject, split_of
from benchmarks.showroom.textures import Texture, pattern_texture
from benchmarks.showroom.view import View, product_rotation

mitsuba.set_variant("scalar_rgb")

Vertices = NDArray[np.float64]

FIELD_OF_VIEW_DEGREES: Final = 36.0
_TARGET_HEIGHT: Final = 0.62
_FLOOR_DEPTH: Final = (-3.2, 1.6)
_FLOOR_HALF_WIDTH: Final = 2.6
_BACKDROP_HALF_WIDTH: Final = 2.1
_BACKDROP_HEIGHT: Final = 2.1


@dataclass(frozen=True)
class RenderQuality:
    """How much a photo costs.

    Attributes:
        samples_per_pixel: Of the picture.
        grid: Rays of the mask per pixel and axis.
    """

    samples_per_pixel: int = 25
    grid: int = 4


FULL_QUALITY: Final = RenderQuality()
QUICK: Final = RenderQuality(samples_per_pixel=9, grid=1)
"""A quarter of the time: noise of this size does no harm to networks that learn from very many photos."""


class PhotoLabels(BaseModel):
    """Every factor of one photo."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Split
    subject: Subject
    view: View


@dataclass(frozen=True)
class Photo:
    """A picture (height, width, 3), its foreground mask (height, width), both uint8, and its labels.

    `badge_mask` (height, width) uint8 is the share of each pixel that the badge covers; None where it was not kept.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    labels: PhotoLabels
    badge_mask: NDArray[np.uint8] | None = None


def render_photo(subject: Subject, view: View, size_pixels: int = 128, quality: RenderQuality = FULL_QUALITY) -> Photo:
    """Take a photo of a subject. The same arguments give the same bytes.

    Raises:
        ValueError: if `size_pixels` is outside [16, 1024].
    """
    if not 16 <= size_pixels <= 1024:
        raise ValueError(f"size_pixels: got {size_pixels}, expected 16 to 1024")
    drjit.set_thread_count(1)
    parts = _placed([*product_parts(subject), *([_badge(subject)] if subject.badge else [])], view)
    scene: dict[str, Any] = {"type": "scene", **_surroundings(view), **_cameras(view, size_pixels, quality)}
    surfaces = _surfaces(subject)
    for slot in Slot:
        same = [part for part in parts if part.slot is slot]
        if same:
            scene[f"product_{slot.name.lower()}"] = _mesh(joined(same), surfaces[slot])
    loaded = mitsuba.load_dict(scene, parallel=False)
    light = mitsuba.load_dict({"type": "direct", "emitter_samples": 1, "bsdf_samples": 1})
    linear = np.asarray(mitsuba.render(loaded, sensor=0, integrator=light, seed=view.scene_seed))[..., :3]
    shapes = mitsuba.load_dict({"type": "aov", "aovs": "shape:shape_index"})
    met = np.asarray(mitsuba.render(loaded, sensor=1, integrator=shapes, seed=view.scene_seed))[..., -1]
    # Shape indices count from 1; 0 is a ray that left the scene.
    ids = [shape.id() for shape in loaded.shapes()]

    def cover(prefix: str) -> NDArray[np.uint8]:
        wanted = [index + 1 for index, name in enumerate(ids) if name.startswith(prefix)]
        hit = np.isin(np.rint(met).astype(int), wanted).reshape(size_pixels, quality.grid, size_pixels, quality.grid)
        share: NDArray[np.uint8] = np.rint(hit.mean((1, 3)) * 255).astype(np.uint8)
        return share

    return Photo(
        image=np.rint(_encoded(np.clip(linear, 0, 1)) * 255).astype(np.uint8),
        mask=cover("product"),
        labels=PhotoLabels(split=split_of(subject.seed), subject=subject, view=view),
        badge_mask=cover("product_badge"),
    )


def badge_corners(subject: Subject, view: View) -> NDArray[np.float64]:
    """Where the badge's corners lie in a photo, whether or not they are hidden.

    Returns:
        (4, 2) from -1 to 1 to the right and downwards: upper left, upper right, lower left and lower right corner in
        the badge's own frame.

    Raises:
        ValueError: if the subject has no badge.
    """
    if not subject.badge:
        raise ValueError("badge: the subject has none")
    sheet = _placed([*product_parts(subject), _badge(subject)], view)[-1].vertices
    side = round(len(sheet) ** 0.5)
    position, axes = _camera_axes(view)
    local = (sheet[[0, side - 1, side * (side - 1), side * side - 1]] - position) @ axes.T
    seen: NDArray[np.float64] = local[:, :2] / local[:, 2:] / np.tan(np.radians(FIELD_OF_VIEW_DEGREES) / 2)
    return seen * [1, -1]


def product_parts(subject: Subject) -> list[Part]:
    """The subject's meshes, without its badge."""
    return with_profile(build_product(subject.class_word, subject.shape), subject.profile)


@lru_cache(maxsize=64)
def _badge(subject: Subject) -> Part:
    return badge_sheet(product_parts(subject)).painted(Slot.BADGE)


def _encoded(linear: NDArray[np.float32]) -> NDArray[np.float64]:
    """The sRGB transfer curve (IEC 61966-2-1)."""
    low, high = 12.92 * linear, 1.055 * np.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055
    encoded: NDArray[np.float64] = np.where(linear <= 0.0031308, low, high)
    return encoded


def _placed(parts: list[Part], view: View) -> list[Part]:
    """Rotate, scale and set down the product so that its box in the picture has the view's extent."""
    turn = product_rotation(view)
    everything = np.concatenate([part.vertices for part in parts])
    centre = (everything.min(0) + everything.max(0)) / 2
    points = (everything - centre) @ turn.T
    scale = 1.0 / np.ptp(points, axis=0).max()
    for _ in range(4):
        # The extent depends on the distance, which depends on where the scaled product stands: a few rounds settle it.
        scale *= view.extent / _extent(_set_down(points * scale, view), view)
    offset = _set_down(points * scale, view)[0] - points[0] * scale
    return [
        Part((part.vertices - centre) @ turn.T * scale + offset, part.faces, part.texture_coordinates, part.slot)
        for part in parts
    ]


def _set_down(points: Vertices, view: View) -> Vertices:
    """Move points (n, 3) onto the floor, or as far above it as the view lifts them."""
    moved: Vertices = points + np.array([view.shift, 0.0, view.lift - points[:, 2].min()])
    return moved


def _camera_axes(view: View) -> tuple[Vertices, Vertices]:
    """Position of the camera, and its right, up and forward axes as rows (3, 3)."""
    forward = np.array([0.0, np.cos(view.camera_pitch), -np.sin(view.camera_pitch)])
    up = np.array([0.0, np.sin(view.camera_pitch), np.cos(view.camera_pitch)])
    target = np.array([0.0, 0.0, _TARGET_HEIGHT if view.pose != "seen from above" else 0.4])
    return target - view.camera_distance * forward, np.stack([np.array([1.0, 0.0, 0.0]), up, forward])


def _extent(points: Vertices, view: View) -> float:
    """Longer side of the box around points (n, 3) in the picture, as a share of the picture's side."""
    position, axes = _camera_axes(view)
    local = (points - position) @ axes.T
    projected = local[:, :2] / local[:, 2:] / (2 * np.tan(np.radians(FIELD_OF_VIEW_DEGREES) / 2))
    return float(np.ptp(projected, axis=0).max())


def _cameras(view: View, size_pixels: int, quality: RenderQuality) -> dict[str, Any]:
    position, axes = _camera_axes(view)
    to_world = mitsuba.ScalarTransform4f().look_at(
        origin=position.tolist(), target=(position + axes[2]).tolist(), up=[0, 0, 1]
    )
    cameras: dict[str, Any] = {}
    for name, side, sampler, count in (
        ("photo", size_pixels, "multijitter", quality.samples_per_pixel),
        ("silhouette", size_pixels * quality.grid, "independent", 1),
    ):
        cameras[name] = {
            "type": "perspective",
            "fov": FIELD_OF_VIEW_DEGREES,
            "to_world": to_world,
            "film": {
                "type": "hdrfilm",
                "width": side,
                "height": side,
                "rfilter": {"type": "box"},
                "pixel_format": "rgb",
                "component_format": "float32",
            },
            "sampler": {"type": sampler, "sample_count": count},
        }
    return cameras


def _surroundings(view: View) -> dict[str, Any]:
    """Floor, backdrop and lights as a Mitsuba dictionary."""
    surroundings = paint_surroundings(view.scene, view.scene_seed)
    near, far = _FLOOR_DEPTH
    transform = mitsuba.ScalarTransform4f()
    sun = np.asarray(surroundings.light.sun) * view.sun_gain
    return {
        "floor": {
            "type": "rectangle",
            "to_world": transform.translate([0, (near + far) / 2, 0]).scale([_FLOOR_HALF_WIDTH, (far - near) / 2, 1]),
            "bsdf": {"type": "diffuse", "reflectance": _bitmap(surroundings.floor)},
        },
        "backdrop": {
            "type": "rectangle",
            "to_world": transform.translate([0, far, _BACKDROP_HEIGHT / 2])
            .rotate([1, 0, 0], 90)
            .scale([_BACKDROP_HALF_WIDTH, _BACKDROP_HEIGHT / 2, 1]),
            "bsdf": {"type": "twosided", "side": {"type": "diffuse", "reflectance": _bitmap(surroundings.backdrop)}},
        },
        # The sky is met by rays that follow the surface's own reflection; only the sun is aimed at. Choosing between
        # the two at random would be most of the picture's noise.
        "sky": {
            "type": "constant",
            "sampling_weight": 0.0,
            "radiance": {"type": "rgb", "value": list(surroundings.light.sky)},
        },
        "sun": {
            "type": "directional",
            "direction": [view.sun_side, 1.0, -1.5],
            "irradiance": {"type": "rgb", "value": sun.tolist()},
        },
    }


def _surfaces(subject: Subject) -> dict[Slot, dict[str, Any]]:
    """The subject's surface for every slot as Mitsuba dictionaries."""
    main = _bitmap(pattern_texture(subject.pattern, subject.main_rgb, subject.accent_rgb, subject.pattern_variant))
    reflectances: dict[Slot, dict[str, Any]] = {
        Slot.MAIN: main,
        Slot.ACCENT: {"type": "rgb", "value": list(subject.accent_rgb)},
        Slot.DARK: {"type": "rgb", "value": [0.02, 0.02, 0.025]},
        Slot.GLOW: {"type": "rgb", "value": [1.0, 0.62, 0.05]},
        Slot.PALE: {"type": "rgb", "value": [0.85, 0.85, 0.80]},
    }
    if subject.badge:
        reflectances[Slot.BADGE] = _bitmap(badge_texture(subject))
    surfaces: dict[Slot, dict[str, Any]] = {}
    for slot, reflectance in reflectances.items():
        if subject.material == "glossy":
            side = {"type": "plastic", "diffuse_reflectance": reflectance}
        else:
            side = {"type": "diffuse", "reflectance": reflectance}
        surfaces[slot] = {"type": "twosided", "side": side}
    return surfaces


def _bitmap(texture: Texture) -> dict[str, Any]:
    return {"type": "bitmap", "bitmap": mitsuba.Bitmap(texture), "raw": True, "filter_type": "bilinear"}


def _mesh(part: Part, surface: dict[str, Any]) -> Any:
    """A Mitsuba mesh of one part."""
    properties = mitsuba.Properties()
    properties["surface"] = mitsuba.load_dict(surface)
    mesh = mitsuba.Mesh("product", len(part.vertices), len(part.faces), has_vertex_texcoords=True, props=properties)
    buffers = mitsuba.traverse(mesh)
    buffers["vertex_positions"] = part.vertices.ravel().astype(np.float32)
    buffers["faces"] = part.faces.ravel().astype(np.uint32)
    buffers["vertex_texcoords"] = part.texture_coordinates.ravel().astype(np.float32)
    buffers.update()
    return mesh

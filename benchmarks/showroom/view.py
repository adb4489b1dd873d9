"""Views: how one photo of a subject is taken. Pose and scene are the named factors, the rest is jitter."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from benchmarks.showroom.factors import POSES, SCENES
from benchmarks.showroom.products import rotation

_VIEW_STREAM: Final = 0x71E3


class View(BaseModel):
    """One photo's free choices. Angles in radians; lengths in world units, of which the picture is about two wide.

    `turn` is the product's own turn about its upright axis; `lean` the rotation about the camera's axis that the pose
    asks for;
    `heading` the turn about the vertical that follows it; `extent` the longer side of the product's box in the picture
    as a share of the picture's side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pose: str
    scene: str
    scene_seed: int
    turn: float
    lean: float
    heading: float
    extent: float
    shift: float
    lift: float
    camera_pitch: float
    camera_distance: float
    sun_side: float
    sun_gain: float


def sample_view(seed: int, pose: str | None = None, scene: str | None = None) -> View:
    """Draw a view; `pose` and `scene` fix the two named factors and leave every other draw as it is.

    Raises:
        ValueError: if `seed` is negative, or the pose or scene unknown.
    """
    if seed < 0:
        raise ValueError(f"seed: got {seed}, expected 0 or more")
    rng = np.random.default_rng([_VIEW_STREAM, seed])
    drawn_pose, drawn_scene = str(rng.choice(POSES)), str(rng.choice(SCENES))
    pose, scene = pose or drawn_pose, scene or drawn_scene
    if pose not in POSES:
        raise ValueError(f"pose: got {pose!r}, expected one of {', '.join(POSES)}")
    if scene not in SCENES:
        raise ValueError(f"scene: got {scene!r}, expected one of {', '.join(SCENES)}")
    side = float(rng.choice((-1.0, 1.0)))
    spread = rng.uniform(-1, 1, 8)
    lean = {"lying": np.pi / 2 * side, "tilted": (0.62 + 0.12 * spread[0]) * side, "upside down": np.pi}.get(pose, 0.0)
    return View(
        pose=pose,
        scene=scene,
        scene_seed=int(rng.integers(1 << 31)),
        turn=0.55 * float(spread[1]),
        lean=float(lean),
        heading=0.3 * float(spread[2]) if pose == "lying" else 0.0,
        extent=0.63 + 0.06 * float(spread[3]) - (0.06 if pose == "floating" else 0.0),
        shift=0.1 * float(spread[4]),
        lift=0.36 + 0.05 * float(spread[5]) if pose == "floating" else 0.0,
        camera_pitch=0.9 + 0.06 * float(spread[6]) if pose == "seen from above" else 0.23 + 0.04 * float(spread[6]),
        camera_distance=3.3 + 0.12 * float(spread[7]),
        sun_side=float(rng.uniform(-0.8, 0.8)),
        sun_gain=float(rng.uniform(0.9, 1.1)),
    )


def product_rotation(view: View) -> NDArray[np.float64]:
    """Rotation matrix (3, 3) from the product's own axes to the world's."""
    return rotation(view.heading, "z") @ rotation(view.lean, "y") @ rotation(view.turn, "z")

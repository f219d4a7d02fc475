"""Tumours with the logic a radiologist reads them by: where they grow, how they take up contrast, what they push."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lesion.phantom.anatomy import EDGE, Anatomy, Section, brain_surface
from lesion.phantom.fields import Plane, Waves, field, paint, sample_waves, soft

Kind = Literal["glioma", "meningioma", "notumor", "pituitary"]
CLASSES: tuple[Kind, ...] = ("glioma", "meningioma", "notumor", "pituitary")


@dataclass(frozen=True, slots=True)
class Lesion:
    """One tumour: a rough ball around a centre; lengths in head units."""

    kind: Kind
    x: float
    y: float
    z: float
    radius: float
    stretch: float
    angle: float
    enhancement: float
    core: float
    oedema: float
    push: float
    rough: Waves

    @classmethod
    def sample(cls, kind: Kind, head: Anatomy, rng: np.random.Generator) -> "Lesion":
        """Draws a tumour where its kind grows.

        "notumor" gets a ball too: its slices are planned around a place as the others' are, but nothing is painted.
        """
        place = {"glioma": _in_brain, "meningioma": _on_dura, "notumor": _in_brain, "pituitary": _in_sella}[kind]
        radius = rng.uniform(*{"pituitary": (0.11, 0.19)}.get(kind, (0.16, 0.27)))
        z = float(np.clip(rng.normal(0.14, 0.03), 0.08, 0.2)) if kind == "pituitary" else _level(rng)
        x, y = place(head, z, radius, rng)
        return cls(
            kind=kind,
            x=x,
            y=y,
            z=z,
            radius=radius,
            stretch=rng.uniform(0.8, 1.25),
            angle=rng.uniform(0, np.pi),
            enhancement=rng.uniform(0.78, 0.98),
            core=rng.uniform(0.55, 0.78),
            oedema=rng.uniform(1.3, 1.9),
            push=rng.uniform(0.25, 0.5),
            rough=sample_waves(rng, 10, 0.10, 0.40),
        )

    def distance(self, x: Plane, y: Plane, z: float, rough: float) -> Plane:
        """Distance from the centre in radii, with an outline made irregular by ``rough``."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        dx, dy = x - self.x, y - self.y
        along, across = (cos * dx + sin * dy) / self.stretch, (cos * dy - sin * dx) * self.stretch
        ball = np.sqrt(along**2 + across**2 + (z - self.z) ** 2) / self.radius
        return ball + rough * field(self.rough, x, y, z) if rough else ball


def _level(rng: np.random.Generator) -> float:
    """Level of a tumour that is not bound to the sella: often the base too, so that the level tells no class."""
    return rng.uniform(0.07, 0.22) if rng.random() < 0.45 else rng.uniform(0.32, 0.75)


def _in_brain(head: Anatomy, z: float, radius: float, rng: np.random.Generator) -> tuple[float, float]:
    side = float(rng.choice((-1, 1)))
    room = head.scale(z) - brain_surface(head, z) - 0.75 * radius
    if z < 0.25:  # temporal lobe or cerebellum
        u, v = (
            (rng.uniform(0.48, 0.62), rng.uniform(-0.22, 0.05)) if rng.random() < 0.6 else (0.3, rng.uniform(0.4, 0.6))
        )
        return side * u * head.width, v
    angle, reach = rng.uniform(-1.25, 1.25), room * rng.uniform(0.45, 1.0)
    return side * max(reach * math.cos(angle), 0.8 * radius) * head.width, reach * math.sin(angle)


def _on_dura(head: Anatomy, z: float, radius: float, rng: np.random.Generator) -> tuple[float, float]:
    side = float(rng.choice((-1, 1)))
    if z > 0.6 and rng.random() < 0.25:  # on the falx, before or behind the corpus callosum
        end = float(rng.choice((-1, 1)))
        return 0.75 * side * radius, end * rng.uniform(0.3, 0.6) * head.scale(z)
    angle = rng.uniform(-1.2, 1.2)
    if z < 0.25 and rng.random() < 0.4:  # on the sphenoid wing
        along = rng.uniform(0.5, 0.95)  # nearer the midline it would pass for a pituitary tumour
        return side * (0.25 + 0.45 * along) * head.width, -0.27 - 0.23 * along + 0.6 * radius
    reach = head.scale(z) - brain_surface(head, z) - 0.6 * radius
    return side * reach * math.cos(angle) * head.width, reach * math.sin(angle)


def _in_sella(head: Anatomy, z: float, radius: float, rng: np.random.Generator) -> tuple[float, float]:
    return rng.normal(0, 0.02), rng.normal(-0.15 + head.base_shift, 0.02)


def displace(lesion: Lesion, head: Anatomy, section: Section) -> Section:
    """The section that the brain is drawn from: tissue around the tumour is pushed aside (mass effect)."""
    ball = lesion.distance(section.x, section.y, section.z, 0)
    pull = lesion.push * np.exp(-((ball / 1.4) ** 2))
    x = section.x - pull * (section.x - lesion.x)
    y = section.y - pull * (section.y - lesion.y)
    return replace(Section.cut(head, x, y, section.z), depth=section.depth)


def paint_lesion(image: Plane, lesion: Lesion, head: Anatomy, section: Section) -> Plane:
    """Paints the tumour and returns the opacity of its body (without oedema and dural tail)."""
    painter = {"glioma": _paint_glioma, "meningioma": _paint_meningioma, "pituitary": _paint_pituitary}[lesion.kind]
    inside = soft(section.depth - brain_surface(head, section.z), EDGE)
    return painter(image, lesion, head, section, inside)


def _paint_glioma(image: Plane, lesion: Lesion, head: Anatomy, section: Section, inside: Plane) -> Plane:
    """Irregular ring of enhancement around a necrotic core, in dark oedema that spreads along the white matter."""
    ball = lesion.distance(section.x, section.y, section.z, 0.13)
    width = EDGE / lesion.radius
    spread = lesion.distance(section.x, section.y, section.z, 0.30)
    paint(image, soft(lesion.oedema - spread, 0.35) * inside * 0.75, head.grey * 0.68)
    body = soft(1 - ball, width) * inside
    patches = 0.06 * field(lesion.rough, section.x * 2, section.y * 2, section.z)
    paint(image, body, lesion.enhancement + patches)
    paint(image, soft(lesion.core - ball + 2 * patches, width) * inside, head.csf + 0.10 + patches)
    return body


def _paint_meningioma(image: Plane, lesion: Lesion, head: Anatomy, section: Section, inside: Plane) -> Plane:
    """Smooth, evenly bright ball on the dura with a dark cleft towards the brain and a tail along the dura."""
    ball = lesion.distance(section.x, section.y, section.z, 0.03)
    width = EDGE / lesion.radius
    paint(image, soft(1.12 - ball, width) * inside * 0.7, head.csf)
    below = section.depth - brain_surface(head, section.z)
    tail = soft(0.022 - np.abs(below - 0.008), EDGE) * soft(1.7 - ball, 0.4)
    paint(image, tail, lesion.enhancement)
    body = soft(1 - ball, width) * inside
    paint(image, body, lesion.enhancement)
    return body


def _paint_pituitary(image: Plane, lesion: Lesion, head: Anatomy, section: Section, inside: Plane) -> Plane:
    """Smooth midline mass out of the sella, evenly bright, a little lobed towards the cavernous sinuses."""
    ball = lesion.distance(section.x, section.y, section.z, 0.07)
    width = EDGE / lesion.radius
    paint(image, soft(1.15 - ball, width) * 0.7, head.csf)
    body = soft(1 - ball, width) * inside
    paint(image, body, lesion.enhancement * 0.92)
    return body

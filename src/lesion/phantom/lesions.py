"""Tumors with the signs that radiologists look for: where they grow, how they enhance and what they displace."""

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
    """One tumor: a rough ball around a center; lengths in head units."""

    kind: Kind
    x: float
    y: float
    z: float
    radius: float
    stretch: float
    angle: float
    enhancement: float
    core: float
    edema: float
    push: float
    rough: Waves

    @classmethod
    def sample(cls, kind: Kind, head: Anatomy, rng: np.random.Generator) -> "Lesion":
        """Sample a tumor where its kind grows.

        "notumor" gets a ball too: its slices are placed around one like the others', but nothing is painted.
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
            edema=rng.uniform(1.3, 1.9),
            push=rng.uniform(0.25, 0.5),
            rough=sample_waves(rng, 10, 0.10, 0.40),
        )

    def distance(self, x: Plane, y: Plane, z: float, rough: float) -> Plane:
        """Return the distance from the center in radii; ``rough`` makes the outline irregular."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        dx, dy = x - self.x, y - self.y
        along, across = (cos * dx + sin * dy) / self.stretch, (cos * dy - sin * dx) * self.stretch
        ball = np.sqrt(along**2 + across**2 + (z - self.z) ** 2) / self.radius
        return ball + rough * field(self.rough, x, y, z) if rough else ball


def _level(rng: np.random.Generator) -> float:
    """Sample the level of a tumor outside the sella: often the base too, so that it does not reveal the class."""
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
    if z > 0.6 and rng.random() < 0.25:  # on the falx, in front of or behind the corpus callosum
        end = float(rng.choice((-1, 1)))
        return 0.75 * side * radius, end * rng.uniform(0.3, 0.6) * head.scale(z)
    angle = rng.uniform(-1.2, 1.2)
    if z < 0.25 and rng.random() < 0.4:  # on the sphenoid wing
        along = rng.uniform(0.5, 0.95)  # closer to the midline it would look like a pituitary tumor
        return side * (0.25 + 0.45 * along) * head.width, -0.27 - 0.23 * along + 0.6 * radius
    reach = head.scale(z) - brain_surface(head, z) - 0.6 * radius
    return side * reach * math.cos(angle) * head.width, reach * math.sin(angle)


def _in_sella(head: Anatomy, z: float, radius: float, rng: np.random.Generator) -> tuple[float, float]:
    return rng.normal(0, 0.02), rng.normal(-0.15 + head.base_shift, 0.02)


def displace(lesion: Lesion, head: Anatomy, section: Section) -> Section:
    """Return the section from which the brain is drawn: the tumor pushes the tissue around it aside (mass effect)."""
    ball = lesion.distance(section.x, section.y, section.z, 0)
    pull = lesion.push * np.exp(-((ball / 1.4) ** 2))
    x = section.x - pull * (section.x - lesion.x)
    y = section.y - pull * (section.y - lesion.y)
    return replace(Section.cut(head, x, y, section.z), depth=section.depth)


def paint_lesion(image: Plane, lesion: Lesion, head: Anatomy, section: Section) -> Plane:
    """Paint the tumor, and return the opacity of its body (without edema and dural tail)."""
    painter = {"glioma": _paint_glioma, "meningioma": _paint_meningioma, "pituitary": _paint_pituitary}[lesion.kind]
    inside = soft(section.depth - brain_surface(head, section.z), EDGE)
    return painter(image, lesion, head, section, inside)


def _paint_glioma(image: Plane, lesion: Lesion, head: Anatomy, section: Section, inside: Plane) -> Plane:
    """Paint an irregular enhancing ring around a necrotic core, in dark edema that spreads along the white matter."""
    ball = lesion.distance(section.x, section.y, section.z, 0.13)
    width = EDGE / lesion.radius
    spread = lesion.distance(section.x, section.y, section.z, 0.30)
    paint(image, soft(lesion.edema - spread, 0.35) * inside * 0.75, head.gray * 0.68)
    body = soft(1 - ball, width) * inside
    patches = 0.06 * field(lesion.rough, section.x * 2, section.y * 2, section.z)
    paint(image, body, lesion.enhancement + patches)
    paint(image, soft(lesion.core - ball + 2 * patches, width) * inside, head.csf + 0.10 + patches)
    return body


def _paint_meningioma(image: Plane, lesion: Lesion, head: Anatomy, section: Section, inside: Plane) -> Plane:
    """Paint a smooth, evenly bright ball on the dura, with a dark cleft towards the brain and a tail along the dura."""
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
    """Paint a smooth, evenly bright mass out of the sella, slightly lobed towards the cavernous sinuses."""
    ball = lesion.distance(section.x, section.y, section.z, 0.07)
    width = EDGE / lesion.radius
    paint(image, soft(1.15 - ball, width) * 0.7, head.csf)
    body = soft(1 - ball, width) * inside
    paint(image, body, lesion.enhancement * 0.92)
    return body

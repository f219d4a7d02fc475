"""Paints axial sections of a healthy head as in T1-weighted MRI with contrast agent."""

import numpy as np

from lesion.phantom.anatomy import EDGE, Anatomy, Section, at_base, brain_surface
from lesion.phantom.fields import Plane, bump, capsule, ellipse, field, norm, paint, soft


def render(head: Anatomy, section: Section, brain: Section) -> Plane:
    """Paint one level of a healthy head, and return the signal before the scanner, float32 in about [0, 1].

    The section is that of skull and scalp. That of the brain has the same points, moved by the mass effect of a lesion.
    """
    image = np.zeros_like(section.x)
    _paint_skull(image, head, section)
    inside = soft(section.depth - brain_surface(head, section.z), EDGE)
    paint(image, inside, _brain(head, brain))
    _paint_meninges(image, head, section)
    base = bump(section.z, -1, 0.16, 0.1)
    if base > 0:
        _paint_skull_base(image, head, at_base(head, section), base)
    return image


def _paint_skull(image: Plane, head: Anatomy, section: Section) -> None:
    oblique = brain_surface(head, section.z) / (head.scalp + head.skull)
    bone, inner = head.scalp * oblique, brain_surface(head, section.z)
    ripple = 1 + 0.10 * field(head.texture, section.x * 2, section.y * 2, section.z)
    paint(image, soft(section.depth, EDGE), head.fat * ripple)
    paint(image, soft(0.012 - np.abs(section.depth - 0.55 * bone), EDGE) * 0.5, 0.35)
    paint(image, soft(section.depth - bone, EDGE), 0.05)
    marrow = 0.22 * (inner - bone)
    paint(image, soft(marrow - np.abs(section.depth - (bone + inner) / 2), EDGE), 0.38 * ripple)


def _brain(head: Anatomy, at: Section) -> Plane:
    """Return cortex, white matter, fluid spaces and deep gray nuclei, not yet limited by the skull."""
    folds = field(head.folds, at.x, at.y, at.z)
    below = at.depth - (brain_surface(head, at.z) + 0.012)
    reach = np.clip(1 - below / 0.30, 0, 1)
    sulcus = (0.10 + 0.12 * head.atrophy) * reach**2
    crest = np.abs(folds)
    cortex = np.clip((sulcus + 0.55 * reach - crest) * 4 + 0.5, 0, 1)
    cortex = np.maximum(cortex, soft(0.045 - below, EDGE))
    mottle = 0.02 * field(head.texture, at.x, at.y, at.z)
    image = np.full_like(at.x, head.white) + mottle
    _paint_nuclei(image, head, at)
    paint(image, cortex, head.gray + mottle)
    paint(image, np.clip((sulcus - crest) * 5 + 0.5, 0, 1) * (reach > 0), head.csf)
    paint(image, soft(-below, EDGE), head.csf)
    _paint_midline(image, head, at)
    _paint_ventricles(image, head, at)
    _paint_sylvian(image, head, at)
    posterior = bump(at.z, -1, 0.18, 0.1)
    if posterior > 0:
        _paint_posterior_fossa(image, head, at_base(head, at), posterior)
    for u, v, z, radius in head.vessels:
        if abs(z - at.z) < 0.06:
            paint(image, soft(ellipse(at.u, at.v, (u, v), (radius, radius)), EDGE), head.vessel)
    return image


def _paint_nuclei(image: Plane, head: Anatomy, at: Section) -> None:
    present = 0.8 * bump(at.z, 0.34, 0.46, 0.06)
    if present > 0:
        for side in (-1, 1):
            for center, radii in (
                ((0.17, 0.06), (0.10, 0.14)),
                ((0.30, -0.06), (0.08, 0.17)),
                ((0.13, -0.2), (0.06, 0.1)),
            ):
                shape = ellipse(at.u, at.v, (side * center[0], center[1]), radii)
                paint(image, soft(shape, 3 * EDGE) * present, head.gray)


def _paint_midline(image: Plane, head: Anatomy, at: Section) -> None:
    """Paint the interhemispheric fissure; the corpus callosum bridges it at the level of the ventricles."""
    present = bump(at.z, 0.28, 2, 0.06)
    bridge = 0.38 * bump(at.z, 0.3, 0.6, 0.08)
    apart = soft(np.abs(at.v) - bridge, 2 * EDGE) * present
    paint(image, soft(0.06 - np.abs(at.u), 3 * EDGE) * apart * 0.7, head.gray)
    wide = (0.008 + 0.012 * head.atrophy) * (1 + 0.5 * np.sin(at.v * 23))
    paint(image, soft(wide - np.abs(at.u), EDGE) * apart, head.csf)


def _paint_ventricles(image: Plane, head: Anatomy, at: Section) -> None:
    lateral = bump(at.z, 0.40, 0.60, 0.07)
    if lateral > 0:
        for side in (-1, 1):
            wide = head.ventricles * lateral * (1 + side * head.asymmetry)
            middle = 0.07 + 0.9 * (at.v - 0.02) ** 2
            ends = np.clip((0.42 - np.abs(at.v - 0.03)) * 8, -1, 1)
            shape = wide * ends * (1 + 0.5 * np.abs(at.v)) - np.abs(at.u * side - middle)
            paint(image, soft(shape, EDGE), head.csf)
            plexus = ellipse(at.u, at.v, (side * 0.20, 0.36), (0.022, 0.05))
            paint(image, soft(plexus, EDGE) * lateral, head.vessel * 0.85)
            paint(image, soft(plexus - 0.012, EDGE) * (lateral * head.calcified), 0.04)
    third = bump(at.z, 0.28, 0.40, 0.05)
    shape = capsule(at.u, at.v, (0, -0.08), (0, 0.16), 0.3 * head.ventricles)
    paint(image, soft(shape, EDGE) * third, head.csf)


def _paint_sylvian(image: Plane, head: Anatomy, at: Section) -> None:
    present = bump(at.z, 0.22, 0.44, 0.06)
    if present == 0:
        return
    for side in (-1, 1):
        outer, knee = (side * 0.84, -0.20), (side * 0.52, -0.10)
        for start, end in ((outer, knee), (knee, (side * 0.46, 0.10))):
            shape = capsule(at.u, at.v, start, end, 0.012 + 0.014 * head.atrophy)
            paint(image, soft(shape + 0.05, EDGE) * (0.7 * present), head.gray)
            paint(image, soft(shape, EDGE) * present, head.csf)
        paint(image, soft(ellipse(at.u, at.v, knee, (0.016, 0.016)), EDGE) * present, head.vessel)


def _paint_posterior_fossa(image: Plane, head: Anatomy, at: Section, present: float) -> None:
    """Paint the cerebellum with its folia, the brainstem, the fourth ventricle and the cisterns around them."""
    fossa = ellipse(at.u, at.v, (0, 0.46), (0.58, 0.42))
    folia = np.sin(norm(at.u * 0.8, at.v - 0.1) * 75 + 0.8 * field(head.texture, at.x, at.y, at.z))
    paint(image, soft(fossa + 0.02, EDGE) * present, head.csf)
    paint(image, soft(fossa, EDGE) * present, head.gray + 0.05 * folia)
    for side in (-1, 1):
        paint(image, soft(ellipse(at.u, at.v, (side * 0.24, 0.42), (0.17, 0.12)), 0.1) * present, head.white)
    paint(image, soft(ellipse(at.u, at.v, (0, 0.46), (0.05, 0.3)), 0.04) * present, head.gray)
    paint(image, soft(ellipse(at.u, at.v, (0, 0.08), (0.27, 0.22)), EDGE) * present, head.csf)
    paint(image, soft(ellipse(at.u, at.v, (0, 0.11), (0.19, 0.17)), EDGE) * present, head.white)
    paint(image, soft(ellipse(at.u, at.v, (0, 0.31), (0.06, 0.035 + 0.5 * head.ventricles)), EDGE) * present, head.csf)
    paint(image, soft(ellipse(at.u, at.v, (0.01, -0.07), (0.018, 0.018)), EDGE) * present, head.vessel)


def _paint_meninges(image: Plane, head: Anatomy, section: Section) -> None:
    """Paint the dura, the falx and the venous sinuses, which take up contrast agent."""
    surface = brain_surface(head, section.z)
    paint(image, soft(0.006 - np.abs(section.depth - surface), EDGE) * 0.6, head.vessel * 0.6)
    present = 0.75 * bump(section.z, 0.28, 2, 0.06)
    bridge = 0.45 * bump(section.z, 0.3, 0.6, 0.08)
    falx = soft(0.004 - np.abs(section.u), EDGE) * soft(np.abs(section.v) - bridge, EDGE)
    paint(image, falx * soft(section.depth - surface, EDGE) * present, head.vessel * 0.8)
    for direction, radius in ((1, 0.035), (-1, 0.02)):
        along = (section.depth - surface) * 1.1
        wedge = radius - np.maximum(np.abs(section.u) + 0.4 * along, np.abs(along - radius * 0.6))
        here = (section.v * direction > 0) & (section.depth > 0)
        paint(image, soft(wedge, EDGE) * here * bump(section.z, 0.24, 2, 0.05), head.vessel)


def _paint_skull_base(image: Plane, head: Anatomy, at: Section, present: float) -> None:
    """Paint orbits, air cells, sphenoid and petrous bone, carotids, cavernous sinuses and the healthy pituitary."""
    skin = soft(at.depth - head.scalp, EDGE) * present
    orbit_level = bump(at.z, -1, 0.10, 0.05)
    paint(image, soft(ellipse(at.u, at.v, (0, -0.78), (head.air_cells, 0.22)), EDGE) * skin * orbit_level, 0.06)
    for side in (-1, 1):
        orbit = soft(ellipse(at.u, at.v, (side * 0.38, -0.72), (head.orbit, head.orbit)), EDGE) * skin * orbit_level
        paint(image, orbit, head.fat * 0.85)
        eye = ellipse(at.u, at.v, (side * 0.38, -0.80), (0.6 * head.orbit, 0.65 * head.orbit))
        paint(image, soft(eye, EDGE) * soft(at.depth - 0.015, EDGE) * orbit_level, 0.16)
        septum = capsule(at.u, at.v, (side * 0.06, -0.92), (side * 0.06, -0.62), 0.006)
        paint(image, soft(septum, EDGE) * orbit_level * skin, 0.55)
        thick = (0.008 + 0.12 * max(0.22 - at.z, 0)) * (0.5 + np.abs(at.u))  # a lower section cuts more of the bones
        for bow, start, end in ((0.6, (0.80, -0.20), (0.13, -0.27)), (-0.6, (0.80, -0.16), (0.24, 0.04))):
            ends = (side * start[0], start[1]), (side * end[0], end[1])
            paint(image, soft(capsule(at.u, at.v + bow * at.u**2, *ends, 0) + thick, EDGE) * skin * 0.8, 0.10)
        cavernous = ellipse(at.u, at.v, (side * 0.12, -0.12), (0.03, 0.09))
        paint(image, soft(cavernous, EDGE) * present * 0.7, head.vessel * 0.8)
        carotid = ellipse(at.u, at.v, (side * 0.11, -0.18), (0.024, 0.024))
        paint(image, soft(carotid, EDGE) * present, head.vessel)
        sinus = capsule(at.u, at.v, (side * 0.68, 0.50), (side * 0.45, 0.74), 0.018 * (1 + 2 * side * head.asymmetry))
        paint(image, soft(sinus, EDGE) * skin, head.vessel)
    paint(image, soft(ellipse(at.u, at.v, (0, -0.17), (0.10, 0.10)), 2 * EDGE) * present * 0.8, head.csf)
    paint(image, soft(ellipse(at.u, at.v, (0, -0.15), (0.03, 0.022)), EDGE) * present, head.vessel * 0.75)

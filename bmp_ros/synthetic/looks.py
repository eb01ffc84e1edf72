# SPDX-License-Identifier: Apache-2.0
"""What a person wears and looks like: sampled once, kept over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmp_ros.synthetic import palettes
from bmp_ros.synthetic.body_regions import CROTCH, WAIST
from bmp_ros.synthetic.surfaces import Kind, Material, Pattern

CLOTH_LAYERS = {"train": (0, 6), "test": (6, 9)}
"""Layers of the texture array with prints for cloth (first, one past the last) per split."""

PATTERN_ODDS = {
    Pattern.PLAIN: 0.50, Pattern.STRIPES: 0.10, Pattern.UPRIGHT_STRIPES: 0.04,
    Pattern.CHECKS: 0.08, Pattern.DOTS: 0.03, Pattern.PRINT: 0.05, Pattern.CHEST_PRINT: 0.10,
    Pattern.GRADIENT: 0.03, Pattern.BLOTCHES: 0.03, Pattern.BLOCKS: 0.04,
}  # fmt: skip


@dataclass(frozen=True)
class Garment:
    """Cloth over a region. thickness: metres off the skin; looseness: extra away from the limb."""

    material: Material
    thickness: float
    looseness: float = 0.0


@dataclass(frozen=True)
class Look:
    """Everything visible about one person but body and pose. Lengths as in ``body_regions``."""

    skin: Material
    hair: Material
    brows: tuple[float, float, float]
    top: Garment
    sleeve: float
    hem: float
    neckline: float
    bottom: Garment
    trouser_end: float
    skirt_end: float | None
    """Height of the hem of a skirt, dress or coat on the canonical adult; None: none."""
    skirt_is_top: bool
    """Made of the upper garment's cloth (a dress, a coat)."""
    skirt_flare: float
    jacket: Garment | None
    jacket_open: float
    """Half width in metres of the gap of an open jacket; 0 is closed."""
    shoes: Garment
    shoe_height: float
    hair_style: str
    hair_length: float
    hat: str | None
    hat_material: Material
    beard: float
    face_mask: Material | None
    glasses: bool
    bag: str | None
    bag_material: Material
    seed: int
    """Seeds creases and the asymmetry of hair."""


def sample_look(random: np.random.Generator, split: str, female: bool, years: float) -> Look:
    """A person of ``split`` ("train" or "test"): cloth and prints of the splits are disjoint."""
    red, green, blue = palettes.pick(random, palettes.SKIN, 0.1)
    # The palette is of lit skin in photographs; its albedo is lower.
    skin = Material(Kind.SKIN, (0.75 * red, 0.72 * green, 0.72 * blue), shine=0.12)
    top = _cloth(random, split)
    bottom = _cloth(random, split, plain=0.85)
    style = random.random()
    skirt_end, skirt_is_top = None, False
    if random.random() < (0.28 if female else 0.02):
        skirt_end = float(
            random.uniform(-0.62, 0.0) if style < 0.7 else random.uniform(-0.7, -0.4)
        )
        skirt_is_top = bool(random.random() < 0.5)
    elif random.random() < 0.08:  # a coat or a long gown
        skirt_end, skirt_is_top = float(random.uniform(-0.45, -0.05)), True
    hot = random.random() < 0.45
    sleeve = random.choice([-0.05, 0.3, 0.55, 0.75, 1.0]) if hot else random.choice([1.6, 1.93])
    shorts = random.random() < (0.4 if hot else 0.04)
    end = random.uniform(0.25, 1.0) if shorts else random.uniform(1.75, 2.02)
    jacket = None
    if not hot and random.random() < 0.4:
        jacket = Garment(_cloth(random, split, plain=0.8), random.uniform(0.016, 0.032), 0.012)
    return Look(
        skin=skin,
        hair=_hair_material(random, years, dark=sum(skin.color) < 0.55),
        brows=palettes.pick(random, palettes.HAIR[:6], 0.1),
        top=Garment(top, random.uniform(0.005, 0.012), random.choice([0.0, 0.004, 0.01, 0.02])),
        sleeve=float(sleeve + random.normal(0, 0.04)),
        hem=float(random.uniform(CROTCH + 0.0, WAIST - 0.08) if random.random() < 0.9 else WAIST),
        neckline=float(random.choice([0.0, 0.02, 0.04, 0.1]) * random.uniform(0.7, 1.3)),
        bottom=Garment(
            bottom, random.uniform(0.004, 0.008), random.choice([0.0, 0.006, 0.015, 0.025])
        ),
        trouser_end=float(end),
        skirt_end=skirt_end,
        skirt_is_top=skirt_is_top,
        skirt_flare=float(random.uniform(0.01, 0.16)),
        jacket=jacket,
        jacket_open=float(random.choice([0.0, 0.05, 0.09]) * random.uniform(0.7, 1.2)),
        shoes=Garment(_shoe_material(random), random.uniform(0.007, 0.013)),
        shoe_height=float(
            random.choice([-0.01, 0.0, 0.02, 0.08, 0.25], p=[0.3, 0.3, 0.2, 0.12, 0.08])
        ),
        hair_style=_hair_style(random, female, years),
        hair_length=float(random.uniform(0.0, 1.0)),
        hat=str(random.choice(["cap", "beanie", "helmet", "hood"]))
        if random.random() < 0.14
        else None,
        hat_material=_cloth(random, split, plain=0.8),
        beard=float(random.uniform(0.002, 0.012)) if _has_beard(random, female, years) else 0.0,
        face_mask=_mask_material(random) if random.random() < 0.04 else None,
        glasses=bool(random.random() < 0.15),
        bag=_bag(random),
        bag_material=_cloth(random, split, plain=0.8),
        seed=int(random.integers(2**31)),
    )


def _cloth(random: np.random.Generator, split: str, plain: float = 0.0) -> Material:
    codes = palettes.cloth_colors(split)
    patterns, odds = list(PATTERN_ODDS), np.array(list(PATTERN_ODDS.values()))
    pattern = Pattern.PLAIN
    if random.random() >= plain:
        pattern = patterns[random.choice(len(patterns), p=odds / odds.sum())]
    first, last = CLOTH_LAYERS[split]
    return Material(
        Kind.CLOTH,
        palettes.pick(random, codes, 0.12, favour=1.6),
        palettes.pick(random, codes, 0.12, favour=1.6),
        scale=float(np.exp(random.uniform(np.log(4), np.log(28)))),
        pattern=pattern,
        layer=int(random.integers(first, last)),
        shine=float(random.choice([0.0, 0.03, 0.25], p=[0.5, 0.4, 0.1])),
        roughness=float(random.uniform(0.15, 1.0)),
    )


def _hair_material(random: np.random.Generator, years: float, dark: bool) -> Material:
    codes: tuple[str, ...] = (
        palettes.HAIR[:4] if dark and random.random() < 0.9 else palettes.HAIR[:10]
    )
    if years > 55 and random.random() < 0.75:
        codes = palettes.HAIR[10:]
    elif random.random() < 0.04:
        codes = palettes.DYED_HAIR
    color = palettes.pick(random, codes, 0.15)
    return Material(Kind.HAIR, color, shine=float(random.uniform(0.05, 0.35)), roughness=0.8)


def _shoe_material(random: np.random.Generator) -> Material:
    color = palettes.pick(random, palettes.LEATHER, 0.15)
    sole = (0.6, 0.6, 0.58) if random.random() < 0.4 else (0.02, 0.02, 0.02)
    return Material(Kind.CLOTH, color, sole, shine=0.2, roughness=0.2)


def _mask_material(random: np.random.Generator) -> Material:
    return Material(Kind.CLOTH, palettes.pick(random, ("dfe9ef", "9cc4dd", "18181a"), 0.1))


def _hair_style(random: np.random.Generator, female: bool, years: float) -> str:
    if female:
        styles = {"short": 0.14, "medium": 0.16, "long": 0.42, "tail": 0.14, "bun": 0.08,
                  "afro": 0.03, "scarf": 0.03}  # fmt: skip
    else:
        bald = 0.3 if years > 45 else 0.06
        styles = {"short": 0.62, "medium": 0.16, "long": 0.03, "afro": 0.04, "bald": bald}
    odds = np.array(list(styles.values()))
    return str(random.choice(list(styles), p=odds / odds.sum()))


def _has_beard(random: np.random.Generator, female: bool, years: float) -> bool:
    return bool(not female and years > 19 and random.random() < 0.35)


def _bag(random: np.random.Generator) -> str | None:
    if random.random() > 0.2:
        return None
    return str(random.choice(["backpack", "handbag", "phone", "box", "cup"]))

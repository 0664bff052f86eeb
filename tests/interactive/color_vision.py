"""Colors as people with and without color blindness see them, and how much they differ.

Simulations: Machado, Oliveira and Fernandes, IEEE Trans. Vis. Comput. Graph. 15 (2009), severity 1. Differences:
CIEDE2000, as in Sharma, Wu and Dalal, Color Res. Appl. 30 (2005).
"""

from __future__ import annotations

import numpy as np

VIEWS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Linear sRGB to XYZ, and the white of D65.
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])
WHITE = np.array([0.95047, 1.0, 1.08883])


def linear(hexes: list[str]) -> np.ndarray:  # (n, 3)
    shares = np.array([[int(name[i : i + 2], 16) / 255 for i in (1, 3, 5)] for name in hexes])
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:  # (n, 3) -> (n, 3)
    xyz = rgb @ XYZ.T / WHITE
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def seen(hexes: list[str], view: str) -> np.ndarray:  # (n, 3), in Lab
    return lab(np.clip(linear(hexes) @ VIEWS[view].T, 0, 1))


def ciede2000(first: np.ndarray, second: np.ndarray) -> np.ndarray:  # (n, 3), (n, 3) -> (n,)
    lightness = [first[:, 0], second[:, 0]]
    mean_chroma = (np.hypot(*first[:, 1:].T) + np.hypot(*second[:, 1:].T)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7))
    a, b = [color[:, 1] * stretch for color in (first, second)], [first[:, 2], second[:, 2]]
    chroma = [np.hypot(*pair) for pair in zip(a, b, strict=True)]
    hue = [np.degrees(np.arctan2(y, x)) % 360 for x, y in zip(a, b, strict=True)]
    gray = chroma[0] * chroma[1] == 0
    turn = np.where(gray, 0, (hue[1] - hue[0] + 180) % 360 - 180)
    # At a difference of half a circle the sign is free; the published values have the positive one.
    turn = np.where(turn == -180, 180, turn)
    mean_hue = np.where(gray, hue[0] + hue[1], hue[0] + turn / 2)
    mean_l, mean_c = sum(lightness) / 2, sum(chroma) / 2
    cosines = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63))
    wave = 1 + sum(weight * np.cos(np.radians(n * mean_hue + shift)) for weight, n, shift in cosines)
    rotation = -2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7))
    blue = ((mean_hue % 360 - 275) / 25) ** 2
    rotation = rotation * np.sin(np.radians(60 * np.exp(-blue)))
    of_l = (lightness[1] - lightness[0]) / (1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2))
    of_c = (chroma[1] - chroma[0]) / (1 + 0.045 * mean_c)
    of_h = 2 * np.sqrt(chroma[0] * chroma[1]) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * mean_c * wave)
    return np.sqrt(of_l**2 + of_c**2 + of_h**2 + rotation * of_c * of_h)


def least_difference(hexes: list[str], view: str) -> float:
    """The least difference of two of the colors, as somebody with ``view`` sees them."""
    colors = seen(hexes, view)
    i, j = np.triu_indices(len(colors), 1)
    return float(ciede2000(colors[i], colors[j]).min())

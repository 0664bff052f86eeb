"""Point sets cut into tiles: how many, in which order, and the points of each."""

from __future__ import annotations

import torch

# Points of a tile: two operands of the tensor cores, 128 x 128 in half precision, and the sums fit a multiprocessor.
TILE = 128
# Columns of a block of tiles are a multiple of this: 32 bytes, the least that a tensor core multiplies.
COLUMNS = 16


def n_tiles(n_points: int) -> int:
    """Tiles of a set; the last one may be partly empty."""
    return -(-n_points // TILE)


def kd_order(points: torch.Tensor, masked: bool = False) -> torch.Tensor:  # (B, n, p) -> (B, n) int64
    """Every set in the order of the leaves of a kd-tree, which halves spans of points along their widest coordinate.

    A span that fits a tile is a leaf. Features that ``masked`` points lack count as 0. The spans of a level are sorted
    in one batch, so that a GPU gets few calls. O(B n (p + log n)) time a level.
    """
    if masked:
        points = points.masked_fill(points.isnan(), 0)
    n_sets, n, p = points.shape
    order = torch.arange(n, device=points.device).repeat(n_sets, 1)
    spans = [(0, n)]
    while spans := [(first, last) for first, last in spans if last - first > TILE]:
        places, inside, kept = (part.to(points.device) for part in _of_spans(spans))
        nodes = order[:, places]  # (B, spans, longest)
        coordinates = points.gather(1, nodes.view(n_sets, -1, 1).expand(-1, -1, p)).view(*nodes.shape, p)
        widest = (coordinates.amax(2) - coordinates.amin(2)).argmax(2)
        along = torch.take_along_dim(coordinates, widest[:, :, None, None], 3)[..., 0]
        ranks = along.masked_fill_(~inside, torch.inf).argsort(dim=2, stable=True)
        order[:, places.view(-1)[kept]] = nodes.gather(2, ranks).view(n_sets, -1)[:, kept]
        middles = [first + n_tiles(last - first) // 2 * TILE for first, last in spans]
        spans = [half for (a, c), b in zip(spans, middles, strict=True) for half in ((a, b), (b, c))]
    return order


def _of_spans(spans: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The places of every span, padded with its last place to the longest span; which are not padding; their indices.

    Shapes (spans, longest) int64, (spans, longest) bool, (k,) int64.
    """
    first, last = torch.tensor(spans, dtype=torch.int64, device="cpu").T[..., None]
    places = first + torch.arange(int((last - first).max()), device="cpu")
    inside = places < last
    return torch.minimum(places, last - 1), inside, inside.view(-1).nonzero()[:, 0]


def in_tiles(
    rows: torch.Tensor, order: torch.Tensor, filling: float | None
) -> torch.Tensor:  # (B, n, C) -> (B, t, TILE, C)
    """``rows`` in ``order``, in t tiles; places without a row hold ``filling``, or the last row if that is None."""
    n_sets, n, width = rows.shape
    tiled = rows.new_empty(n_sets, n_tiles(n) * TILE, width)
    torch.gather(rows, 1, order[..., None].expand(-1, -1, width), out=tiled[:, :n])
    tiled[:, n:] = tiled[:, n - 1 : n] if filling is None else filling
    return tiled.view(n_sets, -1, TILE, width)

"""Refinement: nodes move a little, so that their nearest neighbors in the picture are those of their states."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..neighbors import kneighbors
from ..ops.chunks import row_chunks
from ..ops.kth_neighbor_distance import nearest_others
from ..slices import unit_major

# The unit of distance, in multiples of the distance in the picture between a node and its neighbors.
WIDTH = 2.0
# The pull back to the place before the refinement, for each unit of distance.
ANCHOR = 0.3
SWEEPS = 30
# Slices that repel a node in a sweep.
N_REPELLING = 5
# The largest repulsion by a slice. Without it nearly equal places would be thrown far apart.
LARGEST_REPULSION = 4.0
# Added to the squared distance by which the repulsion is divided, and the least divisor of the attraction.
LEAST_SQUARE, LEAST_DIVISOR = 1e-3, 1e-12
# Of few slices the ten nearest are too many: in a picture of 408 slices of an LSTM, refinement with ten kept fewer of
# the 10 nearest than none, and with five it kept more. With k near S every slice attracts every other.
FEW, SLICES_FOR_EACH = 5, 200
# Nodes of the units that move together: little memory of a GPU, and temporaries that stay in the cache of a CPU.
NODES_AT_ONCE, NODES_IN_CACHE = 1 << 21, 1 << 16
# Multiples of the golden ratio, without their whole part, fall into the largest gaps that earlier ones left. So the
# slices that repel a node are spread evenly, and no random number is needed.
GOLDEN = (5**0.5 - 1) / 2


def refined_nodes(
    coordinates: torch.Tensor,  # (N, C); NaN for a node that is left out of the graph
    points: torch.Tensor,  # (S, M, D) float64
    knn: int,
    *,
    backend: str = "auto",
    masked: bool = False,
) -> torch.Tensor:  # (N, C)
    """`refined` coordinates, for the ``knn`` nearest slices of each node's unit; ``coordinates`` where it is 0.

    See `n_neighbors` for few slices. In ``masked`` points NaN is a missing sample, and a node with fewer than ``knn``
    comparable slices has those. The search takes O(M S^2 D) time at most.
    """
    n_slices, n_units = points.shape[:2]
    k = n_neighbors(knn, n_slices)
    if k == 0:
        return coordinates
    neighbors = _nearest_slices(unit_major(points), k, backend, masked)
    places = refined(unit_major(coordinates.view(n_slices, n_units, -1)), neighbors)
    return places.transpose(0, 1).reshape(coordinates.shape)


def n_neighbors(knn: int, n_slices: int) -> int:
    """``knn``, but at most a 200th of the slices, or 5 if that is more, and at most a third of them."""
    return min(knn, max(FEW, n_slices // SLICES_FOR_EACH), n_slices // 3)


def _nearest_slices(unit_points: torch.Tensor, k: int, backend: str, masked: bool) -> torch.Tensor:
    """(M, S, D) -> (M, S, k): the ``k`` nearest slices; the slice itself in place of one that shares no sample."""
    if not masked:
        return kneighbors(unit_points, k, backend=backend)[1]
    distances, indices = nearest_others(unit_points, k, masked=True)
    itself = torch.arange(indices.shape[1], device=indices.device)[:, None]
    return torch.where(distances.isinf(), itself, indices)


def refined(coordinates: torch.Tensor, neighbors: torch.Tensor) -> torch.Tensor:  # (M, S, C), (M, S, k) -> (M, S, C)
    """Coordinates after 30 sweeps, in which the nodes of each unit attract and repel one another.

    A node is drawn to the slices ``neighbors`` of its unit, and back to its place before the first sweep; five other
    slices repel it in each sweep. The attraction is the gradient of the logarithm of the similarity 1 / (1 + d), and
    the repulsion that of one minus the similarity. The unit of distance is twice the median, over all nodes, of a
    node's mean distance to its neighbors (the lower one of an even number); with a median of 0 nothing moves. A node
    that is its own neighbor, or whose place is NaN, exerts no force. O(N k) time for a sweep, some chunks of memory.
    The bits do not depend on the number of threads, because no power or exponential is taken.

    Source: the forces are those of UMAP (McInnes, Healy and Melville, arXiv 1802.03426) with a = 1 and b = 1/2.
    """
    size = coordinates.nan_to_num(0).abs().amax()
    scaled = (coordinates / size).permute(2, 0, 1).contiguous()  # (C, M, S); squares neither overflow nor vanish
    unit = WIDTH * _spacing(scaled, neighbors)
    if not bool(unit > 0):
        return coordinates
    result = torch.empty_like(scaled)
    for units in _units_at_once(neighbors):
        result[:, units] = _settled(scaled[:, units] / unit, _links(neighbors[units]))
    return (result * (unit * size)).permute(1, 2, 0)


def _units_at_once(neighbors: torch.Tensor) -> Iterator[slice]:
    n_units, n_slices, _ = neighbors.shape
    return row_chunks(n_units, n_slices, NODES_AT_ONCE if neighbors.is_cuda else NODES_IN_CACHE)


def _links(neighbors: torch.Tensor) -> torch.Tensor:  # (m, S, k) -> (k, m S)
    """The neighbors of all nodes, numbered over the units."""
    n_units, n_slices, k = neighbors.shape
    first = n_slices * torch.arange(n_units, device=neighbors.device)[:, None, None]
    return (neighbors + first).view(-1, k).T.contiguous()


def _spacing(places: torch.Tensor, neighbors: torch.Tensor) -> torch.Tensor:  # (C, M, S), (M, S, k) -> ()
    """The lower median over nodes of the mean distance to the neighbors; NaN where no node has a neighbor."""
    of_nodes = torch.empty_like(places[0])
    itself = torch.arange(neighbors.shape[1], device=neighbors.device)
    for units in _units_at_once(neighbors):
        total, count = torch.zeros_like(places[0, units]), torch.zeros_like(places[0, units])
        for link, near in zip(_links(neighbors[units]), neighbors[units].unbind(2), strict=True):
            total += _towards(places[:, units], link).square_().sum(0).sqrt_()
            count += near != itself
        of_nodes[units] = total / count
    return of_nodes.nanmedian()


def _settled(start: torch.Tensor, links: torch.Tensor) -> torch.Tensor:  # (C, m, S), (k, m S) -> (C, m, S)
    places = start.clone()
    for sweep in range(SWEEPS):
        force = ANCHOR * (start - places)
        for link in links:
            force += _attraction(_towards(places, link)) / len(links)
        for shift in _shifts(sweep, places.shape[2]):
            force += _repulsion(places - places.roll(shift, 2)) / N_REPELLING
        places += (1 - sweep / SWEEPS) * force
    return places


def _towards(places: torch.Tensor, link: torch.Tensor) -> torch.Tensor:  # (C, m, S), (m S,) -> (C, m, S)
    return places.flatten(1).index_select(1, link).view_as(places).sub_(places)


def _attraction(difference: torch.Tensor) -> torch.Tensor:  # (C, m, S)
    distance = difference.square().sum(0).sqrt_()
    return difference.div_((distance * (1 + distance)).clamp_min_(LEAST_DIVISOR))


def _repulsion(difference: torch.Tensor) -> torch.Tensor:  # (C, m, S)
    square = difference.square().sum(0)
    distance = square.sqrt()
    factor = 1 / ((square + LEAST_SQUARE) * (1 + distance))
    factor = torch.minimum(factor, LARGEST_REPULSION / distance)
    return difference.mul_(factor).nan_to_num_(0)  # NaN: a node that is left out of the graph


def _shifts(sweep: int, n_slices: int) -> list[int]:
    """By how many slices those that repel in this sweep lie before a node: 1 to S - 1."""
    ranks = range(sweep * N_REPELLING + 1, (sweep + 1) * N_REPELLING + 1)
    return [1 + int(rank * GOLDEN % 1 * (n_slices - 1)) for rank in ranks]

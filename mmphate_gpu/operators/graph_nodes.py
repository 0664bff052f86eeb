"""The affinity over the nodes of a graph, where others are left out because too few of their samples are present."""

from __future__ import annotations

import torch

from ..affinities.comparable import has_sample
from ..errors import InputError, warn_caller
from ..ops.chunks import row_chunks
from ..ops.csr import Csr
from ..runtime.isolation import isolated
from .protocol import AffinityOperator
from .sparse import SparseAffinity


def graph_nodes(points: torch.Tensor) -> torch.Tensor | None:  # (S, M, D) -> (N',) int64
    """The nodes that have a sample; None if all have."""
    kept = has_sample(points).flatten()
    return None if bool(kept.all()) else torch.nonzero(kept).squeeze(1)


def check_graph(resolution: torch.Tensor, least: int, n_components: int = 1) -> None:  # (S, M), of `trace_points`
    """Raise `InputError` if the nodes that have a point span fewer dimensions; warn of those that have none.

    ``least`` is the number of present samples that a node needs.
    """
    n_nodes, n_out = resolution.numel(), int(resolution.isnan().sum())
    if n_nodes - n_out <= n_components:
        purpose = f" for n_components={n_components}" if n_components > 1 else ""
        accepted = f"accepted: at least {n_components + 1} other nodes{purpose}"
        raise InputError(f"mask leaves too few nodes: {_left_out(n_out, n_nodes, least)}; {accepted}")
    warn_left_out(resolution, least)


def warn_left_out(resolution: torch.Tensor, least: int) -> None:  # (S, M), of `trace_points`
    """Warn of nodes that have no point, at the line that called into the package."""
    if n_out := int(resolution.isnan().sum()):
        warn_caller(f"{_left_out(n_out, resolution.numel(), least)}; their rows of the result are NaN")


def _left_out(n_out: int, n_nodes: int, least: int) -> str:
    few = f"fewer than {least} present samples" if least > 1 else "no present sample"
    return f"{n_out} of {n_nodes} nodes have {few}"


def of_all_nodes(
    rows: torch.Tensor, nodes: torch.Tensor | None, n_nodes: int, filling: float
) -> torch.Tensor:  # (N', C) -> (N, C)
    """The ``rows`` of ``nodes`` among those of all nodes; the others hold ``filling``."""
    if nodes is None:
        return rows
    return rows.new_full((n_nodes, rows.shape[1]), filling).index_copy_(0, nodes, rows)


def over_graph_nodes(operator: AffinityOperator, nodes: torch.Tensor) -> AffinityOperator:  # (N, N), (N',) -> (N', N')
    """``operator``, in which all other nodes have no entries, over ``nodes`` alone."""
    if isinstance(operator, SparseAffinity):
        return SparseAffinity(_of_nodes(operator.csr, nodes), interleave=operator.interleave)
    return GraphNodes(operator, nodes)


class GraphNodes(AffinityOperator):
    """The rows and columns of ``nodes`` of an affinity whose other rows and columns are empty.

    A product costs that of the whole operator, and two copies of the block.
    """

    def __init__(self, whole: AffinityOperator, nodes: torch.Tensor) -> None:
        self.whole, self.nodes = whole, nodes
        self.shape, self.dtype, self.device = (len(nodes), len(nodes)), whole.dtype, whole.device
        self.storage = whole.storage

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return self.whole.nbytes + self.nodes.nbytes

    def _matmul(self, block: torch.Tensor) -> torch.Tensor:
        padded = block.new_zeros(self.whole.shape[0], block.shape[1])
        padded[self.nodes] = block
        return self.whole._matmul(padded)[self.nodes]

    @isolated()
    def row_sums(self) -> torch.Tensor:
        return self.whole.row_sums()[self.nodes]

    @isolated()
    def aggregate(self, labels: torch.Tensor, n: int) -> Csr:
        of_all = labels.new_zeros(self.whole.shape[0])  # no entry has the label of an empty column
        of_all[self.nodes] = labels
        return _rows_of_nodes(self.whole.aggregate(of_all, n), self.nodes)

    @isolated()
    def to_csr(self) -> Csr:
        return _of_nodes(self.whole.to_csr(), self.nodes)

    @isolated()
    def to_dense(self) -> torch.Tensor:  # the entries that multiply
        return self.whole.to_dense()[self.nodes][:, self.nodes]


def _of_nodes(csr: Csr, nodes: torch.Tensor) -> Csr:  # (N, N) -> (N', N')
    """The rows and columns of ``nodes``, numbered anew in the memory of ``csr``; all others are empty."""
    number = torch.empty(csr.shape[1], dtype=csr.indices.dtype, device=nodes.device)
    number[nodes] = torch.arange(len(nodes), dtype=number.dtype, device=nodes.device)
    for part in row_chunks(csr.nnz, 1):
        csr.indices[part] = number[csr.indices[part].long()]
    return _rows_of_nodes(csr, nodes)._replace(shape=(len(nodes), len(nodes)))


def _rows_of_nodes(csr: Csr, nodes: torch.Tensor) -> Csr:
    """The rows of ``nodes``; all others are empty, so that the entries stay where they are."""
    indptr = torch.cat([csr.indptr[nodes], csr.indptr[-1:]])
    return csr._replace(indptr=indptr, shape=(len(nodes), csr.shape[1]))

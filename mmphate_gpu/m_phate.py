"""M_PHATE: the constructor and the attributes that users of M-PHATE have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from .estimator import MMPHATE
from .operators import to_scipy
from .params import check_number


class M_PHATE(MMPHATE):
    """Multislice PHATE of a (slice, unit, sample) tensor; a drop-in for scripts written for M-PHATE.

    Takes the parameters of `MMPHATE` and ``n_jobs``: CPU threads to use (-1 all, -2 all but one, None torch's own
    setting). All but ``n_components`` are given by name, as scripts do; by position they raise `TypeError`.
    After ``fit`` it has, beside the attributes of `MMPHATE`, those of M-PHATE: ``embedding``, ``diff_op``,
    ``diff_potential``, ``optimal_t`` and ``graph.K`` (a SciPy CSR matrix).

    Examples
    --------
    >>> import numpy as np
    >>> trace = np.random.default_rng(0).normal(size=(30, 4, 10)).cumsum(0)
    >>> op = M_PHATE(n_components=2, intraslice_knn=2, interslice_knn=25, decay=5, t="auto", gamma=0, random_state=0)
    >>> op.fit_transform(trace).shape
    (120, 2)
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        intraslice_knn: int = 2,
        interslice_knn: int = 25,
        decay: float | None = 5,
        t: int | str = "auto",
        gamma: float = 0,
        n_landmark: int | None = 4000,
        landmarks: Any = "spectral",
        normalize: bool = True,
        mds_solver: str = "smacof",
        mds_dist: str = "euclidean",
        n_pca: int | None = 100,
        n_svd: int = 100,
        thresh: float = 1e-4,
        t_max: int = 100,
        random_state: int | None = None,
        device: Any = "auto",
        storage: str = "auto",
        knn_backend: str = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
        callback: Any = None,
    ) -> None:
        # scikit-learn reads the parameters off this signature, so it cannot be *args.
        super().__init__(
            n_components,
            intraslice_knn=intraslice_knn,
            interslice_knn=interslice_knn,
            decay=decay,
            t=t,
            gamma=gamma,
            n_landmark=n_landmark,
            landmarks=landmarks,
            normalize=normalize,
            mds_solver=mds_solver,
            mds_dist=mds_dist,
            n_pca=n_pca,
            n_svd=n_svd,
            thresh=thresh,
            t_max=t_max,
            random_state=random_state,
            device=device,
            storage=storage,
            knn_backend=knn_backend,
            verbose=verbose,
            callback=callback,
        )
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any = None) -> M_PHATE:
        """See `MMPHATE.fit`."""
        before = torch.get_num_threads()
        torch.set_num_threads(_threads(self.n_jobs, before))
        try:
            super().fit(X, y)
        finally:
            torch.set_num_threads(before)
        return self

    @property
    def embedding(self) -> Any:
        self._check_fitted()
        return self.embedding_

    @property
    def diff_op(self) -> Any:
        """The landmark operator; without landmarks the diffusion operator itself."""
        self._check_fitted()
        return self.landmark_op_

    @property
    def diff_potential(self) -> Any:
        self._check_fitted()
        return self.diff_potential_

    @property
    def optimal_t(self) -> int:
        self._check_fitted()
        return self.t_

    @property
    def graph(self) -> SimpleNamespace:
        """``graph.K``, the affinity as a SciPy CSR matrix."""
        self._check_fitted()
        return SimpleNamespace(K=to_scipy(self.affinity_))


def _threads(n_jobs: int | None, present: int) -> int:
    if n_jobs is None:
        return present
    check_number("n_jobs", n_jobs, integer=True)
    import psutil

    return n_jobs if n_jobs > 0 else max(1, (psutil.cpu_count() or 1) + 1 + n_jobs)

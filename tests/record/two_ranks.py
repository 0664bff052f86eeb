"""Two processes train one model together, first without a recorder, and then the first of them records it alone.

Arguments: rank, folder for the rendezvous and the results.
"""

from __future__ import annotations

import contextlib
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmphate_gpu import Recorder


class Net(nn.Module):
    """Dropout, running statistics that ranks send to one another in each forward, and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.rnn = nn.BatchNorm1d(3), nn.GRU(3, 4, batch_first=True)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.rnn(self.norm(x.transpose(1, 2)).transpose(1, 2))[0]))


def trained(rank: int, records: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = DistributedDataParallel(Net())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(rank)
    recorder = Recorder(model, ["rnn", "head"], torch.ones(2, 5, 3), batch_first=True) if records else None
    with recorder or contextlib.nullcontext():
        for epoch in range(3):
            optimizer.zero_grad()
            model(torch.randn(6, 5, 3)).square().mean().backward()
            optimizer.step()
            if recorder is not None:
                recorder.snapshot(epoch)
    return {**model.state_dict(), "random": torch.get_rng_state()}


def main(rank: int, folder: Path) -> None:
    store = torch.distributed.FileStore(str(folder / "store"), 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    results = {"plain": trained(rank, False), "record": trained(rank, rank == 0)}
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

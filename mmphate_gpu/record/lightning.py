"""`LightningRecorder`: a callback of Lightning that records while a trainer fits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..runtime.optional import available, require
from .callbacks import RecorderCallback

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = object  # the class of the framework joins when the first instance is made

# Strategies in which a forward needs all processes, so that rank 0 alone would wait without end.
_SHARDED = ("FSDP", "DeepSpeed", "ModelParallel")


class LightningRecorder(RecorderCallback, Callback):
    """Records the states of a `LightningModule` while a `Trainer` fits it.

    The recorder opens when the fit begins, and closes when it ends or fails. The first snapshot is taken before the
    first step. The process of global rank 0 alone records, on the plain module, so it works under DDP and
    ``torch.compile``. The training gets the same bits as without it. The same callback may record a later fit; its
    recording goes on if the module is the same.

    Parameters
    ----------
    layers, probe
        As for `Recorder`. Names of layers are relative to the module. Tensors of the probe are moved to the device of
        the module; those of a loader are not.
    when : {"epoch", "validation", "step"}
        "epoch" records at the end of every epoch of training, under the number of epochs that have ended, so the
        snapshot before the training is 0. "validation" and "step" record at the end of every validation and of every
        step of the optimizer, under the trainer's ``global_step``.
    submodule : str
        Dotted name of the part of the module that is run on the probe; by default its own ``forward`` is.
    **options
        As for `Recorder`: ``path``, ``labels``, ``epochs=every(500)`` and so on. ``epochs`` applies to what ``when``
        counts.

    Attributes
    ----------
    recorder : Recorder or None
        None before the first fit, and in processes of another rank.

    Notes
    -----
    Metrics are the numbers in the trainer's ``callback_metrics``. Characters that an identifier cannot have become
    "_", as in ``val_loss`` for "val/loss", and infinity becomes NaN.

    Raises
    ------
    InputError
        Lightning is not installed (``pip install "mmphate-gpu[lightning]"``); an unknown ``when``; when a fit begins, a
        strategy that shards the model (FSDP, DeepSpeed), and what `Recorder` refuses.

    Examples
    --------
    ::

        callback = LightningRecorder("rnn", probe)
        Trainer(max_epochs=20, callbacks=[callback]).fit(module, loader)
        trace = callback.trace()
    """

    WHEN = ("epoch", "validation", "step")

    def __init__(self, layers: Any, probe: Any, *, when: str = "epoch", submodule: str = "", **options: Any) -> None:
        super().__init__(layers, probe, when=when, **options)
        self._submodule = submodule

    @classmethod
    def _framework(cls) -> tuple[type, ...]:
        """Lightning has two names. Those that the program has imported count, so that either trainer takes it."""
        names = [name for name in ("lightning.pytorch", "pytorch_lightning") if name in sys.modules]
        if not names:
            names = ["lightning.pytorch" if available("lightning") else "pytorch_lightning"]
        purpose = "LightningRecorder"
        return tuple(require(name, purpose=purpose, extra="lightning").Callback for name in names)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the recorder."""
        strategy = type(trainer.strategy).__name__
        if strategy.startswith(_SHARDED):
            raise InputError(
                f"the trainer's strategy is {strategy}, which shards the model; accepted: DDP, or one process"
            )
        if trainer.is_global_zero:
            layers, probe = self._arguments
            # Not `Strategy.batch_to_device`, which calls the hooks of the module, such as random augmentations.
            self._arguments = layers, _moved(probe, pl_module.device)
            self._open(pl_module.get_submodule(self._submodule))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the module before its first step."""
        self._snapshot(trainer.current_epoch if self._when == "epoch" else trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record a snapshot if ``when`` and the schedule ask for one."""
        if self._when == "epoch":
            self._snapshot(trainer.current_epoch + 1, lambda: trainer.callback_metrics)

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Record a snapshot if ``when`` and the schedule ask for one."""
        if self._when == "step":
            self._snapshot(trainer.global_step, lambda: trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record a snapshot if ``when`` and the schedule ask for one."""
        if self._when == "validation" and not trainer.sanity_checking:
            self._snapshot(trainer.global_step, lambda: trainer.callback_metrics)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the recorder."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the recorder, so that the snapshots so far stay."""
        self._close()


def _moved(probe: Any, device: Any) -> Any:
    if hasattr(probe, "to"):
        return probe.to(device)
    if isinstance(probe, Mapping):
        return {name: _moved(value, device) for name, value in probe.items()}
    return type(probe)(_moved(value, device) for value in probe) if type(probe) in (tuple, list) else probe

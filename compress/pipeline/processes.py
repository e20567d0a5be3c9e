"""The processes that torchrun started, for work that one of them does while the others wait."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch.distributed as distributed

from compress.distributed import launch
from compress.errors import BadInput

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # the others wait as long as the first works; torchrun ends them if it dies


class Processes:
    """This process among those that torchrun started, or alone."""

    def __init__(self) -> None:
        world = int(os.environ.get("WORLD_SIZE", "1"))
        self.leads = int(os.environ.get("RANK", "0")) == 0
        self._group = None
        if world > 1:
            launch("float32")  # the process group that every training run in this process then finds and uses
            self._group = distributed.new_group(backend="gloo", timeout=PATIENCE)

    def first(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first process, in all of them; the others wait for it and do nothing.

        Raises:
            BadInput: from `work`, in the first process; the others end with the same exit code and say nothing.
        """
        if self._group is None:
            return work()
        answer, refused = None, None
        if self.leads:
            try:
                answer = work()
            except BadInput as error:
                refused = error
        told = [answer, refused is not None]
        distributed.broadcast_object_list(told, src=0, group=self._group)
        if refused:
            raise refused
        if told[1]:
            raise SystemExit(2)
        return told[0]  # type: ignore[return-value]

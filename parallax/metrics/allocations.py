import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

BACKWARD = "backward"
"""The phase of what autograd does, recomputed forwards included, whatever phase it is called from."""


@dataclass
class _Memory:
    """The memory of one tensor storage."""

    kind: str
    bytes: int = 0


class AllocationLog(TorchDispatchMode):
    """Which memory tensor operations take and give back, in what phase and for what purpose.

    Bytes are those of tensors: what an allocator rounds up or keeps is not in it. Nothing needs to exist, so
    fake tensors are counted as real ones.

    Args:
        purposes: operation, such as "aten.mm.default" -> the kind of all memory that it reads or writes.
    """

    def __init__(self, purposes: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._purposes = purposes or {}
        self._known = WeakIdKeyDictionary()
        self._events: list[tuple[_Memory, int, str]] = []
        self._phase = self._kind = ""
        self._resize = torch.UntypedStorage.resize_
        self._is_paused = False

    @contextmanager
    def phase(self, name: str, kind: str) -> Iterator[None]:
        """Memory taken inside belongs to a phase, and is of a kind unless `tag` says more."""
        before, (self._phase, self._kind) = (self._phase, self._kind), (name, kind)
        try:
            yield
        finally:
            self._phase, self._kind = before

    def set_kind(self, kind: str) -> str:
        """Changes the kind of memory taken from now on in this phase; the kind before."""
        before, self._kind = self._kind, kind
        return before

    def tag(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Says what memory is for, back to the moment when it was taken."""
        for tensor in tensors:
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            self._find(local).kind = kind

    def peaks(self, permanent: str) -> dict[str, dict[str, int]]:
        """Phase -> kind -> bytes, at the moment when a phase holds most.

        Args:
            permanent: a kind that is held from the beginning, although its first use takes it later: what
                an optimizer keeps is there from the second step on.
        """
        levels: dict[str, int] = defaultdict(int)
        levels[permanent] = sum(delta for memory, delta, _ in self._events if memory.kind == permanent)
        peaks: dict[str, dict[str, int]] = {}
        for memory, delta, phase in self._events:
            if memory.kind != permanent:
                levels[memory.kind] += delta
            if sum(levels.values()) > sum(peaks.get(phase, {}).values()):
                peaks[phase] = dict(levels)
        return peaks

    @contextmanager
    def _paused(self) -> Iterator[None]:
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def __enter__(self) -> Self:
        log = self

        def resize(storage: torch.UntypedStorage, size: int) -> None:
            log._resize(storage, size)
            if storage in log._known:
                log._change(log._known[storage], storage.nbytes())

        # FSDP2 frees and fills gathered weights by resizing their storages, which is no operation.
        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign,assignment]
        # DTensor works out shapes with tensors of the unsharded size, which a run never has.
        ShardingPropagator._fake_mode_lock = _Repeated(self._paused)  # type: ignore[assignment]
        super().__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        ShardingPropagator._fake_mode_lock = nullcontext()
        super().__exit__(exc_type, exc_val, exc_tb)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if DTensor in types:
            return NotImplemented  # it comes back with the local tensors
        made = func(*args, **(kwargs or {}))
        if not self._is_paused:
            for tensor in tree_leaves(made):
                # Where meta tensors are fake, their storages claim to have a size.
                if isinstance(tensor, Tensor) and not tensor.is_meta:
                    self._find(tensor)
            self._note_purpose(func, made, args, kwargs or {})
        return made

    def _note_purpose(self, func: Any, made: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        kind = self._purposes.get(str(func))
        if kind is not None:
            self.tag([t for t in tree_leaves((made, args, kwargs)) if isinstance(t, Tensor)], kind)

    def _find(self, tensor: Tensor) -> _Memory:
        storage = tensor.untyped_storage()
        memory = self._known.get(storage)
        if memory is None:
            memory = self._known[storage] = _Memory(self._kind)
            weakref.finalize(storage, partial(self._change, memory, 0)).atexit = False
        self._change(memory, storage.nbytes())
        found: _Memory = memory
        return found

    def _change(self, memory: _Memory, size: int) -> None:
        if size != memory.bytes:
            phase = BACKWARD if torch._C._current_graph_task_id() != -1 else self._phase
            self._events.append((memory, size - memory.bytes, phase))
            memory.bytes = size


class _Repeated:
    """A context manager that can be entered again and again."""

    def __init__(self, build: Callable[[], AbstractContextManager[None]]) -> None:
        self._build = build

    def __enter__(self) -> None:
        self._current = self._build()
        self._current.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._current.__exit__(*error)

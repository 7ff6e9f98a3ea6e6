import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from parallax.config.layout import Layout
from parallax.parallel.mesh import Mesh, build_mesh


class TrackGroups:
    """Our mesh in DeepSpeed's words (its `mpu`): the track axis is its model-parallel group.

    Without it, it would take ranks that hold different tracks for copies of one model, and average them.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def get_data_parallel_group(self) -> dist.ProcessGroup:
        """The ranks that hold the same tracks."""
        return self._mesh.dp

    def get_data_parallel_group_ranks(self) -> list[int]:
        """Their numbers in the world."""
        return dist.get_process_group_ranks(self._mesh.dp)

    def get_data_parallel_rank(self) -> int:
        """Of this rank in its group."""
        return self._mesh.dp_rank

    def get_data_parallel_world_size(self) -> int:
        """How many they are."""
        return self._mesh.layout.dp

    def get_model_parallel_group(self) -> dist.ProcessGroup:
        """The ranks that share one model's tracks."""
        return self._mesh.track

    def get_model_parallel_rank(self) -> int:
        """Of this rank in its group."""
        return self._mesh.track_rank

    def get_model_parallel_world_size(self) -> int:
        """How many they are."""
        return self._mesh.layout.track

    get_tensor_model_parallel_group = get_model_parallel_group
    get_tensor_model_parallel_rank = get_model_parallel_rank
    get_tensor_model_parallel_world_size = get_model_parallel_world_size

    def get_tensor_model_parallel_src_rank(self) -> int:
        """The first of them, in the world."""
        return dist.get_process_group_ranks(self._mesh.track)[0]

    def get_pipeline_model_parallel_rank(self) -> int:
        """There is no pipeline."""
        return 0

    def get_pipeline_model_parallel_world_size(self) -> int:
        """There is no pipeline."""
        return 1


def mesh_of_one(device: torch.device) -> Mesh:
    """The mesh of a process that is alone: DeepSpeed wants a process group there too."""
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    return build_mesh(Layout(track=1, dp_replicate=1, dp_shard=1), device)

"""DeepSpeed behind the engine's protocol: ZeRO over dp, the track axis as its model-parallel group."""

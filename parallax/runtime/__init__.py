"""The machine a run stands on: ranks, device, seeds, durable files, and who owns which parameter."""

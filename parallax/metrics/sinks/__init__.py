"""Trackers that copy the journal; they register in `parallax.metrics.sinks.registry`."""

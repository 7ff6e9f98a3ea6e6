"""What faults and signals do to a run of several processes: driven for real, and measured."""

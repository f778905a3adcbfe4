"""Where the work of a run is done: in this process, or in many on a cluster that has an engine."""

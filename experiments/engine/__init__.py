"""Trains the runs of a sweep in worker processes: on the devices of this machine, or on a Ray cluster."""

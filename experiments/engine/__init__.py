"""Trains the runs of a sweep: on the devices of this machine, or on a Ray cluster."""

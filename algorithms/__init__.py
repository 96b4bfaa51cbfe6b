"""Distributed SGD methods, one file each, written against `algorithms.worker` alone."""

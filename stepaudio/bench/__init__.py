"""Benchmarks: what the service reaches, measured on recorded speech."""

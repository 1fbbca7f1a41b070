"""Ears: voice activity, end of turn, recognition."""

"""Ears that keep how a thing was said: speech as Step-Audio's two streams of codes.

Needs the extra ``stepaudio[step]`` (torch). ``dual.DualTokenizer`` is the whole; ``linguistic`` and
``semantic`` are its halves, ``features`` what they listen to.
"""

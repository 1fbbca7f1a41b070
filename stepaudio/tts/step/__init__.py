"""The voice of Step-Audio-TTS-3B: prompt, code language model, flow matching, vocoder, speaker embedding.

Needs the extra ``stepaudio[step]`` (torch). The networks are weight-compatible with the public checkpoints;
tests/parity_tts.py proves it layer by layer against the reference at small sizes.
"""

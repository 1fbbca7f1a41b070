"""Voice: text made speakable, pronounced, and spoken."""

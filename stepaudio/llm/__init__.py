"""Mind: language models behind one protocol."""

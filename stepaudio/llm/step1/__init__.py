"""Step-1, the language model of Step-Audio-Chat (130B) and Step-Audio-TTS-3B.

``folder`` looks a checkpoint over, ``network`` is the network (Hugging Face), ``tokenizer`` its words and
``chat`` its talks; ``vllm_plugin`` lets vLLM serve it. Needs the extra ``stepaudio[step]``; ``folder`` and
``chat`` need nothing.
"""

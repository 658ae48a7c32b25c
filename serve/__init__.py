"""The composition root: Ray Serve applications, vLLM variants, quantization, the command line."""

"""The composition root: command line, supervisor, Ray Serve applications, quantization."""

"""From a full-precision folder to a quantized one, and the manifest that says what it is."""

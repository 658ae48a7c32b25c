"""The one registry of everything that Penumbra tells monitoring systems; read `registry` first."""

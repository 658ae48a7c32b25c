"""`make bench-gateway`: the gateway beside nginx, LiteLLM and the Rust routers, in one run."""

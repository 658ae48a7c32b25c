# Targets are the CI steps; `make help` lists them.
SHELL := /bin/bash
PY := .venv/bin/python

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

"""Endpoints beside the answers: health, metrics, usage, tokens, links, the OpenAPI document."""

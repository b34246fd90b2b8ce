"""Endpoints beside the answers: embeddings, health, metrics, usage, tokens, links, OpenAPI.

`routes` puts the routes of all endpoints together, which `streamtok.app` hands to the Api.
"""

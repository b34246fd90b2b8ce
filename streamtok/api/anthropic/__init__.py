"""The Messages API of Anthropic. `streamtok.app` adds its routes."""

"""The Responses API of OpenAI. `streamtok.app` adds its routes."""

"""Who may use the server, and how much: API keys, rate limits, and turns at long work.

Plugged in by `streamtok.app`: keys into the Api, limits into the Meter, lanes into the Services.
"""

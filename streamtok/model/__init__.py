"""The model in numpy: no asyncio, no threads, no HTTP. Read `reference` first, then `decoder`."""

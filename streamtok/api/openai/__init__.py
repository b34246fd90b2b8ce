"""The Chat Completions and Completions APIs: requests, answers, chunks."""

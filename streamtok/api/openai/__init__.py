"""The Chat Completions, Completions and Embeddings APIs: requests, answers, chunks."""

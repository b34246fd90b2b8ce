"""What a sequence may ask for beyond its tokens: grammars, drafts, log-probabilities, embeddings.

None of it runs unless it is asked for. It plugs into the scheduler, the sampler and the core.
"""

"""From token ids to token ids: what runs when, on which rows, and what is sampled from them."""

"""Between text and token ids: tokenizer, detokeniser, stop strings, chat template. All pure."""

"""Scores of captions and of attention: BLEU, METEOR, ROUGE-L, CIDEr, SPICE, attention correctness."""

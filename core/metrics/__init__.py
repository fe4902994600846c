"""Scores of captions and of attention: BLEU, METEOR, ROUGE-L, CIDEr, SPICE, attention correctness.

`scorer.Scorer` scores captions; `java_tools` runs the tokenizer and METEOR for it.
`significance` says whether two sets of runs differ. `attention_correctness` asks whether the model
looks at what it names, and `object_names` finds those names in a caption.
"""

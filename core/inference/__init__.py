"""From a RUN DIR to captions: of photos, of a split with its scores, over HTTP, by a SavedModel.

`captioner.Captioner` (also `core.Captioner`) holds a run open; `evaluation` is evaluate.py, with
`faithfulness`, which tests its attention, and `score_comparison`, its `--compare-scores`; `server`
is `caption.py --serve`, `saved_model` is `python -m core export`.
"""

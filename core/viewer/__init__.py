"""Pictures and pages that show captions and attention.

`attention_pictures` draws one caption over its photo, `gallery` writes the page of a split out of
the files in static/, and `caption_record` is the JSON form of a caption.
"""

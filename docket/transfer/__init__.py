"""Pushing and pulling images: `push`; `resolve`, `plan`, `metainfo`, `fetch`, `load` and `pull`."""

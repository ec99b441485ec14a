"""Masks in files and folders: one module a format, the registry of them, and the verbs that read and write.

CSV           handbone, kaggle, severstal, … (`dialects.PRESETS`), or a `Dialect` of the user's own
folders       png, label-map, labelme, npy
files         coco, npz, npy
"""

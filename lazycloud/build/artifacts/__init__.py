"""Artifacts: what a stage left, packed into one signed file, and taken from one on another machine.

manifest     what is inside: every path with its size and hash, how it was made; and what may not be
envelope     the file: a signature of the manifest, the manifest, the body
relocation   texts that name the folder they lie in, for another folder
pack         a folder -> a file; unpack: a file -> a folder, complete or not there at all
job          packing and taking in a process of its own
subjects     which folders of a recipe can be had so; place: the settings
depot        what stages and the API speak to

Where they are kept, and who signs them, is `lazycloud.blobs`. docs/artifacts.md describes the file field by field.
"""

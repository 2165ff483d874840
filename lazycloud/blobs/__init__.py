"""Where files are kept that other servers, or this one on another day, take back: artifacts and backups.

store         the seam, and what each kind of store keeps; folder_store: in a folder
keys          who signs what is kept, and whose signature counts
"""

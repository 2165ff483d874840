"""versionbase: a document database in which every commit's version is a branch, and a snapshot is a number.

nodes   what a tree is made of: immutable pages of keys and values, encoded for storage
tree    a persistent B+tree: changes make new nodes along their path and share the rest; scans and differences
"""

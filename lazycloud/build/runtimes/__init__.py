"""What the files of a commit say about Python, Node and static sites. Pure: nothing is run or imported."""

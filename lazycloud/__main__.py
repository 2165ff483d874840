from lazycloud.cli import main

main()

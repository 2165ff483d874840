"""`python -m lazycloud.control`: what `lazycloud up` starts as the control process."""

from lazycloud.control.process import main

main()

"""What a machine lacks for a server with these settings: the lines of `lazycloud doctor`.

Each module looks at one thing and gives `Finding`s: `tools` at programs, `machine` at what the kernel and the disk
give, `network` at addresses and names, `databases` at servers of data, `safety` at who could do harm. All together
it takes less than a second, where name servers answer.
"""

from lazycloud.doctor.examination import examine

__all__ = ["examine"]

"""What reads and writes the contents of versions for people: compares, sums up, exports and imports.

An app's databases are hostile input, so nothing of this happens in control: each task is a process of its own
(`python -m lazycloud.data.tools`), behind walls where there are some, without network, with limits of time and
memory. Tasks work on folders as a version's ({database.sqlite, files/…}) that nobody else uses: `Versions.unfolded`
yields such.

tasks        what control calls: `difference`, `summary`, `schema_of`, `export`, `import_`, `load`
process      starts one for a task, behind walls, and ends it
__main__     the process: reads an order, does it, writes what came of it
shapes       what is told, ready for JSON
contents     which databases and files a version's folder holds
database     an SQLite database opened by who does not trust it
dumps        a dump of Postgres, as an SQLite database
values       a row's values as JSON
sql          names and statements as text
rows         the rows of a table in two databases, compared in one pass
comparing    `difference`
summing      `summary`
exporting    a version as one SQLite file, as SQL, or as a tar
importing    a version from one of these
dump         a database as SQL
script       SQL that somebody sent, run
statements   SQL as it is written for psql, apart
loading      the same, run in a database of Postgres
"""

from lazycloud.data.tools.shapes import DatabaseDifference, Difference, Schema, Summary, schema_difference
from lazycloud.data.tools.tasks import (
    Exported,
    Imported,
    difference,
    export,
    import_,
    load,
    schema_of,
    summary,
)

__all__ = [
    "DatabaseDifference",
    "Difference",
    "Exported",
    "Imported",
    "Schema",
    "Summary",
    "difference",
    "export",
    "import_",
    "load",
    "schema_difference",
    "schema_of",
    "summary",
]

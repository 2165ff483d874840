"""Joins the stylesheets named in styles.txt into one, so that a page asks for one file."""

from pathlib import Path

STATIC = Path("static")
OUT = STATIC / "all.css"

parts = Path("styles.txt").read_text().split()
sheets = []
for part in parts:
    sheet = (STATIC / part).read_text()
    print(f"{part}: {len(sheet)} characters", flush=True)
    sheets.append(sheet)
OUT.write_text("\n".join(sheets))
print(f"Wrote {OUT} out of {len(parts)} stylesheets.")

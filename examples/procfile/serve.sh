# Notes down its start, and serves the folder of its data.
set -eu
echo "$LAZYCLOUD_VERSION" >> "$DATA_DIR/starts.txt"
cat > "$DATA_DIR/index.html" <<PAGE
<!doctype html>
<title>Shell</title>
<h1>Made by a shell</h1>
<p>Commit $COMMIT_ID, with the data of $LAZYCLOUD_VERSION.</p>
PAGE
exec python3 -m http.server "$PORT" --bind "$HOST" --directory "$DATA_DIR"

// Notes by Node's own node:sqlite, which Node 20 does not have: there a package does the same, with SQLite inside.

const http = require("node:http");
const { DatabaseSync } = parseInt(process.versions.node) < 24 ? require("@photostructure/sqlite") : require("node:sqlite");

const database = new DatabaseSync(process.env.DATABASE_URL.replace("sqlite:///", ""));
database.exec("PRAGMA busy_timeout = 20000; CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)");

const all = (query) => database.prepare(query).all();

http.createServer(async (request, response) => {
  if (request.method === "POST") {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    database.prepare("INSERT INTO notes (text) VALUES (?)").run(Buffer.concat(pieces).toString());
    response.writeHead(201).end();
  } else {
    const notes = all("SELECT text FROM notes ORDER BY id").map(({ text }) => text);
    response.end(JSON.stringify({ notes, columns: all("PRAGMA table_info(notes)").map(({ name }) => name) }));
  }
}).listen(process.env.PORT, process.env.HOST);

// A poll: Express, with its votes in a file.

const fs = require("node:fs");
const path = require("node:path");
const express = require("express");

const VOTES = path.join(process.env.DATA_DIR, "votes.json");
const DRINKS = ["tea", "coffee", "water"];

const app = express();
app.set("trust proxy", "loopback");
app.use(express.urlencoded({ extended: false }));

function votes() {
  return fs.existsSync(VOTES) ? JSON.parse(fs.readFileSync(VOTES, "utf8")) : {};
}

app.get("/", (request, response) => {
  const counted = votes();
  const buttons = DRINKS.map((drink) => `<button name="drink" value="${drink}">${drink}: ${counted[drink] ?? 0}</button>`);
  response.send(`<!doctype html>
<title>Poll</title>
<h1>What do you drink?</h1>
<form method="post">${buttons.join(" ")}</form>
<footer>${request.protocol}://${request.host}</footer>
`);
});

app.post("/", (request, response) => {
  const { drink } = request.body;
  if (!DRINKS.includes(drink)) return response.status(400).send("There is no such drink.");
  const counted = votes();
  counted[drink] = (counted[drink] ?? 0) + 1;
  fs.writeFileSync(VOTES, JSON.stringify(counted));
  response.redirect(303, "/");
});

app.listen(process.env.PORT, process.env.HOST);

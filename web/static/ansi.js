// A terminal's output as lines of styled text: SGR colours (16, 256, true), carriage return, backspace and
// erase-in-line as a terminal would; every other escape is dropped. Nothing is ever taken as HTML.

const LONGEST = 4000; // characters kept of one line; a minified bundle in a log must not freeze the page
const HELD = 256; // characters of an unfinished escape that wait for the next chunk
const ESCAPE = new RegExp([
  "\\x1b\\[([0-?]*)[ -/]*([@-~])", // CSI: parameters, final letter
  "\\x1b\\][^\\x07\\x1b]*(?:\\x07|\\x1b\\\\)", // OSC: titles, links
  "\\x1b[PX^_][^\\x1b]*\\x1b\\\\", // device strings
  "\\x1b[ -/]*[0-OQ-WYZ\\\\`-~]", // two-letter escapes
].join("|"), "y");
const STEPS = [0, 95, 135, 175, 215, 255]; // the 6×6×6 cube of 256 colours

/** A colour of the 256: a name of the page's palette for the first 16, which suits both themes. */
function colour256(n) {
  if (n < 16) return `var(--ansi-${n % 8})`;
  if (n > 231) return `rgb(${Array(3).fill(8 + (n - 232) * 10)})`;
  return `rgb(${[36, 6, 1].map((size) => STEPS[Math.floor((n - 16) / size) % 6])})`;
}

/** Read an extended colour (`5;n` or `2;r;g;b`) from the front of `codes`. */
function extended(codes) {
  const mode = codes.shift();
  if (mode === 5) return colour256(Math.min(255, codes.shift() || 0));
  if (mode === 2) return `rgb(${codes.splice(0, 3).map((n) => Math.min(255, n || 0))})`;
  return null;
}

/** The style after an SGR sequence; styles are frozen facts, shared by the cells that wear them. */
function restyle(style, parameters) {
  const codes = parameters.replace(/([34]8):2:\d*:(\d+:\d+:\d+)/g, "$1:2:$2").split(/[;:]/).map(Number);
  let next = { ...style };
  while (codes.length) {
    const code = codes.shift();
    const tens = Math.floor(code / 10), unit = code % 10;
    if (code === 0) next = {};
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.underline = true;
    else if (code === 7) next.inverse = true;
    else if (code === 22) next.bold = next.dim = false;
    else if (code === 23) next.italic = false;
    else if (code === 24) next.underline = false;
    else if (code === 27) next.inverse = false;
    else if (code === 38) next.front = extended(codes);
    else if (code === 48) next.back = extended(codes);
    else if (code === 39) next.front = null;
    else if (code === 49) next.back = null;
    else if ((tens === 3 || tens === 9) && unit < 8) next.front = colour256(unit);
    else if ((tens === 4 || tens === 10) && unit < 8) next.back = colour256(unit);
  }
  return Object.freeze(next);
}

/** One stream of output; `write` takes chunks cut anywhere, escapes too. */
class Terminal {
  constructor() {
    this.style = Object.freeze({});
    this.held = "";
    this.cells = [];
    this.column = 0;
  }

  /** The lines that ended with this chunk (`done`) and the one still open, each an array of [character, style]. */
  write(chunk) {
    const text = this.held + chunk;
    const done = [];
    this.held = "";
    let i = 0;
    while (i < text.length) {
      if (text[i] === "\x1b") {
        const length = this.escape(text, i);
        if (!length) break;
        i += length;
        continue;
      }
      const character = String.fromCodePoint(text.codePointAt(i));
      i += character.length;
      if (character === "\n") {
        done.push(this.cells);
        this.cells = [];
        this.column = 0;
      } else this.put(character);
    }
    return { done, open: this.cells };
  }

  put(character) {
    if (character === "\r") this.column = 0;
    else if (character === "\b") this.column = Math.max(0, this.column - 1);
    else if (character >= " " && character !== "\x7f" || character === "\t") {
      if (this.column < LONGEST) this.cells[this.column++] = [character, this.style];
    }
  }

  /** Take the escape at `i`; its length, or 0 when its end is still to come. */
  escape(text, i) {
    ESCAPE.lastIndex = i;
    const match = ESCAPE.exec(text);
    if (!match) {
      if (text.length - i > HELD) return 1;
      this.held = text.slice(i);
      return 0;
    }
    const [all, parameters, letter] = match;
    if (letter === "m" && !/[<-?]/.test(parameters)) this.style = restyle(this.style, parameters);
    if (letter === "K") this.erase(parameters);
    return all.length;
  }

  erase(parameters) {
    if (parameters === "2") this.cells.fill([" ", this.style]);
    else if (parameters !== "1") this.cells.length = Math.min(this.cells.length, this.column);
    else this.cells.fill([" ", this.style], 0, this.column + 1);
  }
}

function dress(span, style) {
  const front = style.inverse ? style.back : style.front;
  const back = style.inverse ? style.front || "var(--ink)" : style.back;
  for (const name of ["bold", "dim", "italic", "underline"]) if (style[name]) span.classList.add(name);
  if (front) {
    span.classList.add(front.startsWith("rgb") ? "tone" : "named");
    span.style.setProperty("--front", front);
  }
  if (back) {
    span.classList.add("back");
    span.style.setProperty("--back", back);
  }
}

/** Nodes for one line: a text node where nothing is styled, spans elsewhere. */
function lineNodes(cells) {
  const nodes = [];
  for (let i = 0; i < cells.length;) {
    const style = cells[i]?.[1];
    let text = "";
    for (; i < cells.length && cells[i]?.[1] === style; i++) text += cells[i]?.[0] ?? " ";
    if (!style || !Object.keys(style).length) nodes.push(document.createTextNode(text));
    else {
      const span = document.createElement("span");
      dress(span, style);
      span.textContent = text;
      nodes.push(span);
    }
  }
  return nodes;
}

// The client of versionbase for JavaScript: Node 20 and newer, and whatever else has WebSocket.
//
//     import { connect } from "./versionbase.mjs"
//
//     const db = await connect()                     // VERSIONBASE_URL says where, which version, and by which key
//     const posts = db.collection("posts")
//     const key = await posts.insert({ title: "hello", at: new Date() })
//     for await (const [key, post] of posts.find({ filter: "doc.at > since", params: { since }, order: "at desc" }))
//       console.log(key, post.title)
//     await db.close()
//
// This file stands alone. Node before 22 has no WebSocket, and needs the package `ws`. What it speaks is in
// docs/versionbase-protocol.md of lazycloud, in JSON.
//
// Dates are Date (with `microseconds`, 0 to 999, if there are any), bytes Uint8Array, decimals Decimal; integers are
// numbers, and BigInt beyond 2**53. A number that is whole is sent as an integer.

/**
 * @typedef {null | boolean | number | bigint | string | Date | Uint8Array | Decimal | Value[] | {[name: string]: Value}} Value
 * @typedef {{[name: string]: Value}} Document
 * @typedef {{timeout?: number, signal?: AbortSignal}} Limits  `timeout` in seconds
 * @typedef {{filter?: string, params?: Document}} Condition
 * @typedef {Condition & {map?: string, order?: string, limit?: number, skip?: number} & Limits} Query
 * @typedef {{id: string | number, name: string | null, sequence: number, at: Date}} Snapshot
 * @typedef {Snapshot | string | number} SnapshotLike  a snapshot, its name or its id
 * @typedef {{sequence: number, at: Date, collection: string, key: string, old: Document | null, new: Document | null}} Change
 * @typedef {{sequence: number, at: Date, document: Document | null}} Past
 * @typedef {{collection: string, key: string, old: Document | null, new: Document | null}} Difference
 * @typedef {{name: string, path: string, unique: boolean, state: string}} Index
 * @typedef {{name: string, documents: number, indexes: Index[], schema: Document | null}} Described
 * @typedef {{name: string, source: string | null, sequence: number, made: Date, changed: Date}} Version
 */

const CLIENT = "javascript/0.1.0"
const SUBPROTOCOL = "versionbase.1.json"
const FRAME = 17 * 2 ** 20 // bytes of one frame, at most
const DEPTH = 100 // of lists and objects in each other
const REQUESTS = 64 // under way on one connection, unless the server says otherwise
const STREAMS = 256 // open on one connection, beside them
const TRANSACTIONS = 32 // open on one connection
const WINDOW = 4 // parts of a stream that the server may send ahead
const TIMEOUT = 60 // seconds, for a request
const CONNECTING = 10 // seconds, to connect; and of any one try to
const LONGEST = 600 // seconds that the server gives any request; what is read bit by bit may take that long
const GRACE = 1 // seconds more until the client gives up by itself
const REPLACED = 1012 // closes a connection on which all that was begun has been answered
const TRIES = 5 // connections that one read may lose
const PORTION = 2 ** 20 // characters of one request of a load, about

// What goes wrong.

/** The base of all. `kind` is the protocol's word, `sentence` what happened, `hint` what to do (may be empty). */
export class VersionbaseError extends Error {
  static kind = "error"

  /** @param {string} sentence @param {string} hint @param {ErrorOptions} [options] */
  constructor(sentence, hint = "", options) {
    super(`${sentence} ${hint}`.trimEnd(), options)
    this.name = new.target.name
    this.kind = new.target.kind
    this.sentence = sentence
    this.hint = hint
  }
}

/** A document, an expression or a name that cannot be. */
export class BadInput extends VersionbaseError {
  static kind = "bad-input"
}
/** A document that the schema of its collection refuses. */
export class Invalid extends BadInput {
  static kind = "invalid"
}
/** A document or a frame beyond its limit. */
export class TooLarge extends BadInput {
  static kind = "too-large"
}
/** No such key, snapshot, index, version. */
export class NotFound extends VersionbaseError {
  static kind = "not-found"
}
/** A version, a snapshot or a sequence that is there no more. */
export class Gone extends NotFound {
  static kind = "gone"
}
/** A key that is there already, or a value that a unique index has. */
export class Exists extends VersionbaseError {
  static kind = "exists"
}
/** What a transaction read has changed since: nothing was done, and it may be tried again (`db.run` does). */
export class Conflict extends VersionbaseError {
  static kind = "conflict"
}
/** A wrong key, or one that may not do this. */
export class Denied extends VersionbaseError {
  static kind = "denied"
}
/** Not done by its deadline. Nothing changed, unless `unknown`: the server did not say that it gave up. */
export class TimedOut extends VersionbaseError {
  static kind = "deadline"
  unknown = false
}
/** Given up, at the client's wish. */
export class Cancelled extends VersionbaseError {
  static kind = "cancelled"
}
/** More at once than may be. */
export class Busy extends VersionbaseError {
  static kind = "busy"
}
/** The server's disk takes no more. */
export class Full extends VersionbaseError {
  static kind = "full"
}
/** A write where one may only read. */
export class ReadOnly extends VersionbaseError {
  static kind = "read-only"
}
/** The server's own fault; its log says more. */
export class Failed extends VersionbaseError {
  static kind = "failed"
}
/** Nobody said where the server is. */
export class NotConfigured extends VersionbaseError {
  static kind = "not-configured"
}
/** There is no connection. `unknown`: the request was on its way, and nobody knows whether it was done. */
export class ConnectionLost extends VersionbaseError {
  static kind = "connection-lost"

  /** @param {string} sentence @param {string} hint @param {boolean} unknown @param {ErrorOptions} [options] */
  constructor(sentence, hint = "", unknown = false, options) {
    super(sentence, hint, options)
    this.unknown = unknown
  }
}

const KINDS = new Map(
  [
    BadInput, Invalid, TooLarge, NotFound, Gone, Exists, Conflict, Denied, TimedOut, Cancelled, Busy, Full, ReadOnly,
    Failed,
  ].map((known) => [known.kind, known]),
)

/** The exception for an answer's `error`; one of a kind that is not known yet keeps its word. @param {any} error */
function problem(error) {
  const made = new (KINDS.get(error.kind) ?? VersionbaseError)(String(error.sentence ?? ""), String(error.hint ?? ""))
  made.kind = error.kind
  return made
}

// Values on their way. Whatever would not come back as it was is refused here, with the path to it.

/** Digits as they were written: `new Decimal("1.10")`. It does not calculate. */
export class Decimal {
  /** @param {string} text */
  constructor(text) {
    if (!/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text)) throw new BadInput(`${JSON.stringify(text)} is no decimal.`)
    this.text = text
  }
  toString() {
    return this.text
  }
  toJSON() {
    return this.text
  }
  /** The nearest number. */
  toNumber() {
    return Number(this.text)
  }
}

/** @param {Uint8Array} bytes */
function toBase64(bytes) {
  if (typeof Buffer !== "undefined") return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64")
  let text = ""
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192))
  return btoa(text)
}

/** @param {string} text */
function fromBase64(text) {
  if (typeof Buffer !== "undefined") return new Uint8Array(Buffer.from(text, "base64"))
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))
}

/** @param {Date} date */
function dateText(date) {
  const year = date.getUTCFullYear()
  if (!(year >= 1 && year <= 9999)) throw new BadInput(`is ${Number.isNaN(year) ? "no date" : "not of the years 1 to 9999"}`)
  const micro = String(/** @type {any} */ (date).microseconds ?? 0).padStart(3, "0")
  return `${date.toISOString().slice(0, -1)}${micro}Z`
}

/** @param {string} text */
function fromDateText(text) {
  const [, whole, fraction = ""] = /** @type {RegExpExecArray} */ (/^([^.Z]+)(?:\.(\d+))?Z$/.exec(text))
  const date = new Date(`${whole}.${fraction.slice(0, 3).padEnd(3, "0")}Z`)
  const micro = Number(fraction.slice(3, 6).padEnd(3, "0"))
  if (micro) Object.defineProperty(date, "microseconds", { value: micro, configurable: true, writable: true })
  return date
}

/** JSON of a value, by the protocol's rules. @param {any} value @param {number} depth @returns {string} */
function encode(value, depth = DEPTH + 8) {
  switch (typeof value) {
    case "string":
      if (value.isWellFormed && !value.isWellFormed()) throw new BadInput("has half a surrogate pair in it, which is no character")
      return JSON.stringify(value)
    case "boolean":
      return String(value)
    case "number":
      if (!Number.isFinite(value)) throw new BadInput(`is ${value}, and only finite numbers can be kept`)
      return String(value)
    case "bigint":
      if (value < -(2n ** 63n) || value >= 2n ** 64n) throw new BadInput(`is ${value}, and integers go from -2**63 to 2**64-1`)
      return String(value)
    case "object":
      if (value === null) return "null"
      return encodeObject(value, depth)
    default:
      throw new BadInput(`is ${typeof value === "undefined" ? "undefined" : `a ${typeof value}`}, which cannot be kept`)
  }
}

/** @param {any} value @param {number} depth */
function encodeObject(value, depth) {
  if (value instanceof Date) return `{"$datetime":"${dateText(value)}"}`
  if (value instanceof Decimal) return `{"$decimal":"${value.text}"}`
  if (value instanceof Uint8Array) return `{"$bytes":"${toBase64(value)}"}`
  if (value instanceof ArrayBuffer) return `{"$bytes":"${toBase64(new Uint8Array(value))}"}`
  if (!depth) throw new BadInput(`is deeper than ${DEPTH} lists and objects in each other`)
  if (Array.isArray(value)) {
    return `[${Array.from(value, (member, at) => below(`[${at}]`, () => encode(member, depth - 1))).join(",")}]`
  }
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    throw new BadInput(`is a ${value.constructor?.name ?? "class"}, and only plain objects can be kept`)
  }
  const names = Object.keys(value).filter((name) => value[name] !== undefined)
  const tag = names.length === 1 && names[0].startsWith("$") ? "$" : ""
  const members = names.map(
    (name) => `${encode(tag + name)}:${below(`.${name}`, () => encode(value[name], depth - 1))}`,
  )
  return `{${members.join(",")}}`
}

/** What is wrong in a part of a value is told with the path to it. @param {string} step @param {() => string} work */
function below(step, work) {
  try {
    return work()
  } catch (failure) {
    if (!(failure instanceof BadInput)) throw failure
    const path = /^`(.*?)` /.exec(failure.sentence)
    const why = path ? failure.sentence.slice(path[0].length) : failure.sentence
    throw new BadInput(`\`${step}${path ? path[1] : ""}\` ${why}`)
  }
}

/** The text of a frame. @param {object} frame */
function packed(frame) {
  try {
    return encode(frame)
  } catch (failure) {
    if (failure instanceof BadInput) throw new BadInput(`${failure.sentence.replace(/^`\./, "`")}.`)
    throw failure
  }
}

/** Integers that a number does not hold exactly, marked; no object of a document has this member alone. @param {string} text */
function marked(text) {
  let made = ""
  for (let at = 0; at < text.length; ) {
    const quote = text.indexOf('"', at)
    made += text.slice(at, quote < 0 ? undefined : quote).replace(/-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g, (number) =>
      /[.eE]/.test(number) || Number.isSafeInteger(Number(number)) ? number : `{"$integer":"${number}"}`,
    )
    if (quote < 0) break
    at = endOfString(text, quote)
    made += text.slice(quote, at)
  }
  return made
}

/** @param {string} text @param {number} quote */
function endOfString(text, quote) {
  for (let end = quote; ; ) {
    end = text.indexOf('"', end + 1)
    if (end < 0) return text.length
    let slashes = 0
    while (text[end - 1 - slashes] === "\\") slashes++
    if (slashes % 2 === 0) return end + 1
  }
}

/** @param {string} text @returns {any} */
function unpacked(text) {
  const exact = /\d{16}/.test(text) ? marked(text) : text
  return JSON.parse(exact, (_, value) => {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return value
    const names = Object.keys(value)
    if (names.length !== 1 || !names[0].startsWith("$")) return value
    const [name] = names
    if (name === "$bytes") return fromBase64(value[name])
    if (name === "$datetime") return fromDateText(value[name])
    if (name === "$decimal") return new Decimal(value[name])
    if (name === "$integer") return BigInt(value[name])
    return Object.fromEntries([[name.slice(1), value[name]]])
  })
}

// Time.

/** What has times in it, with dates: a server tells them in seconds since 1970. @param {any} told @param {string[]} names */
function dated(told, ...names) {
  const dates = names.filter((name) => typeof told[name] === "number")
  return { ...told, ...Object.fromEntries(dates.map((name) => [name, new Date(told[name] * 1000)])) }
}

const now = () => performance.now() / 1000

/** Seconds until the next try, other ones for each client. @param {number} failures */
const pause = (failures) => Math.min(2, 0.01 * 2 ** Math.min(failures, 10)) * (0.5 + Math.random() / 2)

/** @param {number} seconds @param {AbortSignal} [signal] @returns {Promise<void>} */
const sleep = (seconds, signal) => {
  const { promise, resolve } = withResolvers()
  const timer = setTimeout(resolve, seconds * 1000)
  return by(promise, Infinity, signal).finally(() => clearTimeout(timer))
}

/** @returns {{promise: Promise<any>, resolve: (value?: any) => void, reject: (reason: unknown) => void}} */
function withResolvers() {
  /** @type {any} */
  const made = {}
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }))
  made.promise.catch(() => {}) // it is heard by whoever awaits it, or by nobody
  return made
}

const late = () =>
  Object.assign(new TimedOut("The server did not answer in time; whether the request was done is not known."), {
    unknown: true,
  })

/**
 * What the promise brings; TimedOut at `until`, and the signal's reason when that aborts.
 * @template T @param {Promise<T>} promise @param {number} until @param {AbortSignal} [signal] @returns {Promise<T>}
 */
async function by(promise, until, signal, problem = late) {
  signal?.throwIfAborted()
  const end = withResolvers()
  const seconds = until - now()
  const timer = seconds < 1e6 ? setTimeout(() => end.reject(problem()), Math.max(0, seconds * 1000)) : undefined
  const abort = () => end.reject(signal?.reason)
  signal?.addEventListener("abort", abort)
  try {
    return await Promise.race([promise, end.promise])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener("abort", abort)
  }
}

/** So many may be within at once. */
class Gate {
  /** @param {number} room */
  constructor(room) {
    this.room = room
    /** @type {(() => void)[]} */
    this.waiting = []
  }
  /** @param {number} until @param {AbortSignal} [signal] */
  async enter(until, signal) {
    if (this.room > 0) {
      this.room -= 1
      return
    }
    const turn = withResolvers()
    this.waiting.push(turn.resolve)
    try {
      await by(turn.promise, until, signal)
    } catch (failure) {
      const at = this.waiting.indexOf(turn.resolve)
      if (at >= 0) this.waiting.splice(at, 1)
      else this.leave() // it was our turn just then
      throw failure
    }
  }
  leave() {
    const next = this.waiting.shift()
    if (next) next()
    else this.room += 1
  }
}

// One connection, with what is under way on it.

/** The parts of one answer, at most WINDOW of them waiting here: the server sends more as they are taken. */
class Stream {
  /** @param {Wire} wire @param {number} id */
  constructor(wire, id) {
    this.wire = wire
    this.id = id
    /** @type {any[][]} */
    this.parts = []
    this.taken = 0
    this.ended = false
    /** @type {any} */
    this.failure = null
    /** @type {any} */
    this.result = undefined
    this.woken = withResolvers()
  }
  /** The next part, null after the last. @param {number} until @param {AbortSignal} [signal] @returns {Promise<any[] | null>} */
  async next(until, signal) {
    while (!this.parts.length) {
      if (this.failure) throw this.failure
      if (this.ended) return null
      this.woken = withResolvers()
      await by(this.woken.promise, until + GRACE, signal)
    }
    signal?.throwIfAborted()
    this.taken += 1
    if (this.taken * 2 >= WINDOW && !this.ended) {
      this.wire.tell({ id: this.id, more: this.taken })
      this.taken = 0
    }
    return /** @type {any[]} */ (this.parts.shift())
  }
  /** Whether it was asked for; the last one comes without being asked for. @param {any[]} items */
  part(items) {
    if (this.parts.length > WINDOW) return false
    this.parts.push(items)
    this.woken.resolve()
    return true
  }
  /** @param {any} result @param {any} failure */
  end(result, failure) {
    if (this.ended) return
    Object.assign(this, { ended: true, result, failure })
    this.woken.resolve()
  }
  close() {
    this.parts = []
    this.wire.leave(this.id, !this.ended)
  }
}

/** An open websocket that said hello. Never opened again: whoever comes after it was lost takes another. */
class Wire {
  /** @param {any} socket */
  constructor(socket) {
    this.socket = socket
    /** @type {Map<number, any>} */
    this.pending = new Map()
    this.next = 0
    this.frame = FRAME
    this.lost = false
    this.plain = new Gate(REQUESTS)
    this.flows = new Gate(STREAMS)
    this.transactions = new Gate(TRANSACTIONS)
    this.why = ""
    socket.onmessage = (/** @type {any} */ event) => this.take(event.data)
    socket.onclose = (/** @type {any} */ event) => this.end(event.reason || this.why, event.code === REPLACED)
    socket.onerror = () => {}
  }
  get isOpen() {
    return !this.lost && this.socket.readyState === 1
  }
  /** @param {Place} place @param {number} until @param {AbortSignal} signal @returns {Promise<Wire>} */
  static async open(place, until, signal) {
    const socket = await place.socket()
    try {
      const opened = withResolvers()
      let why = ""
      socket.onopen = () => opened.resolve()
      socket.onerror = (/** @type {any} */ event) => (why ||= event.message ?? event.error?.message ?? "")
      socket.onclose = (/** @type {any} */ event) => opened.reject(place.unreachable(event.reason || why))
      await by(opened.promise, until, signal, () => place.unreachable("it did not answer in time"))
      const wire = new Wire(socket)
      const told = await wire.request("hello", place.hello, until, { signal })
      wire.frame = Math.min(FRAME, told.limits?.frame ?? FRAME)
      wire.plain = new Gate(told.limits?.requests ?? REQUESTS)
      wire.transactions = new Gate(told.limits?.transactions ?? TRANSACTIONS)
      return wire
    } catch (failure) {
      socket.close()
      throw failure
    }
  }
  /** @param {string} doing @param {object} fields @param {number} until @param {Limits} limits @returns {Promise<any>} */
  async request(doing, fields, until, { signal }) {
    const gate = this.plain
    await gate.enter(until, signal)
    const id = this.next++
    try {
      const answer = this.ask(id, { do: doing, deadline: left(until), ...fields }, withResolvers())
      return await by(answer.promise, until + GRACE, signal)
    } finally {
      this.leave(id, true)
      gate.leave()
    }
  }
  /** To be closed by who asked. @param {string} doing @param {object} fields @param {number} until @param {Limits} limits */
  async stream(doing, fields, until, { signal }) {
    await this.flows.enter(until, signal)
    const id = this.next++
    try {
      const deadline = until < Infinity ? { deadline: left(until) } : {}
      return this.ask(id, { do: doing, ...deadline, ...fields }, new Stream(this, id))
    } catch (failure) {
      this.flows.leave()
      throw failure
    }
  }
  /** @template T @param {number} id @param {object} request @param {T} answer @returns {T} */
  ask(id, request, answer) {
    const text = packed({ id, ...request })
    const size = text.length * 3 > this.frame ? new TextEncoder().encode(text).length : 0
    if (size > this.frame) {
      throw new TooLarge(
        `The request takes ${(size / 2 ** 20).toFixed(1)} MiB, and ${Math.floor(this.frame / 2 ** 20)} MiB are the most.`,
        "Send fewer documents at a time, and keep large files elsewhere.",
      )
    }
    if (!this.isOpen) throw new ConnectionLost("The connection to versionbase is closed; the request was not sent.")
    this.pending.set(id, answer)
    this.socket.send(text)
    return answer
  }
  /** A frame that has no answer. @param {object} frame */
  tell(frame) {
    if (this.isOpen) this.socket.send(packed(frame))
  }
  /** Nobody waits for this request any more; what has no answer yet is cancelled. @param {number} id @param {boolean} cancel */
  leave(id, cancel) {
    const known = this.pending.get(id)
    if (!this.pending.delete(id)) return
    if (known instanceof Stream) this.flows.leave()
    if (cancel && !known.answered) this.tell({ id, do: "cancel" })
  }
  /** @param {any} data */
  take(data) {
    let frame
    try {
      frame = unpacked(data)
    } catch (failure) {
      return this.fail(`an answer that cannot be read: ${failure}`)
    }
    const known = this.pending.get(frame.id)
    if (!known) return // the rest of what was cancelled
    if (frame.part) {
      if (!(known instanceof Stream && known.part(frame.part))) this.fail("the server sent more than it was asked for")
      return
    }
    const failure = frame.error ? problem(frame.error) : null
    if (known instanceof Stream) return known.end(frame.ok, failure)
    known.answered = true
    if (failure) known.reject(failure)
    else known.resolve(frame.ok)
  }
  /** @param {string} why */
  fail(why) {
    this.end(why)
    this.socket.close()
  }
  /** @param {string} why @param {boolean} isReplaced */
  end(why, isReplaced = false) {
    if (this.lost) return
    this.lost = true
    for (const known of this.pending.values()) {
      const lost = isReplaced
        ? new ConnectionLost("The server of versionbase is being replaced; the request was not begun.")
        : new ConnectionLost(
            `The connection to versionbase was lost${why ? ` (${why})` : ""}; whether the request was done is not known.`,
            "Read what is there, or make the write one that may be done twice (give its key).",
            true,
          )
      if (known instanceof Stream) known.end(undefined, lost)
      else known.reject(lost)
    }
  }
  /** @returns {Promise<void>} */
  close() {
    if (this.socket.readyState === 3) return Promise.resolve()
    const closed = withResolvers()
    this.socket.addEventListener("close", closed.resolve)
    this.socket.close(1000)
    return Promise.race([closed.promise, sleep(2)])
  }
}

/** @param {number} until */
function left(until) {
  const seconds = until - now()
  if (seconds <= 0) throw new TimedOut("There was no time left to ask the server; nothing changed.")
  return Math.max(0.001, Math.round(Math.min(seconds, LONGEST) * 1000) / 1000)
}

// Where the server is.

const LIKE = "It looks like ws://VERSION:KEY@HOST:PORT/, with % codes for what is not a letter or a digit."

/** Who is asked, and for which version by which key. */
class Place {
  /** @param {string | undefined} url @param {string | undefined} version @param {string | undefined} source */
  constructor(url, version, source) {
    const env = typeof process !== "undefined" ? process.env : /** @type {{[name: string]: string | undefined}} */ ({})
    const given = url || env.VERSIONBASE_URL
    if (!given) {
      throw new NotConfigured(
        "There is no versionbase to connect to: VERSIONBASE_URL is not set, and no url was given.",
        "Under lazycloud, say `versionbase = true` under [data] in lazycloud.toml. Elsewhere run " +
          "`lazycloud versionbase serve`, which prints the URL to set.",
      )
    }
    const parts = URL.canParse(given) ? new URL(given) : null
    if (!parts || !["ws:", "wss:"].includes(parts.protocol) || !parts.hostname) {
      throw new BadInput("The URL of versionbase is none that begins with ws:// or wss:// and has a host.", LIKE)
    }
    if (!parts.password) throw new BadInput(`The URL of versionbase at ${parts.host} has no key.`, LIKE)
    this.address = `${parts.protocol}//${parts.host}/`
    this.version = version || decodeURIComponent(parts.username) || env.COMMIT_ID || "production"
    this.hello = {
      version: this.version,
      key: decodeURIComponent(parts.password),
      client: CLIENT,
      ...(source === undefined ? {} : { from: source }),
    }
  }
  /** @returns {Promise<any>} */
  async socket() {
    if (globalThis.WebSocket) return new globalThis.WebSocket(this.address, [SUBPROTOCOL])
    const { WebSocket } = await import(/** @type {any} */ ("ws")).catch(() => {
      throw new NotConfigured("This Node has no WebSocket.", "Take Node 22 or newer, or `npm install ws`.")
    })
    return new WebSocket(this.address, [SUBPROTOCOL], { perMessageDeflate: false, maxPayload: FRAME + 4096 })
  }
  /** @param {string} why */
  unreachable(why) {
    return new ConnectionLost(`There is no versionbase at ${this.address}${why ? `: ${why}` : ""}.`, "Is the server running?")
  }
}

const closed = () => new ConnectionLost("This connection to versionbase was closed by its program.")

/** A place, and the connection to it that is open now, if any: made when it is needed, by one for all who wait. */
class Link {
  /** @param {Place} place */
  constructor(place) {
    this.place = place
    this.streams = 0
    this.failures = 0
    this.closed = false
    this.closing = new AbortController()
    /** @type {Wire | null} */
    this.current = null
    /** @type {Promise<Wire> | null} */
    this.opening = null
    /** @type {any} */
    this.failure = null
  }
  /** @param {number} until @param {AbortSignal} [signal] @returns {Promise<Wire>} */
  async wire(until, signal) {
    while (!this.closed) {
      if (this.current?.isOpen) return this.current
      this.opening ??= this.open().finally(() => (this.opening = null))
      this.opening.catch(() => {})
      try {
        return await by(this.opening, until, signal, () => this.failure ?? this.place.unreachable("it did not answer in time"))
      } catch (failure) {
        if (!(failure instanceof ConnectionLost) || now() >= until) throw failure
      }
    }
    throw closed()
  }
  async open() {
    const { signal } = this.closing
    if (this.failures) await sleep(pause(this.failures), signal)
    try {
      const wire = await Wire.open(this.place, now() + CONNECTING, signal)
      if (this.closed) await wire.close()
      Object.assign(this, { failures: 0, failure: null, current: wire })
      return wire
    } catch (failure) {
      if (failure instanceof ConnectionLost) Object.assign(this, { failures: this.failures + 1, failure })
      throw failure
    }
  }
  async close() {
    this.closed = true
    this.closing.abort(closed())
    await this.current?.close()
  }
}

// Who asks: a version as it is now, a transaction, or a view of the past.

/** @param {SnapshotLike | undefined} snapshot */
const reference = (snapshot) => (snapshot !== null && typeof snapshot === "object" ? snapshot.id : snapshot)

/**
 * @typedef {object} Session
 * @property {(doing: string, fields: object, limits: Limits, again?: boolean) => Promise<any>} ask
 * @property {(doing: string, fields: object, limits: Limits) => AsyncGenerator<any[], void>} flow
 * @property {boolean} repeats
 */

/**
 * What is read bit by bit: `for await (const item of results)`, or all at once. Each iteration asks anew.
 * If the connection is lost amid an iteration, ConnectionLost is raised, as the rest would be of another moment.
 * @template T
 */
class Results {
  /** @param {Session} session @param {string} doing @param {any} fields @param {Limits} limits @param {(told: any) => any} made */
  constructor(session, doing, fields, limits, made = (told) => told) {
    this.session = session
    this.doing = doing
    this.fields = fields
    this.limits = limits
    this.made = made
  }
  /** @returns {AsyncGenerator<T, void>} */
  async *[Symbol.asyncIterator]() {
    for await (const part of this.session.flow(this.doing, this.fields, this.limits)) yield* part.map(this.made)
  }
  /** All of them, in memory. @returns {Promise<T[]>} */
  async toList() {
    for (let tries = 1; ; tries++) {
      try {
        const all = []
        for await (const item of this) all.push(item)
        return all
      } catch (failure) {
        if (!(failure instanceof ConnectionLost && failure.unknown && this.session.repeats && tries < TRIES)) throw failure
      }
    }
  }
  /** The first one, undefined if there is none. @returns {Promise<T | undefined>} */
  async first() {
    for await (const item of this) return item
  }
}

/** Pairs of key and document, or of key and what `map` makes of it. @extends {Results<[string, any]>} */
class Find extends Results {
  /** @returns {Promise<[string, any] | undefined>} */
  async first() {
    return (await new Find(this.session, this.doing, { ...this.fields, limit: 1 }, this.limits).toList())[0]
  }
  /** How they are found: `scan` ("index", "key" or "collection"), `index`, … @returns {Promise<any>} */
  explain() {
    return this.session.ask("explain", this.fields, this.limits, true)
  }
}

/** @template T @param {string} verb @param {T} options @returns {T} */
function inAnObject(verb, options) {
  if (typeof options !== "string") return options
  throw new BadInput(`\`${verb}\` has its options in an object.`, `Like ${verb}({ filter: ${JSON.stringify(options)} })`)
}

/** A collection that is read: the reading half of all. */
class Reader {
  /** @param {Session} session @param {string} name */
  constructor(session, name) {
    this.session = session
    this.name = name
  }
  /** The document, null if there is none. @param {string} key @param {Limits} limits @returns {Promise<Document | null>} */
  async get(key, limits = {}) {
    return (await this.getMany([key], limits))[0]
  }
  /** In the order of the keys. @param {string[]} keys @param {Limits} limits @returns {Promise<(Document | null)[]>} */
  getMany(keys, limits = {}) {
    return this.session.ask("get", { collection: this.name, keys }, limits, true)
  }
  /** Those for which `filter` holds, as [key, document]; `params` are variables in it. @param {Query} query @returns {Find} */
  find(options = {}) {
    const { timeout, signal, ...query } = inAnObject("find", options)
    return new Find(this.session, "find", { collection: this.name, ...query }, { timeout, signal })
  }
  /** @param {Condition & Limits} condition @returns {Promise<number>} */
  async count(options = {}) {
    const { timeout, signal, ...condition } = inAnObject("count", options)
    return this.session.ask("count", { collection: this.name, ...condition }, { timeout, signal }, true)
  }
}

/** @param {...any} _ @returns {Promise<never>} */
async function readOnly(..._) {
  throw new ReadOnly(
    "The past is read-only: nothing is written at a snapshot.",
    "Write to what there is now, `db.collection(…)`; `db.restore(…)` makes the past what there is now.",
  )
}

/** A collection of a view of the past. What would write throws ReadOnly. */
class PastReader extends Reader {
  insert = readOnly
  insertMany = readOnly
  replace = readOnly
  update = readOnly
  delete = readOnly
  deleteMany = readOnly
  drop = readOnly
  createIndex = readOnly
  dropIndex = readOnly
  setSchema = readOnly
}

/** A collection that is read and written: in a transaction, and the better half of others. */
class Writer extends Reader {
  /** Its key: a UUID, later than those before it, if none is given. @param {Document} document @param {{key?: string} & Limits} options @returns {Promise<string>} */
  async insert(document, { key, ...limits } = {}) {
    return (await this.insertMany([document], { keys: key === undefined ? undefined : [key], ...limits }))[0]
  }
  /** Their keys. All or none is there afterwards. @param {Document[]} documents @param {{keys?: string[]} & Limits} options @returns {Promise<string[]>} */
  insertMany(documents, { keys, ...limits } = {}) {
    return this.session.ask("insert", { collection: this.name, documents, keys }, limits)
  }
  /** Throws NotFound if there is none at this key, unless `create`. @param {string} key @param {Document} document @param {{create?: boolean} & Limits} options @returns {Promise<void>} */
  async replace(key, document, { create = false, ...limits } = {}) {
    await this.session.ask("replace", { collection: this.name, key, document, create }, limits)
  }
  /** The document with these members set and those removed. @param {string} key @param {Document} fields @param {{remove?: string[]} & Limits} options @returns {Promise<Document>} */
  update(key, fields, { remove = [], ...limits } = {}) {
    return this.session.ask("update", { collection: this.name, key, set: fields, remove }, limits)
  }
  /** Whether it was there. @param {string} key @param {Limits} limits @returns {Promise<boolean>} */
  async delete(key, limits = {}) {
    return (await this.deleteMany([key], limits)) > 0
  }
  /** How many were there. @param {string[]} keys @param {Limits} limits @returns {Promise<number>} */
  deleteMany(keys, limits = {}) {
    return this.session.ask("delete", { collection: this.name, keys }, limits)
  }
}

/** A collection of a version. It begins with its first document. */
class Collection extends Writer {
  /** @param {Database} database @param {string} name */
  constructor(database, name) {
    super(database, name)
    this.database = database
  }
  /** When it is built. @param {string} path @param {{unique?: boolean, name?: string} & Limits} options @returns {Promise<Index>} */
  createIndex(path, { unique, name, timeout = LONGEST, signal } = {}) {
    return this.session.ask("create_index", { collection: this.name, path, unique, name }, { timeout, signal })
  }
  /** Whether it was there. @param {string} name @param {Limits} limits @returns {Promise<boolean>} */
  dropIndex(name, limits = {}) {
    return this.session.ask("drop_index", { collection: this.name, name }, limits)
  }
  /** @param {Limits} limits @returns {Promise<Index[]>} */
  async indexes(limits = {}) {
    return (await this.described(limits))?.indexes ?? []
  }
  /** The JSON Schema that documents must fit. @param {Limits} limits @returns {Promise<Document | null>} */
  async schema(limits = {}) {
    return (await this.described(limits))?.schema ?? null
  }
  /**
   * From now on each document fits it; with `check` those that are there must, too. With `strict`, a word that would be
   * ignored and looks like a slip of a keyword is BadInput.
   * @param {Document | null} schema @param {{check?: boolean, strict?: boolean} & Limits} options @returns {Promise<void>}
   */
  async setSchema(schema, { check = true, strict = true, timeout = LONGEST, signal } = {}) {
    const fields = { collection: this.name, schema, check, ...(strict ? {} : { strict }) }
    await this.session.ask("set_schema", fields, { timeout, signal })
  }
  /** Remove it with all in it; whether it was there. @param {Limits} limits @returns {Promise<boolean>} */
  drop(limits = {}) {
    return this.session.ask("drop_collection", { collection: this.name }, limits)
  }
  /** What was at this key, the latest first. @param {string} key @param {{limit?: number} & Limits} options @returns {Results<Past>} */
  history(key, { limit, ...limits } = {}) {
    return new Results(this.session, "history", { collection: this.name, key, limit }, limits, (told) => dated(told, "at"))
  }
  /** As `Database.watch`. @param {Condition & {since?: number} & Limits} options */
  watch(options = {}) {
    return this.database.watch(this.name, options)
  }
  /** @param {Limits} limits */
  async described(limits) {
    return (await this.database.collections(limits)).find(({ name }) => name === this.name)
  }
}

/**
 * Changes from now, or from after `since`, on: `for await (const change of watch)`. It goes on after a lost connection.
 * `sequence`: all changes up to that commit have come.
 */
class Watch {
  /** @param {Database} database @param {object} fields @param {number | undefined} since @param {Limits} limits */
  constructor(database, fields, since, limits) {
    this.database = database
    this.fields = fields
    this.sequence = since
    this.limits = limits
    this.commit = -1 // of which some changes have come
    this.came = 0 // how many of them
    this.skip = 0
  }
  /** @returns {AsyncGenerator<Change, void>} */
  async *[Symbol.asyncIterator]() {
    this.sequence ??= await this.database.sequence() // now is when this was asked, not when the server came to it
    for (let lost = 1; ; lost++) {
      this.skip = this.came
      try {
        const fields = { ...this.fields, since: this.sequence }
        for await (const part of this.database.flow("watch", fields, this.limits, true)) {
          lost = 0
          for (const told of part) if (this.isNew(told)) yield dated(told, "at")
        }
      } catch (failure) {
        if (!(failure instanceof ConnectionLost && failure.unknown)) throw failure
      }
      await sleep(pause(lost), this.limits.signal)
    }
  }
  /** Unless it came before the connection was lost; a sequence alone says that all up to it came. @param {any} told */
  isNew(told) {
    const { sequence } = told
    if (!("key" in told)) {
      Object.assign(this, { sequence, commit: sequence, came: 0 })
      return false
    }
    if (sequence !== this.commit) Object.assign(this, { sequence: sequence - 1, commit: sequence, came: 0, skip: 0 })
    if (this.skip) {
      this.skip -= 1
      return false
    }
    this.came += 1
    return true
  }
}

/** A version as it was at a snapshot. */
class View {
  repeats = true
  /** @param {Database} database @param {SnapshotLike} snapshot */
  constructor(database, snapshot) {
    this.database = database
    this.snapshot = reference(snapshot)
  }
  /** @param {string} name */
  collection(name) {
    return new PastReader(this, name)
  }
  /** @param {Limits} limits @returns {Promise<Described[]>} */
  collections(limits = {}) {
    return this.ask("collections", {}, limits, true)
  }
  /** @param {string | undefined} collection @param {Limits} limits @returns {Results<any>} */
  export(collection, limits = {}) {
    return new Results(this, "export", { collection }, limits)
  }
  /** @param {string} doing @param {object} fields @param {Limits} limits @param {boolean} again */
  ask(doing, fields, limits, again = false) {
    return this.database.ask(doing, { ...fields, at: this.snapshot }, limits, again)
  }
  /** @param {string} doing @param {object} fields @param {Limits} limits */
  flow(doing, fields, limits) {
    return this.database.flow(doing, { ...fields, at: this.snapshot }, limits)
  }
}

const lostTransaction = (/** @type {unknown} */ cause) =>
  new ConnectionLost(
    "The connection to versionbase was lost, and this transaction with it: nothing of it was done.",
    "Do it again, or let `db.run` do that.",
    false,
    { cause },
  )

/** Reads of one moment, and writes that are done all or none, if nothing that was read has changed by then. */
class Transaction {
  repeats = false
  /** @param {Wire} wire @param {any} told @param {number} timeout */
  constructor(wire, told, timeout) {
    this.wire = wire
    this.number = told.in
    /** @type {number} */
    this.sequence = told.sequence
    this.timeout = timeout
    this.over = false
  }
  /** @param {string} name */
  collection(name) {
    return new Writer(this, name)
  }
  /** @param {Limits} limits @returns {Promise<Described[]>} */
  collections(limits = {}) {
    return this.ask("collections", {}, limits)
  }
  /** @param {string} doing @param {object} fields @param {Limits} limits */
  async ask(doing, fields, limits) {
    this.check()
    try {
      return await this.wire.request(doing, { ...fields, in: this.number }, now() + (limits.timeout ?? this.timeout), limits)
    } catch (failure) {
      if (failure instanceof ConnectionLost && !(doing === "commit" && failure.unknown)) throw lostTransaction(failure)
      throw failure
    }
  }
  /** @param {string} doing @param {object} fields @param {Limits} limits @returns {AsyncGenerator<any[], void>} */
  async *flow(doing, fields, limits) {
    this.check()
    try {
      const until = now() + (limits.timeout ?? LONGEST)
      yield* streamed(this.wire, doing, { ...fields, in: this.number }, until, limits)
    } catch (failure) {
      throw failure instanceof ConnectionLost ? lostTransaction(failure) : failure
    }
  }
  check() {
    if (this.over) throw new BadInput("This transaction is over.", "Begin another one.")
  }
  async commit() {
    try {
      await this.ask("commit", {}, {})
    } finally {
      this.release()
    }
  }
  abort() {
    if (this.over) return
    this.wire.tell({ id: this.wire.next++, do: "abort", in: this.number })
    this.release()
  }
  release() {
    this.over = true
    this.wire.transactions.leave()
  }
}

/** @param {Wire} wire @param {string} doing @param {object} fields @param {number} until @param {Limits} limits @returns {AsyncGenerator<any[], void>} */
async function* streamed(wire, doing, fields, until, limits) {
  const stream = await wire.stream(doing, fields, until, limits)
  try {
    for (let part; (part = await stream.next(until, limits.signal)) !== null; ) yield part
  } finally {
    stream.close()
  }
}

/** A version, as it is now: `const db = await connect()`, and in the end `await db.close()`. */
class Database {
  repeats = true
  /** @param {Place} place @param {number} [timeout] */
  constructor(place, timeout) {
    this.place = place
    this.timeout = timeout ?? TIMEOUT
    this.connecting = timeout ?? CONNECTING
    this.version = place.version
    this.link = new Link(place)
    /** @type {Link[]} */
    this.others = [] // for streams that the first one has no room for
    this.owner = new Owner(this)
  }
  /** Connect now, and not at the first request; it tries again until then. @param {number} timeout */
  async open(timeout = this.connecting) {
    await this.link.wire(now() + timeout)
    return this
  }
  async close() {
    const links = [this.link, ...this.others]
    this.others = []
    await Promise.all(links.map((link) => link.close()))
  }
  async [/** @type {any} */ (Symbol).asyncDispose ?? Symbol("asyncDispose")]() {
    await this.close()
  }
  /** It need not be there yet. @param {string} name */
  collection(name) {
    return new Collection(this, name)
  }
  /** @param {Limits} limits @returns {Promise<Described[]>} */
  collections(limits = {}) {
    return this.ask("collections", {}, limits, true)
  }
  /** The past, to read: a snapshot, or its name or id; for the owner also VERSION, VERSION@NAME. @param {SnapshotLike} snapshot */
  at(snapshot) {
    return new View(this, snapshot)
  }
  /**
   * What the callback returns, once its transaction is committed; it is given up if the callback throws. Throws Conflict.
   * @template T @param {(tx: Transaction) => Promise<T>} callback
   * @param {{at?: SnapshotLike, write?: boolean} & Limits} options @returns {Promise<T>}
   */
  async transaction(callback, { at, write = true, timeout = this.timeout, signal } = {}) {
    const tx = await this.begin({ at: reference(at), write }, timeout, signal)
    try {
      const result = await callback(tx)
      if (write) await tx.commit()
      return result
    } finally {
      tx.abort()
    }
  }
  /**
   * As `transaction`; the callback is called again after a conflict.
   * @template T @param {(tx: Transaction) => Promise<T>} callback @param {Limits} limits @returns {Promise<T>}
   */
  async run(callback, { timeout = this.timeout, signal } = {}) {
    const until = now() + timeout
    let refused // why the latest was not done, if it may be done again
    for (let tries = 1; ; tries++) {
      try {
        return await this.transaction(callback, { timeout: Math.max(0.001, until - now()), signal })
      } catch (failure) {
        if (failure instanceof TimedOut && !failure.unknown) throw refused ?? failure
        const again = failure instanceof Conflict || (failure instanceof ConnectionLost && !failure.unknown)
        if (!again || now() >= until) throw failure
        refused = failure
      }
      await sleep(pause(tries), signal)
    }
  }
  /** @param {object} fields @param {number} timeout @param {AbortSignal} [signal] */
  async begin(fields, timeout, signal) {
    const until = now() + timeout
    for (let tries = 1; ; tries++) {
      const wire = await this.link.wire(until, signal)
      await wire.transactions.enter(until, signal)
      try {
        return new Transaction(wire, await wire.request("begin", fields, until, { signal }), timeout)
      } catch (failure) {
        wire.transactions.leave()
        if (!(failure instanceof ConnectionLost) || tries === TRIES) throw failure
      }
    }
  }
  /**
   * What changes from now on, or from after the commit `since` on: Gone if that is too long ago.
   * `timeout`: seconds that it may be without a connection; none for as long as it takes.
   * @param {string} [collection] @param {Condition & {since?: number} & Limits} options
   */
  watch(collection, { since, filter, params, ...limits } = {}) {
    return new Watch(this, { collection, filter, params }, since, limits)
  }
  /** `version`, `sequence`, `collections`, `documents`, … @param {Limits} limits @returns {Promise<any>} */
  status(limits = {}) {
    return this.ask("status", {}, limits, true)
  }
  /** The number of the latest commit. @param {Limits} limits @returns {Promise<number>} */
  async sequence(limits = {}) {
    return (await this.status(limits)).sequence
  }
  /** All documents as {collection, key, document}; before those its `indexes` and `schema`. @param {string} [collection] @param {Limits} limits @returns {Results<any>} */
  export(collection, limits = {}) {
    return new Results(this, "export", { collection }, limits)
  }
  /** Keep what is there now; it costs the same for any size. @param {string} [name] @param {Limits} limits @returns {Promise<Snapshot>} */
  async snapshot(name, limits = {}) {
    return dated(await this.ask("snapshot", { name }, limits), "at")
  }
  /** @param {Limits} limits @returns {Promise<Snapshot[]>} */
  async snapshots(limits = {}) {
    return (await this.ask("snapshots", {}, limits, true)).map((/** @type {any} */ told) => dated(told, "at"))
  }
  /** Whether it was there. @param {SnapshotLike} snapshot @param {Limits} limits @returns {Promise<boolean>} */
  dropSnapshot(snapshot, limits = {}) {
    return this.ask("drop_snapshot", { snapshot: reference(snapshot) }, limits)
  }
  /** Let the version be as it was then; the sequence of the commit that does so. @param {SnapshotLike} snapshot @param {Limits} limits @returns {Promise<number>} */
  async restore(snapshot, limits = {}) {
    return (await this.ask("restore", { snapshot: reference(snapshot) }, limits)).sequence
  }
  /** What is not the same in two snapshots, or in one and now. @param {SnapshotLike} from @param {SnapshotLike} [to] @param {{collection?: string} & Limits} options @returns {Results<Difference>} */
  diff(from, to, { collection, ...limits } = {}) {
    return new Results(this, "diff", { from: reference(from), to: reference(to), collection }, limits)
  }
  /** @param {string} doing @param {object} fields @param {Limits} limits @param {boolean} again */
  async ask(doing, fields, limits, again = false) {
    const until = now() + (limits.timeout ?? this.timeout)
    for (let tries = 1; ; tries++) {
      const wire = await this.link.wire(until, limits.signal)
      try {
        return await wire.request(doing, fields, until, limits)
      } catch (failure) {
        if (!(failure instanceof ConnectionLost) || tries === TRIES || (failure.unknown && !again)) throw failure
      }
    }
  }
  /** @param {string} doing @param {object} fields @param {Limits} limits @param {boolean} endless @returns {AsyncGenerator<any[], void>} */
  async *flow(doing, fields, limits, endless = false) {
    const until = now() + (limits.timeout ?? (endless ? Infinity : LONGEST))
    for (let tries = 1; ; tries++) {
      const link = this.roomy()
      let came = false
      link.streams += 1
      let wire
      try {
        wire = await link.wire(until, limits.signal)
        for await (const part of streamed(wire, doing, fields, endless ? Infinity : until, limits)) {
          came = true
          yield part
        }
        return
      } catch (failure) {
        if (!(failure instanceof ConnectionLost)) throw failure
        if (came) {
          throw new ConnectionLost(
            "The connection to versionbase was lost amid these results.",
            "Read them again from the beginning; toList() does so by itself.",
            true,
            { cause: failure },
          )
        }
        if (tries === TRIES || !wire) throw failure
      } finally {
        link.streams -= 1
        this.spare(link)
      }
    }
  }
  /** A link with room for a stream. */
  roomy() {
    const found = [this.link, ...this.others].find((link) => link.streams < STREAMS)
    if (found) return found
    this.others.push(new Link(this.place))
    return this.others[this.others.length - 1]
  }
  /** Another one than the first is closed when it has no more streams. @param {Link} link */
  spare(link) {
    const at = this.others.indexOf(link)
    if (link.streams || at < 0) return
    this.others.splice(at, 1)
    link.close()
  }
}

/** What only the key of the server's owner may: versions. `db.owner`. */
class Owner {
  /** @param {Database} database */
  constructor(database) {
    this.database = database
  }
  /** @param {Limits} limits @returns {Promise<Version[]>} */
  async versions(limits = {}) {
    const told = await this.database.ask("versions", {}, limits, true)
    return told.map((/** @type {any} */ version) => dated(version, "made", "changed"))
  }
  /** Make a version from another one, as it is or as it was. @param {string} version @param {{source?: string, snapshot?: SnapshotLike} & Limits} options @returns {Promise<any>} */
  fork(version, { source, snapshot, ...limits } = {}) {
    return this.database.ask("fork", { version, source, snapshot: reference(snapshot) }, limits)
  }
  /** Remove a version with all in it. @param {string} version @param {Limits} limits @returns {Promise<any>} */
  drop(version, limits = {}) {
    return this.database.ask("drop", { version }, limits)
  }
  /** Let each of two versions have what the other one has. @param {string} version @param {string} other @param {Limits} limits @returns {Promise<any>} */
  swap(version, other, limits = {}) {
    return this.database.ask("swap", { version, other }, limits)
  }
  /** The key that opens this version, and no other. @param {string} version @param {Limits} limits @returns {Promise<string>} */
  key(version, limits = {}) {
    return this.database.ask("key", { version }, limits, true)
  }
  /** About how many bytes only this version, or this snapshot of it, has; `whole`: also what others share. @param {string} version @param {{snapshot?: SnapshotLike, whole?: boolean} & Limits} options @returns {Promise<number>} */
  size(version, { snapshot, whole, ...limits } = {}) {
    return this.database.ask("size", { version, snapshot: reference(snapshot), whole }, limits, true)
  }
  /** Let each version have so many bytes of its own from now on, until the server stops; 0 is no limit. @param {number} size @param {Limits} limits @returns {Promise<any>} */
  limit(size, limits = {}) {
    return this.database.ask("limit", { bytes: size }, limits)
  }
  /** Remove what nothing needs any more; how many nodes that were. @param {Limits} limits @returns {Promise<any>} */
  collect(limits = {}) {
    return this.last("collect", limits, [])
  }
  /** Read all there is: `nodes`, `entries`, and `problems`, the first thousand sentences. @param {Limits} limits @returns {Promise<any>} */
  async verify(limits = {}) {
    /** @type {any[]} */
    const problems = []
    const told = await this.last("verify", limits, problems)
    return { ...told, problems: problems.map(({ problem }) => problem) }
  }
  /** @param {string} version @param {string} [name] @param {Limits} limits @returns {Promise<Snapshot>} */
  async snapshot(version, name, limits = {}) {
    return dated(await this.database.ask("snapshot", { version, name }, limits), "at")
  }
  /** @param {string} version @param {Limits} limits @returns {Promise<Snapshot[]>} */
  async snapshots(version, limits = {}) {
    const told = await this.database.ask("snapshots", { version }, limits, true)
    return told.map((/** @type {any} */ snapshot) => dated(snapshot, "at"))
  }
  /** Whether it was there. @param {string} version @param {SnapshotLike} snapshot @param {Limits} limits @returns {Promise<boolean>} */
  dropSnapshot(version, snapshot, limits = {}) {
    return this.database.ask("drop_snapshot", { version, snapshot: reference(snapshot) }, limits)
  }
  /** The sequence of the commit that does so. @param {string} version @param {SnapshotLike} snapshot @param {Limits} limits @returns {Promise<number>} */
  async restore(version, snapshot, limits = {}) {
    return (await this.database.ask("restore", { version, snapshot: reference(snapshot) }, limits)).sequence
  }
  /** As `Database.export`, of any version. @param {string} version @param {{collection?: string, at?: SnapshotLike} & Limits} options @returns {Results<any>} */
  export(version, { collection, at, ...limits } = {}) {
    return new Results(this.database, "export", { version, collection, at: reference(at) }, limits)
  }
  /** What comes after all parts; the first thousand items of these are left in `items`. @param {string} doing @param {Limits} limits @param {any[]} items */
  async last(doing, limits, items) {
    const until = now() + (limits.timeout ?? LONGEST)
    const wire = await this.database.link.wire(until, limits.signal)
    const stream = await wire.stream(doing, {}, until, limits)
    try {
      for (let part; (part = await stream.next(until, limits.signal)) !== null; ) items.push(...part.slice(0, 1000 - items.length))
      return stream.result
    } finally {
      stream.close()
    }
  }
  /** Put there what `export` gave, bit by bit: how many items. @param {string} version @param {Iterable<any> | AsyncIterable<any>} exported @param {Limits} limits */
  async load(version, exported, limits = {}) {
    let count = 0
    let size = 0
    /** @type {any[]} */
    let portion = []
    for await (const item of exported) {
      const length = packed(item).length
      if (portion.length && size + length > PORTION) {
        await this.database.ask("import", { version, documents: portion }, limits)
        portion = []
        size = 0
      }
      portion.push(item)
      size += length
      count += 1
    }
    if (portion.length) await this.database.ask("import", { version, documents: portion }, limits)
    return count
  }
}

/**
 * Open the version that VERSIONBASE_URL or `url` names.
 *
 * A URL with the owner's key opens `version`, else the one that it names, else COMMIT_ID, else production. If that is not
 * there yet it is forked from `source`: production, or nothing for "". `timeout`: seconds for connecting (10 if it is not
 * said), and for each request that says none (60).
 * @param {string} [url] @param {{version?: string, source?: string, timeout?: number}} options @returns {Promise<Database>}
 */
export async function connect(url, { version, source, timeout } = {}) {
  const database = new Database(new Place(url, version, source), timeout)
  try {
    return await database.open()
  } catch (failure) {
    await database.close()
    throw failure
  }
}

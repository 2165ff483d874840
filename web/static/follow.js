// A websocket that comes back by itself and goes on after the last number that was seen.

const STEADY = 5000; // ms; a socket that lived this long was no failure to connect
const SLOWEST = 10000; // ms between attempts

/**
 * Follow `path` on this host. `after()` gives the last number seen (null: none), `receive(message)` takes each
 * message, `link(connected, failures)` hears of every change; `failures` counts attempts in a row.
 */
function follow(path, after, receive, link) {
  let socket, timer, failures = 0;

  function open() {
    const url = new URL(path, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (after() != null) url.searchParams.set("after", after());
    let opened = 0;
    socket = new WebSocket(url);
    socket.onopen = () => { opened = Date.now(); link(true, failures); };
    socket.onmessage = ({ data }) => { failures = 0; receive(JSON.parse(data)); };
    socket.onclose = () => {
      failures = opened && Date.now() - opened > STEADY ? 1 : failures + 1;
      const wait = Math.min(SLOWEST, 250 * 2 ** Math.min(failures, 8));
      timer = setTimeout(open, wait * (0.7 + 0.6 * Math.random()));
      link(false, failures);
    };
  }

  function hurry() {
    if (document.hidden || socket.readyState !== WebSocket.CLOSED) return;
    clearTimeout(timer);
    open();
  }

  addEventListener("online", hurry);
  document.addEventListener("visibilitychange", hurry);
  open();
}

// The page of a serial console: a terminal on one WebSocket, which is opened again at its offset when it breaks.
"use strict";

(function () {
  const MOST_BYTES = 4000; // of one message to the gateway
  const FIRST_PAUSE_MS = 500;
  const LONGEST_PAUSE_MS = 8000;
  // The gateway was restarted, or the page was slow: another ticket helps.
  const OTHER_TICKET = ["CONSOLE_TICKET_USED", "CONSOLE_TICKET_EXPIRED", "CONSOLE_TICKET_UNKNOWN"];

  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const base = location.pathname.replace(/\/page\/?$/, "");
  const name = decodeURIComponent(base.split("/")[3]);
  const label = new URLSearchParams(location.search).get("viewer") || "";
  const encoder = new TextEncoder();
  const terminal = new Terminal({ scrollback: 5000 });
  const fit = new FitAddon.FitAddon();

  let socket = null;
  let offset = null; // of the next byte
  let replayEnd = 0; // what lies before it was written before the page came: questions in it are nobody's any more
  let isWriter = false;
  let wantsToWrite = true; // a page takes the role where nobody has it
  let pauseMs = FIRST_PAUSE_MS;
  let problem = null; // the last one that was told on this socket

  document.title = "Console of " + name;
  byId("name").textContent = name;
  terminal.loadAddon(fit);
  terminal.open(byId("terminal"));
  terminal.focus();

  function show(state, text) {
    root.dataset.state = state;
    byId("connection").textContent = text;
  }

  function notice(text) {
    byId("notice").textContent = text;
  }

  function send(message) {
    if (socket !== null && socket.readyState === WebSocket.OPEN) {
      socket.send(message);
    }
  }

  function sendSize() {
    fit.fit();
    if (isWriter) {
      send(JSON.stringify({ resize: { columns: terminal.cols, rows: terminal.rows } }));
    }
  }

  function sendInput(bytes) {
    if (!isWriter) {
      return; // a terminal also answers questions of the guest by itself: only the writer's may
    }
    for (let at = 0; at < bytes.length; at += MOST_BYTES) {
      send(bytes.slice(at, at + MOST_BYTES));
    }
  }

  function takeRole(role) {
    const became = role.writer && !isWriter;
    isWriter = role.writer;
    root.dataset.writer = String(isWriter);
    const since = role.since ? " since " + new Date(role.since).toLocaleTimeString() : "";
    byId("writer").textContent = isWriter ? "you write" : role.holder ? role.holder + " writes" + since : "nobody writes";
    if (role.lost) {
      wantsToWrite = false;
      notice(role.holder + " took over");
    } else {
      notice("");
    }
    if (became) {
      sendSize();
    }
  }

  // A terminal answers questions of the guest by itself, as if typed: not while it shows what was.
  function listen() {
    const replays = offset < replayEnd;
    terminal.options.disableStdin = replays;
    if (!replays && socket !== null && root.dataset.state !== "open") {
      show("open", "connected");
    }
  }

  function tell(message) {
    if (message.opened) {
      offset = message.opened.offset;
      replayEnd = message.opened.endOffset;
      pauseMs = FIRST_PAUSE_MS;
      listen();
    } else if (message.gap) {
      offset = message.gap.toOffset;
      listen();
      terminal.write("\r\n[" + (message.gap.toOffset - message.gap.fromOffset) + " bytes are not shown]\r\n");
    } else if (message.role) {
      takeRole(message.role);
    } else if (message.resized) {
      byId("notice").textContent = message.resized.applied ? "" : "size: " + message.resized.detail;
    } else if (message.inputRefused) {
      notice(message.inputRefused.detail);
    } else if (message.end) {
      notice(message.end.reason + ": " + message.end.detail);
    } else if (message.reason) {
      problem = message;
      notice(message.detail);
    }
  }

  function again() {
    show("connecting", "connecting again");
    setTimeout(connect, pauseMs);
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
  }

  function closed(event) {
    socket = null;
    const last = byId("notice").textContent;
    takeRole({ writer: false, holder: "" });
    if (event.code === 1000) {
      show("ended", "ended");
      notice(last || event.reason);
    } else if (event.code === 4400 && !OTHER_TICKET.includes(event.reason)) {
      show("ended", "refused");
      notice(problem === null ? event.reason : problem.detail);
    } else {
      notice(last);
      again();
    }
  }

  async function ticket() {
    const response = await fetch(base + "/tickets", { method: "POST" });
    const answer = await response.json();
    if (!response.ok) {
      const error = new Error(answer.detail);
      error.isFinal = response.status < 500;
      throw error;
    }
    return answer.url;
  }

  async function connect() {
    problem = null;
    let url;
    try {
      url = await ticket();
    } catch (error) {
      notice(error.message);
      if (error.isFinal) {
        show("ended", "refused");
      } else {
        again();
      }
      return;
    }
    const query = new URLSearchParams({ write: String(wantsToWrite) });
    if (label) {
      query.set("viewer", label);
    }
    if (offset !== null) {
      query.set("offset", String(offset));
    }
    const scheme = location.protocol === "https:" ? "wss://" : "ws://";
    socket = new WebSocket(scheme + location.host + url + "&" + query);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => {
      if (typeof event.data === "string") {
        tell(JSON.parse(event.data));
      } else {
        offset += event.data.byteLength;
        terminal.write(new Uint8Array(event.data), listen);
      }
    };
    socket.onclose = closed;
  }

  terminal.onData((text) => sendInput(encoder.encode(text)));
  terminal.onBinary((text) => sendInput(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
  byId("take").addEventListener("click", () => {
    wantsToWrite = true;
    send(JSON.stringify({ role: { take: true, force: true } }));
    terminal.focus();
  });
  byId("release").addEventListener("click", () => {
    wantsToWrite = false;
    send(JSON.stringify({ role: { take: false } }));
  });
  new ResizeObserver(sendSize).observe(byId("terminal"));
  connect();
})();

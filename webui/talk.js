// The page's talk with the server: the Realtime protocol over the socket of the page's own origin. It shows
// and plays what the server says and decides nothing itself. Text enters the page as textContent only.
// `element` is the component's element (Gradio), `WORKLETS` the source of worklets.js.

const $ = Object.fromEntries([...element.querySelectorAll("[data-id]")].map((e) => [e.dataset.id, e]));
const app = element.querySelector(".sa");

const WIRE_HZ = 24000;
const RETRY_MS = [300, 700, 1500, 3000, 5000];
const REPLAYED = 20; // messages that a new session is told after the connection was lost

const state = {
  socket: null,
  open: false, // the session is there
  wanted: false, // the user wants a talk: a lost connection is opened again
  attempts: 0,
  mic: null, // {stream, node} while the microphone is used
  muted: false,
  speaking: false, // the user, says the server
  pending: 0, // answers asked for that have made no sound or text yet
  active: null, // id of the response in progress
  lost: false, // the server is away or full
  problem: "",
};

// ---------------------------------------------------------------- what is seen

const MOODS = {
  off: "Ask anything, aloud",
  connecting: "Connecting…",
  ready: "Ready",
  listening: "Listening",
  hearing: "I hear you",
  thinking: "Thinking…",
  speaking: "Speaking",
  error: "Not connected",
};

function mood() {
  if (!state.open) return state.lost ? "error" : state.wanted ? "connecting" : "off";
  if (speaker?.playing) return "speaking";
  if (state.speaking) return "hearing";
  if (state.pending) return "thinking";
  return state.mic && !state.muted ? "listening" : "ready";
}

function show() {
  const now = mood();
  const says = now === "ready" && state.muted ? "Muted" : MOODS[now];
  app.dataset.mood = now;
  if ($.status.textContent !== says) $.status.textContent = says; // a screen reader speaks every change
  app.classList.toggle("sa-begun", Boolean(turns.size));
  $["start-label"].textContent = state.mic ? "End" : "Start talking";
  $.start.classList.toggle("sa-on", Boolean(state.mic));
  $.mute.hidden = !state.mic;
  $.mute.textContent = state.muted ? "Unmute" : "Mute";
  $.mute.setAttribute("aria-pressed", String(state.muted));
  $["hush-row"].setAttribute("aria-hidden", String(!(speaker?.playing || state.active)));
  $.problem.hidden = !state.problem;
  if ($.problem.textContent !== state.problem) $.problem.textContent = state.problem;
}

function tell(problem) {
  state.problem = problem;
  show();
}

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---------------------------------------------------------------- the conversation on the page

/** item id -> {role, box, text, words: [{text, at}], shown, heard, done} */
const turns = new Map();

function turn(id, role) {
  let found = turns.get(id);
  if (!found) {
    const box = make("article", `sa-turn sa-${role}`);
    box.setAttribute("aria-label", role === "user" ? "You" : "Assistant");
    const text = make("p", "sa-text");
    box.append(text);
    $.talk.append(box);
    found = { role, box, text, words: [], shown: 0, done: false, cut: false };
    turns.set(id, found);
    scroll();
  }
  return found;
}

let follow = true; // the newest turn stays in view unless the reader scrolled up
$.talk.addEventListener("scroll", () => {
  follow = $.talk.scrollHeight - $.talk.scrollTop - $.talk.clientHeight < 40;
});
function scroll() {
  if (follow) $.talk.scrollTop = $.talk.scrollHeight;
}

/** Show the words whose moment has come in what is heard. */
function reveal() {
  for (const [id, one] of turns) {
    if (one.shown === one.words.length) continue;
    const now = one.cut ? -1 : (speaker?.heardMs(id) ?? Infinity);
    const before = one.shown;
    while (one.shown < one.words.length && one.words[one.shown].at <= now) one.shown++;
    if (one.shown === before) continue;
    one.text.textContent = one.words.slice(0, one.shown).map((word) => word.text).join("");
    scroll();
  }
}

function sentence(one) {
  return one.words.map((word) => word.text).join("");
}

/** The listener heard no more than `ms` of this answer. */
function cutShort(id, ms) {
  const one = turns.get(id);
  if (!one || one.cut) return;
  one.words = one.words.filter((word) => word.at <= ms);
  one.shown = one.words.length;
  one.cut = true;
  one.text.textContent = sentence(one).trimEnd();
  one.box.classList.add("sa-cut");
  one.text.append(make("span", "sa-mark", " — interrupted"));
}

/** Stages of the receipt, in order; all but the first are the making of the answer, one after another. */
const STAGES = {
  vad: "end of your turn decided",
  asr: "understood",
  llm_ttft: "first word written",
  first_clause: "first clause written",
  tts_ttfa: "first sound made",
};

/** The latency receipt of a response: a chip, and behind it a bar for every stage. */
function receipt(one, timings) {
  const total = timings.voice_to_voice ?? timings.first_audio;
  if (!(total > 0) || one.box.querySelector(".sa-chip")) return;
  const chip = make("button", "sa-chip", `${Math.round(total)} ms`);
  chip.type = "button";
  chip.title = "From the end of your speech to the first sound";
  chip.setAttribute("aria-expanded", "false");
  const fall = make("dl", "sa-fall");
  fall.hidden = true;
  const stages = Object.entries(STAGES).filter(([name]) => timings[name] >= 0);
  const making = stages.filter(([name]) => name !== "vad").reduce((sum, [name]) => sum + timings[name], 0);
  let start = Math.max(0, total - making); // it is made while silence is awaited: the bars overlap
  for (const [name, label] of stages) {
    const from = name === "vad" ? 0 : start;
    if (name !== "vad") start += timings[name];
    const bar = make("span", "sa-bar");
    const percent = (ms) => Math.min(100, (100 * ms) / total);
    bar.style.marginLeft = `${percent(from)}%`;
    bar.style.width = `${percent(from + timings[name]) - percent(from)}%`;
    fall.append(make("dt", "", label), make("dd", "", `${Math.round(timings[name])}`), bar);
  }
  chip.addEventListener("click", () => {
    fall.hidden = !fall.hidden;
    chip.setAttribute("aria-expanded", String(!fall.hidden));
    scroll();
  });
  one.box.append(chip, fall);
  scroll();
}

// ---------------------------------------------------------------- sound

let sound = null; // the AudioContext with its worklets
let speaker = null;

async function openSound() {
  if (!sound) {
    sound = new AudioContext({ latencyHint: "interactive" });
    const source = URL.createObjectURL(new Blob([WORKLETS], { type: "text/javascript" }));
    await sound.audioWorklet.addModule(source);
    URL.revokeObjectURL(source);
    speaker = new Speaker(sound);
  }
  if (sound.state === "suspended") await sound.resume();
}

/** The player's other end: what has been heard of each answer. */
class Speaker {
  constructor(context) {
    this.context = context;
    this.node = new AudioWorkletNode(context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.connect(context.destination);
    this.pushed = new Map(); // item -> samples given to the player
    this.last = { played: {}, waiting: 0, level: 0, underruns: 0, at: 0 };
    this.whole = new Set(); // items of which no more audio will come
    this.dropped = new Set();
    this.flushes = new Map();
    this.node.port.onmessage = ({ data }) => {
      this.last = data;
      if (data.flush !== undefined) {
        this.flushes.get(data.flush)?.(data);
        this.flushes.delete(data.flush);
      }
      show();
    };
  }

  get playing() {
    return this.last.waiting > 0;
  }

  /** Sound needs this long from the worklet to the ear. */
  get latency() {
    return this.context.outputLatency || this.context.baseLatency || 0;
  }

  push(item, samples) {
    if (this.dropped.has(item)) return;
    this.pushed.set(item, (this.pushed.get(item) ?? 0) + samples.length);
    this.node.port.postMessage({ push: item, samples }, [samples.buffer]);
    if (!this.last.waiting) this.last = { ...this.last, waiting: samples.length / WIRE_HZ, at: this.context.currentTime };
  }

  finish(item) {
    this.whole.add(item);
    this.node.port.postMessage({ finish: item });
  }

  /** Ms of this answer that were heard: all of one that is over, none of one without sound. */
  heardMs(item) {
    const pushed = this.pushed.get(item);
    if (pushed === undefined) return 0;
    const played = this.last.played[item] ?? 0;
    if (this.whole.has(item) && (played >= pushed || !this.playing)) return Infinity;
    const since = this.playing ? this.context.currentTime - this.last.at : 0;
    return (1000 * Math.min(pushed, played + since * WIRE_HZ)) / WIRE_HZ - 1000 * this.latency;
  }

  /** Silence now. Resolves to the answers that were cut: [[item, ms heard]]. */
  flush() {
    const number = (this.number = (this.number ?? 0) + 1);
    const answered = new Promise((resolve) => this.flushes.set(number, resolve));
    this.node.port.postMessage({ flush: number });
    return answered.then(({ cut, played }) =>
      [...new Set(cut)].map((item) => {
        this.dropped.add(item);
        return [item, Math.max(0, (1000 * (played[item] ?? 0)) / WIRE_HZ - 1000 * this.latency)];
      }),
    );
  }
}

/** The user interrupts: silence, and the server is told how much was heard. */
async function interrupt() {
  if (!speaker) return;
  for (const [item, ms] of await speaker.flush()) {
    cutShort(item, ms);
    send({ type: "conversation.item.truncate", item_id: item, content_index: 0, audio_end_ms: Math.floor(ms) });
  }
  show();
}

async function openMicrophone() {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
  });
  const source = sound.createMediaStreamSource(stream);
  const node = new AudioWorkletNode(sound, "recorder", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  source.connect(node);
  node.port.onmessage = ({ data }) => {
    level(state.muted ? 0 : data.level);
    if (!state.open) return;
    // The server's clock is the microphone: while muted it hears silence, not nothing.
    const pcm = state.muted ? new ArrayBuffer(data.pcm.byteLength) : data.pcm;
    send({ type: "input_audio_buffer.append", audio: base64(pcm) });
  };
  stream.getAudioTracks()[0].addEventListener("ended", () => {
    closeMicrophone();
    tell("The microphone was taken away. You can type, or start again.");
  });
  state.mic = { stream, node, source };
}

function closeMicrophone() {
  if (!state.mic) return;
  state.mic.node.port.onmessage = null;
  state.mic.source.disconnect();
  for (const track of state.mic.stream.getTracks()) track.stop();
  state.mic = null;
  state.muted = false;
  state.speaking = false;
  level(0);
}

function base64(buffer) {
  return btoa(String.fromCharCode(...new Uint8Array(buffer)));
}

function samplesOf(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const pcm = new DataView(bytes.buffer);
  const samples = new Float32Array(bytes.length >> 1);
  for (let i = 0; i < samples.length; i++) samples[i] = pcm.getInt16(2 * i, true) / 32768;
  return samples;
}

// ---------------------------------------------------------------- the socket

function address(path) {
  return new URL(path, document.baseURI);
}

function send(event) {
  if (state.open && state.socket.readyState === WebSocket.OPEN) state.socket.send(JSON.stringify(event));
}

function connect() {
  if (state.socket) return;
  const url = address("v1/realtime");
  url.protocol = url.protocol.replace("http", "ws");
  const key = sessionStorage.getItem("stepaudio-key");
  const protocols = ["realtime", ...(key ? [`openai-insecure-api-key.${key}`] : [])];
  const socket = (state.socket = new WebSocket(url, protocols));
  socket.onmessage = ({ data }) => receive(JSON.parse(data));
  socket.onclose = (event) => lost(event);
  show();
}

async function lost(event) {
  const wasOpen = state.open;
  state.socket = null;
  state.open = state.speaking = false;
  state.pending = 0;
  state.active = null;
  show();
  if (!state.wanted) return;
  if (wasOpen) state.attempts = 0;
  const why = await diagnose(wasOpen ? event.code : 0);
  if (!state.wanted || state.socket) return;
  state.lost = true;
  tell(why.says);
  if (why.final) {
    end(why.says);
    return;
  }
  const wait = RETRY_MS[Math.min(state.attempts++, RETRY_MS.length - 1)];
  setTimeout(() => state.wanted && connect(), Math.max(wait, why.wait ?? 0));
}

/** A browser does not say why a socket was refused; the server's other addresses do. */
async function diagnose(code) {
  if (code === 1008) return { says: "The server ended this talk.", final: true };
  if (code === 1013) return { says: "The connection is too slow for this talk.", final: false };
  try {
    const key = sessionStorage.getItem("stepaudio-key");
    const headers = key ? { authorization: `Bearer ${key}` } : {};
    const models = await fetch(address("v1/models"), { headers });
    if (models.status === 401 || models.status === 403) {
      $["key-form"].hidden = false;
      $.key.focus();
      return { says: key ? "The server does not know this key." : "", final: true };
    }
    const ready = await fetch(address("ready"));
    const body = await ready.json().catch(() => ({}));
    const { talks, free } = body.talks ?? {};
    if (ready.ok && free === 0) {
      const all = talks === 1 ? "The one talk it can hold is" : `All ${talks} talks it can hold are`;
      return { says: `The server is full. ${all} taken; waiting for a free place…`, wait: 5000 };
    }
    if (body.status === "failed") return { says: "The server could not load its models; its log says why.", wait: 5000 };
    if (body.status === "loading") return { says: "The server is still loading its models…", wait: 1000 };
    if (!ready.ok) return { says: "The server is being shut down. Trying again…", wait: 2000 };
    if (code) return { says: "The connection was lost. Reconnecting…" };
    return { says: "The server is busy and takes no new talk. Waiting…", wait: 3000 };
  } catch {
    return { says: "The server is not reachable. Trying again…" };
  }
}

function receive(event) {
  switch (event.type) {
    case "session.created":
      state.open = true;
      state.lost = false;
      state.attempts = 0;
      tell("");
      send({
        type: "session.update",
        session: { type: "realtime", audio: { input: { transcription: { model: "whisper-base" } } } },
      });
      replay();
      for (const event of queued.splice(0)) send(event);
      for (const one of turns.values()) one.queued = false;
      break;
    case "input_audio_buffer.speech_started":
      state.speaking = true;
      interrupt();
      break;
    case "input_audio_buffer.speech_stopped":
      state.speaking = false;
      break;
    case "input_audio_buffer.committed":
      state.speaking = false;
      turn(event.item_id, "user").text.textContent ||= "…";
      break;
    case "conversation.item.input_audio_transcription.delta": {
      const one = turn(event.item_id, "user");
      one.words.push({ text: event.delta ?? "", at: -Infinity });
      one.shown = one.words.length;
      one.text.textContent = sentence(one);
      one.box.classList.add("sa-partial");
      break;
    }
    case "conversation.item.input_audio_transcription.completed": {
      const one = turn(event.item_id, "user");
      one.words = [{ text: event.transcript.trim(), at: -Infinity }];
      one.shown = 1;
      one.done = true;
      one.text.textContent = event.transcript.trim();
      one.box.classList.remove("sa-partial");
      if (!event.transcript.trim()) forget(event.item_id);
      break;
    }
    case "conversation.item.input_audio_transcription.failed":
      turn(event.item_id, "user").text.textContent = "(not understood)";
      break;
    case "conversation.item.deleted":
      forget(event.item_id);
      break;
    case "response.created":
      state.active = event.response.id;
      state.pending = 1;
      break;
    case "response.output_text.delta":
    case "response.output_audio_transcript.delta": {
      const spoken = event.type === "response.output_audio_transcript.delta";
      const at = spoken && typeof event.start_time === "number" ? 1000 * event.start_time : -Infinity;
      const one = turn(event.item_id, "assistant");
      if (!one.cut) one.words.push({ text: event.delta, at });
      if (!spoken) state.pending = 0;
      break;
    }
    case "response.output_audio.delta":
      state.pending = 0;
      speaker?.push(event.item_id, samplesOf(event.delta));
      break;
    case "response.output_audio.done":
      speaker?.finish(event.item_id);
      break;
    case "response.done":
      finished(event.response);
      break;
    case "error":
      if (event.error.code !== "response_cancel_not_active" && event.error.code !== "session_expired") {
        tell(event.error.message);
      }
      break;
  }
  reveal();
  show();
}

function finished(response) {
  if (state.active === response.id) state.active = null;
  state.pending = 0;
  const item = response.output?.find((one) => one.type === "message");
  const one = item && turns.get(item.id);
  if (one) {
    one.done = true;
    receipt(one, response.timings_ms ?? {});
    $.live.textContent = sentence(one); // a screen reader gets the answer once, whole
  }
  // The server holds an answer back before it is sure of an interruption: then nothing is left here to cut.
  if (response.status === "cancelled") interrupt().then(() => item && cutShort(item.id, Infinity));
  if (response.status === "failed") tell(response.status_details?.error?.message ?? "The answer failed.");
}

function forget(id) {
  turns.get(id)?.box.remove();
  turns.delete(id);
}

/** A new session after a lost connection knows nothing: tell it what was said. */
function replay() {
  for (const one of [...turns.values()].slice(-REPLAYED)) {
    const text = sentence(one).trim();
    if (!text || one.queued) continue;
    const type = one.role === "user" ? "input_text" : "output_text";
    send({
      type: "conversation.item.create",
      item: { type: "message", role: one.role, content: [{ type, text }] },
    });
  }
}

// ---------------------------------------------------------------- what the user does

const queued = []; // typed before the session was there

async function start() {
  state.lost = false;
  tell("");
  $.hint.hidden = true;
  try {
    await openSound();
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    await openMicrophone();
  } catch (error) {
    const reasons = {
      NotAllowedError: "The microphone is not allowed here. Allow it in the address bar, or type: the answer is spoken.",
      NotFoundError: "No microphone was found. You can type: the answer is spoken.",
      NotReadableError: "Another program holds the microphone. You can type: the answer is spoken.",
      SecurityError: "Browsers give the microphone only to https and to localhost. You can type: the answer is spoken.",
    };
    tell(reasons[error.name] ?? `The microphone cannot be used (${error.name}). You can type: the answer is spoken.`);
    $.text.focus();
    return;
  }
  state.wanted = true;
  connect();
  show();
}

function end(problem = "") {
  state.wanted = false;
  closeMicrophone();
  state.socket?.close(1000);
  if (speaker) speaker.flush().then((cut) => cut.forEach(([item, ms]) => cutShort(item, ms)));
  tell(problem);
}

function hush() {
  send({ type: "response.cancel" });
  interrupt();
}

async function say(text) {
  const id = `item_${crypto.getRandomValues(new Uint32Array(3)).join("").slice(0, 24)}`;
  const one = turn(id, "user");
  one.words = [{ text, at: -Infinity }];
  one.shown = 1;
  one.done = true;
  one.text.textContent = text;
  follow = true;
  scroll();
  if (state.open && (state.active || speaker?.playing)) hush();
  await openSound();
  const events = [
    {
      type: "conversation.item.create",
      item: { id, type: "message", role: "user", content: [{ type: "input_text", text }] },
    },
    { type: "response.create" },
  ];
  state.pending = 1;
  if (state.open) {
    for (const event of events) send(event);
  } else {
    one.queued = true;
    queued.push(...events);
    state.wanted = true;
    connect();
  }
  show();
}

$.start.addEventListener("click", () => (state.mic ? end() : start()));
$.mute.addEventListener("click", () => {
  state.muted = !state.muted;
  show();
});
$.hush.addEventListener("click", hush);
$.write.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $.text.value.trim();
  $.text.value = "";
  if (text) say(text);
});
$["key-form"].addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("stepaudio-key", $.key.value.trim());
  $["key-form"].hidden = true;
  tell("");
  state.wanted = true;
  connect();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && (state.active || speaker?.playing)) hush();
});

// The orb moves with whoever speaks.
let loud = 0;
function level(value) {
  loud = Math.max(value, 0);
}
let smooth = 0;
function draw() {
  const target = Math.min(1, 5 * (speaker?.playing ? speaker.last.level : loud));
  smooth += (target - smooth) * (target > smooth ? 0.5 : 0.12);
  $.orb.style.setProperty("--level", smooth.toFixed(3));
  reveal();
  requestAnimationFrame(draw);
}
requestAnimationFrame(draw);
show();

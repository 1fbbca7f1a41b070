// The two ends of the sound, on the audio thread: the microphone as 24 kHz int16, and a player that knows
// to the sample what it has played. Both convert between the wire's rate and the machine's.

const WIRE_HZ = 24000;
const FRAME = 480; // 20 ms: what a message to the server holds
const REPORT_EVERY = 12; // blocks of 128: 32 ms at 48 kHz

/** Band-limited interpolation: a sinc under a Hann window, 12 zero crossings a side, from a table. */
class Kernel {
  constructor(from, to) {
    this.step = from / to; // input samples an output sample
    this.cutoff = Math.min(1, to / from) * 0.94;
    this.half = Math.ceil(12 / this.cutoff);
    this.fine = 512; // table entries an input sample
    this.table = new Float32Array(this.half * this.fine + 2);
    for (let i = 0; i < this.half * this.fine; i++) {
      const x = i / this.fine;
      const at = Math.PI * this.cutoff * x;
      this.table[i] = this.cutoff * (i ? Math.sin(at) / at : 1) * (0.5 + 0.5 * Math.cos((Math.PI * x) / this.half));
    }
  }

  /** The signal `data` (zero outside) at the fractional index `t`. */
  at(data, length, t) {
    let sum = 0;
    const first = Math.max(0, Math.ceil(t - this.half));
    const last = Math.min(length - 1, Math.floor(t + this.half));
    for (let i = first; i <= last; i++) sum += data[i] * this.table[Math.round(Math.abs(t - i) * this.fine)];
    return sum;
  }
}

/** Microphone -> `{pcm: ArrayBuffer of int16, level}` every 20 ms. */
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.kernel = new Kernel(sampleRate, WIRE_HZ);
    this.data = new Float32Array(8192);
    this.length = 0;
    this.t = 0;
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.energy = 0;
  }

  process([[input]]) {
    if (!input) return true; // no microphone yet
    this.data.set(input, this.length);
    this.length += input.length;
    while (this.t + this.kernel.half < this.length) {
      const sample = Math.max(-1, Math.min(1, this.kernel.at(this.data, this.length, this.t)));
      this.t += this.kernel.step;
      this.energy += sample * sample;
      this.frame[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      if (this.filled === FRAME) {
        const pcm = this.frame.buffer;
        this.port.postMessage({ pcm, level: Math.sqrt(this.energy / FRAME) }, [pcm]);
        this.frame = new Int16Array(FRAME);
        this.filled = this.energy = 0;
      }
    }
    const spent = Math.floor(this.t - this.kernel.half) - 1;
    if (spent > 4096) {
      this.data.copyWithin(0, spent, this.length);
      this.length -= spent;
      this.t -= spent;
    }
    return true;
  }
}

/**
 * In: `{push: item, samples}`, `{finish: item}`, `{flush: number}`.
 * Out: `{played: {item: samples}, waiting, level, at}` while it plays, and once for every flush with its
 * number and the answers that were cut. Positions are samples at 24 kHz.
 */
class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.kernel = new Kernel(WIRE_HZ, sampleRate);
    this.clear();
    this.blocks = 0;
    this.wasPlaying = false;
    this.underruns = 0;
    this.open = null;
    this.port.onmessage = ({ data }) => {
      if (data.push !== undefined) this.push(data.push, data.samples);
      else if (data.finish !== undefined) this.open = this.open === data.finish ? null : this.open;
      else if (data.flush !== undefined) this.flushing = data.flush;
    };
  }

  clear() {
    this.data = new Float32Array(0);
    this.pieces = []; // {item, start, end}: whose samples these are, as indices of `data`
    this.t = 0;
    this.before = {}; // samples of an item that were played and dropped from `data`
    this.flushing = null;
  }

  push(item, samples) {
    const spent = Math.max(0, Math.floor(this.t) - this.kernel.half);
    const joined = new Float32Array(this.data.length - spent + samples.length);
    joined.set(this.data.subarray(spent));
    joined.set(samples, this.data.length - spent);
    for (const piece of this.pieces) {
      const gone = Math.max(0, Math.min(piece.end, spent) - piece.start);
      if (gone) this.before[piece.item] = (this.before[piece.item] || 0) + gone;
      piece.start = Math.max(0, piece.start - spent);
      piece.end -= spent;
    }
    this.pieces = this.pieces.filter((piece) => piece.end > 0);
    const known = new Set([item, ...this.pieces.map((piece) => piece.item)]);
    for (const old in this.before) if (!known.has(old)) delete this.before[old];
    this.t -= spent;
    const start = joined.length - samples.length;
    const last = this.pieces.at(-1);
    if (last?.item === item) last.end = joined.length;
    else this.pieces.push({ item, start, end: joined.length });
    this.data = joined;
    this.open = item;
  }

  played() {
    const played = { ...this.before };
    for (const { item, start, end } of this.pieces) {
      played[item] = (played[item] || 0) + Math.max(0, Math.min(this.t, end) - start);
    }
    for (const item in played) played[item] = Math.floor(played[item]);
    return played;
  }

  process(_, [[output]]) {
    const end = this.data.length;
    const playing = this.t < end;
    let energy = 0;
    for (let i = 0; i < output.length && this.t < end; i++) {
      // An interruption fades within one block (3 ms): a cut in the middle of a wave would click.
      const gain = this.flushing === null ? 1 : 1 - i / output.length;
      output[i] = gain * this.kernel.at(this.data, end, this.t);
      energy += output[i] * output[i];
      this.t = Math.min(end, this.t + this.kernel.step);
    }
    if (this.wasPlaying && !playing && this.open !== null) this.underruns++;
    const state = () => ({
      played: this.played(),
      waiting: (end - this.t) / WIRE_HZ,
      level: Math.sqrt(energy / output.length),
      underruns: this.underruns,
      at: currentTime,
    });
    if (this.flushing !== null) {
      const cut = this.pieces.filter((p) => p.end > this.t || p.item === this.open).map((p) => p.item);
      this.port.postMessage({ ...state(), waiting: 0, flush: this.flushing, cut });
      this.clear();
      this.open = null;
    } else if ((playing && ++this.blocks % REPORT_EVERY === 0) || playing !== this.wasPlaying) {
      this.port.postMessage(state());
    }
    this.wasPlaying = playing;
    return true;
  }
}

registerProcessor("recorder", Recorder);
registerProcessor("player", Player);

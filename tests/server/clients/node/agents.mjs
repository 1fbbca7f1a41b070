// @openai/agents-realtime over a WebSocket: a tool, and a spoken turn. URL, WAV (24 kHz, int16).
import { readFileSync } from "node:fs";
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";
import { z } from "zod";

const [url, wav] = process.argv.slice(2);
const result = { errors: [], tools: [], audio: 0, said: [], heard: [] };
const weather = tool({
  name: "weather",
  description: "The weather of a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
});
const agent = new RealtimeAgent({ name: "helper", instructions: "Be short.", tools: [weather] });
const session = new RealtimeSession(agent, {
  transport: new OpenAIRealtimeWebSocket({ useInsecureApiKey: true }),
  model: "m",
  tracingDisabled: true,
});
session.on("error", ({ error }) => result.errors.push(JSON.stringify(error?.error ?? String(error))));
session.on("agent_tool_end", (context, agent, tool, output) => result.tools.push(output));
session.on("audio", ({ data }) => (result.audio += data.byteLength));

let waiting = [];
session.on("transport_event", (event) => {
  if (event.type === "conversation.item.input_audio_transcription.completed") result.heard.push(event.transcript);
  if (event.type === "response.output_audio_transcript.done") result.said.push(event.transcript);
  waiting = waiting.filter(({ what, done }) => !(what() && (done(), true)));
});
const until = (what) => new Promise((done) => (what() ? done() : waiting.push({ what, done })));

setTimeout(() => {
  console.error("too slow", JSON.stringify(result));
  process.exit(1);
}, 90_000).unref();

await session.connect({ apiKey: "not-needed", url: `${url.replace("http", "ws")}/v1/realtime?model=m` });
session.sendMessage("Use the tool.");
await until(() => result.tools.length && result.said.length);
const pcm = Buffer.concat([readFileSync(wav).subarray(44), Buffer.alloc(48_000 * 6)]);
for (let start = 0; start < pcm.length; start += 9600) {
  const piece = pcm.subarray(start, start + 9600);
  session.sendAudio(piece.buffer.slice(piece.byteOffset, piece.byteOffset + piece.length));
  await new Promise((done) => setTimeout(done, 200));
}
await until(() => result.heard.length && result.said.length > 1);
session.close();
console.log(JSON.stringify(result));
process.exit(0);

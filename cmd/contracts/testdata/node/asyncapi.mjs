// Parses an AsyncAPI document and prints what it says as JSON: asyncapi.mjs FILE.
import { fromFile, Parser } from "@asyncapi/parser";

const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
const channels = {};
for (const channel of document?.channels() ?? []) {
	channels[channel.id()] = {
		address: channel.address(),
		operations: channel.operations().all().map((o) => `${o.action()} ${o.id()}`),
		payload: channel.messages().all().flatMap((m) => Object.keys(m.payload()?.properties() ?? {})),
		headers: channel.messages().all().flatMap((m) => Object.keys(m.headers()?.properties() ?? {})),
	};
}
// Severity 0 is an error, 1 a warning; below are remarks, such as that there is a later version of AsyncAPI.
const problems = diagnostics.filter((d) => d.severity <= 1).map((d) => `${d.path.join(".")}: ${d.message}`);
console.log(JSON.stringify({ problems, channels }));

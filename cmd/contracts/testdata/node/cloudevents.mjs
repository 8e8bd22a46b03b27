// Reads Kafka messages, a line of JSON each ({"key","value","headers"}, all strings), as CloudEvents, and prints a line
// for each: the event, or an error.
import { createInterface } from "node:readline";
import { Kafka } from "cloudevents";

for await (const line of createInterface({ input: process.stdin })) {
	const { key, value, headers } = JSON.parse(line);
	let said;
	try {
		if (!Kafka.isEvent({ key, value, headers, body: value })) throw new Error("not an event");
		const event = Kafka.toEvent({ key, value, headers, body: value });
		event.validate();
		said = { event: event.toJSON() };
	} catch (error) {
		said = { error: String(error) };
	}
	console.log(JSON.stringify(said));
}

// A far end on ws: far.mjs server|client deflate|plain
import { createInterface } from "node:readline";
import { WebSocket, WebSocketServer } from "ws";

const [role, compression] = process.argv.slice(2);
const options = { perMessageDeflate: compression === "deflate" };
const say = (facts) => console.log(JSON.stringify(facts));

function converse(connection, done) {
  connection.on("message", (data, isBinary) => {
    const [word, verb, ...rest] = isBinary ? [] : data.toString().split(" ");
    if (word !== "do") {
      connection.send(data, { binary: isBinary });
    } else if (verb === "ping") {
      connection.ping(rest[0]);
    } else if (verb === "fragments") {
      rest.forEach((part, index) => connection.send(part, { fin: index === rest.length - 1 }));
    } else if (rest[0] === "1005") {
      connection.close();
    } else {
      connection.close(Number(rest[0]), rest[1]);
    }
  });
  connection.on("pong", (data) => data.length && connection.send(`pong ${data}`));
  connection.on("close", (code, reason) => {
    say({ code, reason: reason.toString() });
    done?.();
  });
  connection.on("error", (error) => console.error(error));
}

if (role === "server") {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, ...options });
  server.on("connection", (connection) => converse(connection));
  server.on("listening", () => say({ port: server.address().port }));
  process.stdin.on("end", () => process.exit(0)).resume();
} else {
  say({});
  for await (const url of createInterface({ input: process.stdin })) {
    await new Promise((done) => converse(new WebSocket(url, options), done));
  }
}

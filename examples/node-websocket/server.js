// A page and a WebSocket on one port.
"use strict";

const http = require("node:http");
const { WebSocketServer } = require("ws");

const server = http.createServer((request, response) => {
  response.setHeader("Content-Type", "text/plain; charset=utf-8");
  response.end(`Hello from ${process.env.DYNO || "nowhere"}\n`);
});

const sockets = new WebSocketServer({ server, path: "/echo" });
sockets.on("connection", (socket) => {
  socket.on("error", () => socket.terminate());
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
const alive = setInterval(() => {
  for (const socket of sockets.clients) socket.send("alive");
}, 1000);

process.on("SIGTERM", () => {
  clearInterval(alive);
  for (const socket of sockets.clients) socket.close(1001, "restarting");
  server.close(() => process.exit(0));
});

server.listen(Number(process.env.PORT), () => console.log(`listening on port ${process.env.PORT}`));

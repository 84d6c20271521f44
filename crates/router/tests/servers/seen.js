// Writes down each request's method and path when it begins, and reads its body to the end.
const fs = require("node:fs");
const http = require("node:http");

const [host, port] = process.argv.slice(2);
const server = http.createServer((request, response) => {
  fs.appendFileSync(process.env.SEEN, `${request.method} ${request.url}\n`);
  request.resume();
  request.on("end", () => response.end("ok"));
});
server.listen(Number(port), host);

// Two servers in one process: the outer one listens on port 8080 without a host, as most do, and asks the inner one,
// which listens on port 9000 of INNER, by each of the names in ASK. Every answer tells whom it has reached.
const http = require("http");
const replica = process.env.REPLICA || "?";

function ask(host) {
  return new Promise((resolve) => {
    const options = { host, port: 9000, agent: false };
    const request = http.get(options, (response) => {
      let body = "";
      response.on("data", (part) => (body += part));
      // A test may listen on the inner port for a moment: that answers with a page, which no header can hold.
      const { statusCode } = response;
      response.on("end", () => resolve(statusCode === 200 ? body : `status ${statusCode}`));
    });
    request.on("error", (error) => resolve(error.code));
  });
}

const inner = http.createServer((request, response) => {
  response.end(`${replica} at ${request.socket.localAddress} from ${request.socket.remoteAddress}`);
});
const outer = http.createServer(async (request, response) => {
  const names = (process.env.ASK || "localhost").split(" ");
  const reached = await Promise.all(names.map(async (name) => `${name}: ${await ask(name)}`));
  response.setHeader("X-Replica", `${replica} asked ${reached.join(", ")}`);
  response.end();
});
inner.listen(9000, process.env.INNER || "127.0.0.1");
outer.listen(8080);
process.on("SIGTERM", () => process.exit(0));

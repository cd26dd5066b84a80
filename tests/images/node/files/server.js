const replica = process.env.REPLICA || "?";
const server = require("http").createServer((request, response) => {
  response.setHeader("X-Replica", replica);
  response.end(`replica ${replica}\n`);
});
server.listen(8080);
process.on("SIGTERM", () => server.close(() => process.exit(0)));
